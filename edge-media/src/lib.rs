//! The always-on media edge of Warmbridge.
pub mod media;
pub mod sip;
