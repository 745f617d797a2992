//! The whole pure system in one process and in virtual time: the edge's router, SIP stack
//! and media engine, phones that speak SIP as bytes and RTP as tones, a scripted voice
//! agent, and a cloud that can be late or gone. One seed reproduces everything.

pub mod judge;
pub mod net;
pub mod phone;
pub mod script;
pub mod setting;
pub mod storm;
pub mod world;
