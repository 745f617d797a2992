//! Tests of the system as a whole. `tidy` reads the repository itself: its layers, its files
//! and what its documents say of them.

#![allow(clippy::wildcard_enum_match_arm, reason = "a test picks the few facts that it is about")]
#![allow(clippy::type_complexity, reason = "a table of states names the script of each beside it")]

mod cloud;
mod grid;
mod leaving;
mod minds;
mod network;
mod pii;
mod recording;
mod ringing;
mod tidy;
mod transfer;
