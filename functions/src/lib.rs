//! The cloud half of Warmbridge: handlers over small adapters. Handlers are linear: read one
//! message, call `handoff`, hand on. None calls another. In reading order:
//!
//! - [`jobs`]: what travels in the queues; [`batch`]: what becomes of one record;
//! - [`evaluate_trigger`], [`build_payload`], [`send_webhook`], [`write_audit`]: the handlers;
//! - [`guard`]: the only way out over HTTP; [`destinations`]: who receives what;
//! - [`sqlite`]: the embedded store; [`audit_read`]: reading it from outside;
//! - [`local`]: all of them on one machine.
pub mod audit_read;
pub mod batch;
pub mod build_payload;
pub mod destinations;
pub mod evaluate_trigger;
pub mod guard;
pub mod jobs;
pub mod local;
pub mod send_webhook;
pub mod sqlite;
pub mod write_audit;
