//! The SIP stack from outside: whole calls, races, hostile input, and a second opinion on
//! what it emits. One test binary, because linking is what takes the time.

#[path = "sip/calls.rs"]
mod calls;
#[path = "sip/defence.rs"]
mod defence;
#[path = "sip/grid.rs"]
mod grid;
#[path = "sip/hostile.rs"]
mod hostile;
#[path = "sip/oracle.rs"]
mod oracle;
#[path = "sip/races.rs"]
mod races;
#[path = "sip/trunks.rs"]
mod trunks;
#[path = "sip/world.rs"]
mod world;
