//! The shell: the only module with sockets, clocks, threads and tasks.
pub mod clock;
pub mod media;
pub mod recording;
pub mod speech;
