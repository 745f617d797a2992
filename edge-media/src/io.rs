//! The shell: the only module with sockets, clocks and tasks.
pub mod http;
pub mod stream;
