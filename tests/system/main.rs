//! Tests of the system as a whole. `tidy` reads the repository itself: its layers, its files
//! and what its documents say of them.

mod asking;
mod cloud;
mod fallback;
mod grid;
mod leaving;
mod minds;
mod network;
mod pii;
mod recording;
mod ringing;
mod storm;
mod tidy;
mod transfer;
