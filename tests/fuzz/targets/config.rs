//! Configuration files: refused with a line or accepted whole. Whatever is wrong with a file,
//! no secret of it is in a problem, in the report of `check`, or in the `Debug` text of what was
//! read.

use std::io;
use std::path::Path;

use edge_media::config::Config;
use handoff::payload::Catalog;

use crate::harness::{Behaviour, Target};

pub(crate) const TARGET: Target = Target { name: "config", words: WORDS, run };

fn run(input: &[u8]) -> Behaviour {
    let mut behaviour = Behaviour::new();
    let Ok(text) = core::str::from_utf8(input) else { return behaviour };
    let lines = 1 + text.matches('\n').count();
    let said = match Config::parse(text, &files) {
        Ok(config) => {
            behaviour.note("accepted");
            let catalog = toml_catalog(&config);
            behaviour.note(if catalog { "catalogue" } else { "no catalogue" });
            format!("{config:?}\n{}", config.check())
        }
        Err(problems) => {
            assert!(!problems.is_empty(), "a refusal has a reason");
            for problem in &problems {
                assert!(
                    problem.line.is_none_or(|line| (1..=lines).contains(&line)),
                    "{problem}: of {lines} lines"
                );
                behaviour.note(problem.message.split([':', '"', '`']).next().unwrap_or_default());
            }
            problems.iter().map(|problem| format!("{problem}\n{problem:?}\n")).collect()
        }
    };
    for secret in SECRETS {
        // A key that an operator misspelt may be named; the value of a secret never.
        assert!(!said.contains(secret) || is_written_elsewhere(text, secret), "{secret} is shown: {said}");
    }
    behaviour
}

fn toml_catalog(config: &Config) -> bool {
    serde_json::to_value(&config.payload).is_ok_and(|table| serde_json::from_value::<Catalog>(table).is_ok())
}

/// Files that a configuration names, with secrets in those of secrets.
fn files(path: &Path) -> io::Result<String> {
    let name = path.to_string_lossy();
    Ok(match &*name {
        "missing" => return Err(io::Error::from(io::ErrorKind::NotFound)),
        _ if name.ends_with(".key") => "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=\n".to_owned(),
        _ if name.ends_with(".webhook") => format!("{IN_FILE}\n"),
        _ => format!("{IN_FILE}-of-{name}\n"),
    })
}

/// The secret was moved to where it is none: outside the value of a secret's key.
fn is_written_elsewhere(text: &str, secret: &str) -> bool {
    const KEYS: [&str; 6] = ["password", "auth_token", "signal_token", "desktop_token", "secret", "token"];
    let is_value = |line: &str| {
        let Some((key, value)) = line.split_once('=') else { return false };
        KEYS.contains(&key.trim()) && value.trim().starts_with(['"', '\'']) && !key.contains(secret)
    };
    text.lines().any(|line| line.contains(secret) && !is_value(line))
}

const IN_FILE: &str = "kept-in-a-file-f3a9c1d7e5b2";
/// Those of the corpus, and those of the files that it names.
const SECRETS: [&str; 3] = ["planted-8d41f0c26b7e", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", IN_FILE];

const WORDS: &[&str] = &[
    "\n[edge]\n",
    "\n[[trunk]]\n",
    "\n[voice_agent]\n",
    "\n[[agent]]\n",
    "\n[[queue]]\n",
    "\n[policy]\n",
    "\n[payload]\n",
    "\n[[webhook]]\n",
    "\n[audit]\n",
    "\n[[operator]]\n",
    "password = \"planted-8d41f0c26b7e\"\n",
    "token = \"planted-8d41f0c26b7e\"\n",
    "desktop_token = \"planted-8d41f0c26b7e\"\n",
    "auth_token = [\"planted-8d41f0c26b7e\"]\n",
    "secret = \"planted-8d41f0c26b7e\"\n",
    "password = 12\n",
    "password_file = \"missing\"\n",
    "secret_file = \"a.webhook\"\n",
    "allow_loopback = true\n",
    "rtp_ports = [20000, 20000]\n",
    "rtp_ports = [65534, 65535]\n",
    "hold_signalling = \"none\"\n",
    "cancel_while_waiting = true\n",
    "addresses = [\"0.0.0.0/0\"]\n",
    "addresses = []\n",
    "ring_timeout_s = -1\n",
    "url = \"http://[::1\"\n",
    "url = \"https://user:planted-8d41f0c26b7e@crm.example/\"\n",
    "payload_ack = \"crm\"\n",
    "fallback = []\n",
    "lang = \"xx\"\n",
    "\"\"\"",
    "'''",
    "= ",
    "[[",
    "]]",
    "{}",
    "\"",
    "\\u0000",
    "nan",
    "inf",
    "1979-05-27T07:32:00Z",
    "0x7fffffffffffffff",
    "true",
    "# ",
    "\u{feff}",
    "a.b.c.d.e.f = 1\n",
];
