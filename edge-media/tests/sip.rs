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
#[path = "sip/reliable.rs"]
mod reliable;
#[path = "sip/secure.rs"]
mod secure;
#[path = "sip/sessions.rs"]
mod sessions;
#[path = "sip/transfers.rs"]
mod transfers;
#[path = "sip/trunks.rs"]
mod trunks;
#[path = "sip/world.rs"]
mod world;
