//! Asks the stack that the environment names whether it keeps the contract of the ports; with
//! `expire TIME`, ends the calls that will be past six years at that time: no test waits so
//! long, and the deployed function goes by the clock alone.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    // A second provider would be a fault of ours; the first one stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut asked = std::env::args().skip(1);
    match (asked.next().as_deref(), asked.next()) {
        (Some("expire"), Some(at)) => functions::contract::cloud::expire(&at).await,
        _ => functions::contract::cloud::ask().await,
    }
}
