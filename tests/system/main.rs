//! Tests of the system as a whole. `tidy` reads the repository itself: its layers, its files
//! and what its documents say of them.

mod grid;
mod leaving;
mod minds;
mod ringing;
mod tidy;
mod transfer;
