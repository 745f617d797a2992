//! The cloud half of Warmbridge: handlers over small ports, and the embedded adapters.
//! A function never calls another: it reads a queue and writes to queues. Every handler may
//! see every message twice, late and out of order.
//!
//! In reading order:
pub mod ports;

pub mod config;
pub mod outbox;

pub mod batch;
pub mod breakers;
pub mod build_payload;
pub mod checkpoint;
pub mod disposition;
pub mod evaluate_trigger;
pub mod measure_transfers;
pub mod send_webhook;
pub mod switches;
pub mod tamper_watch;
pub mod write_audit;

pub mod clock;
pub mod guard;
pub mod http;
pub mod invocation;
pub mod local;
pub mod sqlite;
mod worker;

#[cfg(feature = "aws")]
pub mod aws;

pub mod audit_read;

#[cfg(any(test, feature = "contract"))]
pub mod contract;
#[cfg(test)]
mod testing;
