//! Everything that takes bytes from outside, one target a file.

pub(crate) mod audit;
pub(crate) mod config;
pub(crate) mod desktop;
pub(crate) mod event;
pub(crate) mod http;
pub(crate) mod policy;
pub(crate) mod rtp;
pub(crate) mod sdp;
pub(crate) mod signal;
pub(crate) mod sip;
pub(crate) mod stream;

use crate::harness::Target;

/// All of them.
pub(crate) const ALL: [Target; 11] = [
    sip::TARGET,
    sdp::TARGET,
    rtp::TARGET,
    stream::TARGET,
    signal::TARGET,
    http::TARGET,
    desktop::TARGET,
    config::TARGET,
    policy::TARGET,
    event::TARGET,
    audit::TARGET,
];
