//! The always-on media edge of Warmbridge.
pub mod config;
pub mod desktop;
pub mod io;
pub mod link;
pub mod media;
pub mod sip;
