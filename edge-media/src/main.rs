//! `warmbridge`: parses the command line and hands over. Exit codes are part of the contract.

fn main() -> std::process::ExitCode {
    edge_media::cli::run()
}
