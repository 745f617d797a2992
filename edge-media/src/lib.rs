//! The always-on media edge of Warmbridge: it terminates SIP and RTP, keeps calls bridged,
//! and carries out what the pure call machine of `handoff` orders. In reading order:
//!
//! - [`edge`]: the pure router between calls, SIP dialogs, media and streams;
//! - [`sip`]: the sans-IO SIP user agents and registrar;
//! - [`media`]: the media plane's logic, one continuous stream per egress;
//! - [`link`]: the voice agent's door (Twilio Media Streams dialect);
//! - [`desktop`]: what a human agent's page is told and may say;
//! - [`config`]: the configuration, checked before a port is bound; [`setup`]: the rules
//!   that are built from it;
//! - [`io`]: the only code with sockets, threads, clocks and disks;
//! - [`local`]: the functions in-process, for one machine without a cloud;
//! - [`cli`] and [`demo`]: the command line, and one whole call with outside parties.
pub mod cli;
#[cfg(feature = "aws")]
pub mod cloud;
pub mod config;
pub mod control;
pub mod demo;
pub mod desktop;
pub mod edge;
pub mod io;
pub mod link;
pub mod local;
pub mod media;
pub mod setup;
pub mod sip;
