//! The pure domain of a warm transfer: no sockets, no clock, no randomness, no AWS.
//! Everything here is `handle(now, input) -> outputs` or a plain function, so that the edge,
//! the functions and the simulator run the same code byte for byte.
//!
//! In reading order:
pub mod audit;
pub mod call;
pub mod canonical;
pub mod checkpoint;
pub mod clock;
pub mod command;
pub mod conversation;
pub mod delivery;
pub mod dial;
pub mod event;
pub mod id;
pub mod message;
pub mod metrics;
pub mod payload;
pub mod pii;
pub mod policy;
pub mod redact;
pub mod seal;
pub mod signal;
pub mod vcon;
pub mod webhook;
mod words;
