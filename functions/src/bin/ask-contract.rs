//! Asks the stack that the environment names whether it keeps the contract of the ports.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    // A second provider would be a fault of ours; the first one stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    functions::contract::cloud::ask().await
}
