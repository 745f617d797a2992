//! The cloud half of Warmbridge: handlers over small ports, and the adapters behind them.
//! Handlers are linear: read one message, call `handoff`, hand on. None calls another.
pub mod guard;
pub mod sqlite;
