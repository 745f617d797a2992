//! The always-on media edge of Warmbridge.
pub mod config;
pub mod media;
pub mod sip;
