//! The always-on media edge of Warmbridge.
pub mod io;
pub mod media;
pub mod sip;
