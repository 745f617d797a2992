//! Tests of the system as a whole. `tidy` reads the repository itself: its layers, its files
//! and what its documents say of them.

mod pii;
mod recording;
mod tidy;
mod transfer;
