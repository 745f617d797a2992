//! `warmbridge trunk`: how it stands with the trunks. `list` and `show` ask the running edge
//! over HTTP, with the token of an operator of its configuration; `test` asks the carrier by
//! itself, from a port of its own, and changes nothing there: its REGISTER has no Contact
//! (RFC 3261 section 10.2.3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::print_line;
use crate::config::{Config, Trunk};
use crate::io::clock::Clock;
use crate::io::http::trunks::shown;
use crate::io::net::{Listeners, Net, NetEvent};
use crate::io::servers::servers_of;
use crate::setup;
use crate::sip::{SipConfig, SipOutput, Stack, UplinkConfig, UplinkState};

/// The edge answers from its memory; a longer wait means that it does not run.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// An answer about 64 trunks is a hundredth of it.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// A SIP server is silent after 32 seconds (64 times T1); a little more, so that it is told.
const TEST_MAX: Duration = Duration::from_secs(35);
/// Exit code for a trunk that is not well.
const NOT_WELL: u8 = 1;

/// What to do with trunks.
#[derive(Debug, Subcommand)]
pub(super) enum What {
    /// One line for each trunk of the running edge.
    List,
    /// All about one trunk of the running edge.
    Show {
        /// Its name in the configuration.
        name: String,
    },
    /// Ask the carrier now: one OPTIONS, and the account's REGISTER without a contact.
    Test {
        /// Its name in the configuration.
        name: String,
    },
}

pub(super) async fn run(path: PathBuf, json: bool, what: What) -> Result<ExitCode> {
    let config = match Config::load(&path) {
        Ok(config) => config,
        Err(errors) => {
            print_line(&errors.to_string());
            return Ok(ExitCode::FAILURE);
        }
    };
    match what {
        What::List => {
            let answer = ask(&config, &path, "/v1/trunks").await?;
            if json {
                print_line(&answer.to_string());
                return Ok(ExitCode::SUCCESS);
            }
            for trunk in answer["trunks"].as_array().into_iter().flatten() {
                print_line(&line(trunk));
            }
            Ok(ExitCode::SUCCESS)
        }
        What::Show { name } => {
            let trunk = known(&config, &name)?;
            let answer = ask(&config, &path, &format!("/v1/trunks/{}", escaped(&trunk.name))).await?;
            Ok(told(&answer, json))
        }
        What::Test { name } => {
            let trunk = known(&config, &name)?;
            if trunk.uplink.is_none() {
                bail!("\"{name}\" names no server to ask: give it `register`, or `options_s` and `proxies`");
            }
            let answer = test(&config, trunk).await?;
            Ok(told(&answer, json))
        }
    }
}

fn known<'a>(config: &'a Config, name: &str) -> Result<&'a Trunk> {
    let found = config.trunks.iter().find(|trunk| trunk.name == name);
    found.with_context(|| format!("the configuration has no trunk \"{name}\""))
}

/// Asks the running edge.
async fn ask(config: &Config, path: &Path, target: &str) -> Result<Value> {
    let Some(operator) = config.operators.first() else {
        bail!("{}: an [[operator]] is needed: its token opens the edge's API", path.display());
    };
    let mut address = config.edge.http;
    if address.ip().is_unspecified() {
        let loopback =
            if address.is_ipv4() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { IpAddr::V6(Ipv6Addr::LOCALHOST) };
        address.set_ip(loopback);
    }
    let token = String::from_utf8_lossy(operator.token.reveal()).into_owned();
    let request = format!(
        "GET {target} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
    );
    let exchange = async {
        let mut socket = TcpStream::connect(address).await?;
        socket.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        socket.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = match tokio::time::timeout(ANSWER_MAX, exchange).await {
        Ok(answer) => {
            answer.with_context(|| format!("no edge answers at {address}: is `warmbridge serve` running?"))?
        }
        Err(_elapsed) => bail!("the edge at {address} does not answer in time"),
    };
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").context("the edge's answer is cut short")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    match status {
        "200" => serde_json::from_str(body).context("the edge's answer is no JSON"),
        "401" => bail!(
            "the edge does not know the operator's token: it runs with another configuration (SIGHUP loads this one)"
        ),
        "404" => bail!(
            "the running edge has no such trunk, or is older than this program: SIGHUP loads this configuration"
        ),
        other => bail!("the edge answers with {other}"),
    }
}

/// A name in a path (RFC 3986 section 2.1).
fn escaped(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    name.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// Asks the carrier by itself, and tells what came as the edge would.
async fn test(config: &Config, trunk: &Trunk) -> Result<Value> {
    let clock = Clock::start();
    let servers = servers_of(config, trunk, 0).await;
    let Some(first) = servers.first() else {
        let state = setup::uplink(trunk, true).map(|_| UplinkState {
            trunk: trunk.name.clone(),
            server: None,
            registration: None,
            options: None,
        });
        return Ok(shown(clock.moment(), &trunk.name, state.as_ref()));
    };
    let local = local_address(config, *first)?;
    let listeners = Listeners { udp: SocketAddr::new(local, 0), tcp: None, tls: None };
    let (mut net, mut events) = Net::bind(listeners).await.context("no port can be bound")?;
    let uplink = setup::uplink(trunk, true)
        .map(|uplink| UplinkConfig { options: Some(TEST_MAX * 2), ..uplink })
        .context("nothing is kept up with the trunk")?;
    let mut seed = [0_u8; 16];
    getrandom::fill(&mut seed).map_err(|error| anyhow::anyhow!("the system has no randomness: {error}"))?;
    let sip = SipConfig {
        uplinks: vec![uplink],
        ..SipConfig::new(SocketAddr::new(local, net.udp_address.port()), &local.to_string())
    };
    let mut stack = Stack::new(sip, u128::from_be_bytes(seed));
    let mut outputs = stack.set_servers(clock.now(), vec![(trunk.name.clone(), servers)]);
    let end = clock.now() + TEST_MAX;
    loop {
        for output in outputs {
            if let SipOutput::Send(flow, bytes) = output {
                net.send(flow, bytes);
            }
        }
        let now = clock.now();
        let state = stack.uplink_states(now).into_iter().next();
        if now >= end || state.as_ref().is_some_and(is_answered) {
            return Ok(shown(clock.moment(), &trunk.name, state.as_ref()));
        }
        let wait = stack.next_timeout().map_or(end, |due| due.min(end)).since(now);
        outputs = tokio::select! {
            event = events.recv() => match event {
                Some(NetEvent::Bytes(flow, bytes)) => stack.receive(clock.now(), flow, &bytes),
                Some(NetEvent::Opened(..) | NetEvent::Closed(_)) | None => Vec::new(),
            },
            () = tokio::time::sleep(wait) => stack.handle_timeout(clock.now()),
        };
    }
}

/// The address that packets to the carrier leave from: that of the listener, or what the
/// system chooses.
fn local_address(config: &Config, server: SocketAddr) -> Result<IpAddr> {
    let bound = config.edge.sip_udp.map(|address| address.ip()).filter(|ip| !ip.is_unspecified());
    if let Some(bound) = bound {
        return Ok(bound);
    }
    let any =
        if server.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = std::net::UdpSocket::bind((any, 0))?;
    socket.connect(server).context("there is no route to the trunk's server")?;
    Ok(socket.local_addr()?.ip())
}

/// Whether everything that was asked has its answer, or is known to get none.
fn is_answered(state: &UplinkState) -> bool {
    let registration = state.registration.as_ref();
    let settled =
        registration.is_none_or(|registration| registration.until.is_some() || registration.failures > 0);
    settled && state.options.as_ref().is_none_or(|options| options.up.is_some())
}

/// Prints a trunk; the exit code says whether it is well.
fn told(trunk: &Value, json: bool) -> ExitCode {
    if json {
        print_line(&trunk.to_string());
    } else {
        lines(trunk).iter().for_each(|line| print_line(line));
    }
    if trunk["advice"].is_null() { ExitCode::SUCCESS } else { ExitCode::from(NOT_WELL) }
}

/// One trunk in one line.
fn line(trunk: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    format!(
        "{:<20} {:<40} options {:<8} {}",
        text(&trunk["trunk"]),
        registration(&trunk["registration"]),
        text(&trunk["options"]["state"]),
        text(&trunk["server"])
    )
}

fn registration(of: &Value) -> String {
    let left = &of["seconds_left"];
    match (of["state"].as_str(), of["registered"].as_bool()) {
        (None, _) => "does not register".to_owned(),
        (Some("registered"), _) => format!("registered, {left} s left"),
        (Some(state), Some(true)) => format!("registered, {left} s left, refresh {state}"),
        (Some(state), _) => format!("not registered ({state})"),
    }
}

/// One trunk in full.
fn lines(trunk: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let (of, options) = (&trunk["registration"], &trunk["options"]);
    let mut lines = vec![
        format!("trunk         {}", text(&trunk["trunk"])),
        format!("server        {}", text(&trunk["server"])),
        format!("registration  {}", registration(of)),
    ];
    for (label, value) in [("since", &of["since"]), ("until", &of["until"]), ("next attempt", &of["next"])] {
        if let Some(value) = value.as_str() {
            lines.push(format!("  {label:<13}{value}"));
        }
    }
    if of["failures"].as_u64().is_some_and(|failures| failures > 0) {
        lines.push(format!("  failures     {}", of["failures"]));
    }
    lines.extend(last(&of["last"]));
    if let Some(state) = options["state"].as_str() {
        lines.push(format!("options       {state}"));
        if let Some(since) = options["since"].as_str() {
            lines.push(format!("  since        {since}"));
        }
        lines.extend(last(&options["last"]));
    }
    if let Some(advice) = trunk["advice"].as_str() {
        lines.push(format!("what to do    {advice}"));
    }
    lines
}

fn last(of: &Value) -> Option<String> {
    let (at, server) = (of["at"].as_str()?, of["server"].as_str()?);
    let status = of["status"].as_u64().map_or_else(|| "no answer".to_owned(), |status| status.to_string());
    Some(format!("  last answer  {status} from {server} at {at}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_trunk_is_told_in_words() {
        let last = json!({"at": "2026-11-23T07:00:00.000Z", "server": "192.0.2.1:5060", "status": null});
        let mut of = json!({
            "state": "waiting", "registered": false, "since": null, "until": null, "seconds_left": null,
            "next": "2026-11-23T07:00:30.000Z", "failures": 2, "last": last,
        });
        let trunk = json!({
            "trunk": "carrier", "server": "192.0.2.1:5060", "registration": of, "options": null,
            "advice": "call them",
        });
        assert_eq!(
            lines(&trunk),
            [
                "trunk         carrier",
                "server        192.0.2.1:5060",
                "registration  not registered (waiting)",
                "  next attempt 2026-11-23T07:00:30.000Z",
                "  failures     2",
                "  last answer  no answer from 192.0.2.1:5060 at 2026-11-23T07:00:00.000Z",
                "what to do    call them",
            ]
        );
        of["registered"] = json!(true);
        of["seconds_left"] = json!(12);
        assert_eq!(registration(&of), "registered, 12 s left, refresh waiting");
        of["state"] = json!("registered");
        assert_eq!(registration(&of), "registered, 12 s left");
        assert_eq!(registration(&Value::Null), "does not register");
    }

    #[test]
    fn a_name_is_escaped_in_a_path() {
        assert_eq!(escaped("my carrier-1_é"), "my%20carrier-1_%C3%A9");
    }
}
