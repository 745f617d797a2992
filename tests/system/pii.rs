//! Nothing personal and nothing secret is seen by who must not see it. Planted words go through
//! a whole call in virtual time, and are then looked for in every log line at the finest level,
//! in the `Debug` text of everything that the router takes and gives, in errors and counters,
//! and in the SIP messages to those who are not their audience. Two more tests read the source:
//! what leaves a `Pii` goes into no log, and only contracts can be serialised with one inside.

use std::fmt::{Debug, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use edge_media::config::Config;
use edge_media::desktop::Desktops;
use handoff::audit::entry::entry_of;
use handoff::audit::{AuditMessage, AuditRecord, Hash, feed};
use handoff::canonical;
use handoff::event::CallEvent;
use handoff::id::HumanAgentId;
use handoff::payload::Payload;
use handoff::seal::{DataKey, SealKey};
use handoff::signal::Signal;
use tests::phone::Habit;
use tests::world::{CALLER_NUMBER, Cloud, PASSWORD, Record, World};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record as Values};
use tracing::{Event, Metadata, Subscriber};

/// Said, typed or configured somewhere in the call; each may be seen by its audience only.
const NAME: &str = "Quillon Abernathy";
const SENTENCE: &str = "the purple heron left its umbrella";
const CARD: &str = "4111111111111111";
const SUMMARY: &str = "heron umbrella summary";
const ACCOUNT: &str = "ZX-88213-heron";
const SESSION: &str = "session-of-heron-5501";

/// Every form in which a planted word could be read.
fn canaries() -> Vec<(String, String)> {
    let digits = CALLER_NUMBER.trim_start_matches('+');
    let words = [NAME, SENTENCE, CARD, SUMMARY, ACCOUNT, SESSION, PASSWORD, digits];
    let spaced =
        CARD.as_bytes().chunks(4).map(|four| String::from_utf8_lossy(four)).collect::<Vec<_>>().join(" ");
    let plain = words.iter().map(|word| (*word).to_owned()).chain([spaced]);
    plain
        .flat_map(|word| {
            // A list of octets is the text, to anybody who wants to read it.
            let octets: Vec<String> = word.bytes().map(|byte| byte.to_string()).collect();
            let hex = word.bytes().fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            });
            [(word.clone(), word.clone()), (word.clone(), octets.join(", ")), (word, hex)]
        })
        .collect()
}

#[track_caller]
fn none_in(place: &str, text: &str) {
    for (word, form) in canaries() {
        if let Some(at) = text.to_ascii_lowercase().find(&form.to_ascii_lowercase()) {
            let near: String = text.chars().skip(at.saturating_sub(200)).take(400).collect();
            panic!("{word:?} is in {place}: …{near}…");
        }
    }
}

/// A whole call in which every planted word is said, and what it left behind.
fn call() -> World {
    let mut world =
        World::new(&[Habit::Answers(Duration::from_millis(500))], Cloud::Decides(Duration::from_millis(40)));
    world.record = Some(Record::default());
    world.call_and_disclose();
    for signal in signals() {
        world.signal(&signal);
        world.pass(Duration::from_millis(200));
    }
    world.until("whisper.started", Duration::from_secs(30));
    world.until("whisper.ended", Duration::from_secs(60));
    world.humans[0].press('1');
    world.until("bridge.completed", Duration::from_secs(30));
    world.pass(Duration::from_secs(3));
    world.caller_hangs_up();
    world.until("producer.final", Duration::from_secs(40));
    world
}

fn signals() -> Vec<String> {
    let signal = |id: &str, kind: &str, data: String| {
        format!(r#"{{"v":1,"id":"{id}","type":"{kind}","data":{{{data}}}}}"#)
    };
    let turn = |speaker: &str, text: &str| format!(r#""speaker":"{speaker}","text":"{text}""#);
    let field =
        |name: &str, value: &str| format!(r#""name":"{name}","value":"{value}","verified":true,"pii":"pii""#);
    vec![
        signal("p1", "call.started", format!(r#""agent":"bot","session":"{SESSION}""#)),
        signal("p2", "turn", turn("agent", "How may I help you?")),
        signal("p3", "turn", turn("caller", &format!("This is {NAME} and {SENTENCE}"))),
        signal("p4", "turn", turn("caller", &format!("My number is {CALLER_NUMBER}, my card is {CARD}"))),
        signal("p5", "turn.partial", turn("caller", SENTENCE)),
        signal("p6", "field", field("patient_name", NAME)),
        signal("p7", "field", field("account", ACCOUNT)),
        signal("p8", "dtmf", format!(r#""digits":"{CARD}""#)),
        signal("p9", "error", format!(r#""message":"no record of {NAME}""#)),
        signal("p10", "resolved", format!(r#""outcome":"{SENTENCE}""#)),
        signal(
            "p11",
            "transfer.request",
            format!(
                r#""reason":"caller_request","summary":"{SUMMARY}","whisper":"{NAME}: {SENTENCE}","target":"{CALLER_NUMBER}","next_action":"{SENTENCE}","caller_message":"{SENTENCE}","fields":{{"account":"{ACCOUNT}"}}"#
            ),
        ),
    ]
}

#[test]
fn nothing_planted_is_in_a_log_line_or_in_what_could_be_logged() {
    let lines = Lines::default();
    let world = tracing::subscriber::with_default(lines.clone(), || {
        // The capture itself works, or an empty log would prove nothing.
        tracing::trace!(proof = %"seen");
        call()
    });
    let logged = lines.0.lock().unwrap().join("\n");
    assert!(logged.contains("seen"), "{logged}");
    none_in("a log line", &logged);
    let record = world.record.as_ref().unwrap();
    assert!(record.printed.len() > 100, "{} texts", record.printed.len());
    for text in &record.printed {
        none_in("the Debug text of an input or output", text);
    }
    for fact in &world.facts {
        none_in("the Debug text of a fact", &format!("{fact:?}"));
    }
    none_in("the Debug text of a desktop's message", &format!("{:?}", world.pushes));
    for phone in world.humans.iter().chain([&world.caller]) {
        none_in("the Debug text of SIP events", &format!("{:?} {:?}", phone.events, phone.stack.counters()));
    }
    let standings: Vec<_> = world.edge.standings().collect();
    let counters = (world.edge.counters(), world.edge.sip_counters(), world.engine.counters());
    none_in("a counter", &format!("{standings:?} {counters:?}"));
}

#[test]
fn the_planted_words_did_go_through_the_call() {
    // Otherwise the other tests would look for what was never there.
    let world = call();
    let facts: Vec<String> =
        world.facts.iter().map(|fact| String::from_utf8(fact.to_json()).unwrap()).collect();
    let facts = facts.join("\n");
    for word in [NAME, SENTENCE, ACCOUNT] {
        assert!(facts.contains(word), "no contract carries {word:?}");
    }
    assert!(!facts.contains(CARD), "a card number goes into no contract at all");
    let record = world.record.as_ref().unwrap();
    let said = |party: SocketAddr, word: &str| {
        record.sip.iter().any(|(from, to, bytes)| {
            (*from == party || *to == party) && String::from_utf8_lossy(bytes).contains(word)
        })
    };
    assert!(said(world.caller.sip, CALLER_NUMBER), "the caller's carrier knows the number");
}

#[test]
fn sip_tells_nobody_more_than_they_must_know() {
    let world = call();
    let record = world.record.as_ref().unwrap();
    let humans: Vec<SocketAddr> = world.humans.iter().map(|human| human.sip).collect();
    assert!(record.sip.len() >= 10, "{} messages", record.sip.len());
    for (from, to, bytes) in &record.sip {
        let text = String::from_utf8_lossy(bytes);
        let with_human = humans.contains(from) || humans.contains(to);
        // The carrier sent the number, so its own messages and their answers carry it.
        let text = if with_human {
            text.into_owned()
        } else {
            text.replace(CALLER_NUMBER.trim_start_matches('+'), "")
        };
        none_in(&format!("a SIP message from {from} to {to}"), &text);
    }
}

#[test]
fn the_rows_for_a_warehouse_have_no_planted_word_and_each_member_is_decided() {
    let dek = DataKey { id: "dek-1".to_owned(), key: SealKey::new([7; 32]) };
    let world = call();
    let mut rows = String::new();
    for (seq, fact) in (1..).zip(&world.facts) {
        let entry = entry_of(fact, &dek, [0; 12]).entry;
        for member in entry.body.as_object().unwrap().keys() {
            let ways = [feed::COLUMNS, feed::LEFT_OUT].iter().filter(|way| way.contains(&member.as_str()));
            assert_eq!(ways.count(), 1, "{member} of {}: a column or left out?", entry.kind);
        }
        let prev = Hash::of(&[]);
        let record = AuditRecord { entry, seq, prev };
        let row = feed::row(&record, &prev, None);
        let flat = row.as_object().unwrap().values().all(|value| !value.is_object() && !value.is_array());
        assert!(flat, "{row}");
        let _ = writeln!(rows, "{row}");
    }
    assert!(rows.contains("bridge.completed") && rows.contains("utterance.ref"), "{rows}");
    none_in("a row for a warehouse", &rows);
}

#[test]
fn errors_name_the_place_and_never_the_words() {
    let mut texts = Vec::new();
    let mut failed = |what: &str, text: Option<String>| {
        texts.push(text.unwrap_or_else(|| panic!("{what} was taken")));
    };
    for signal in signals() {
        let broken = [
            signal.replacen("\"v\":1", "\"v\":2", 1),
            signal.replacen("\"type\":\"", &format!("\"type\":\"{NAME}"), 1),
            signal.replacen("\"id\":\"", &format!("\"{SENTENCE}\":1,\"id\":\""), 1),
            format!("{signal}{SENTENCE}"),
            signal.replace("\"speaker\":\"caller\"", &format!("\"speaker\":\"{NAME}\"")),
        ];
        for broken in broken.iter().filter(|broken| **broken != signal) {
            failed("a signal", both(Signal::parse_bytes(broken.as_bytes())));
        }
    }
    let json = format!(r#"{{"{SENTENCE}":"{NAME}","number":"{CALLER_NUMBER}","card":{CARD}.5}}"#);
    failed("an event", both(CallEvent::from_json(json.as_bytes())));
    failed("an entry", both(AuditMessage::from_json(json.as_bytes())));
    failed("a payload", both(Payload::parse(json.as_bytes())));
    failed("canonical JSON", both(canonical::parse_canonical(json.as_bytes())));
    let agent = HumanAgentId::parse("agent_ana").unwrap();
    for said in [
        json.clone(),
        format!(r#"{{"type":"{SENTENCE}"}}"#),
        format!(r#"{{"type":"accept","transfer":"{SENTENCE}"}}"#),
    ] {
        failed("a page's message", both(Desktops::default().receive(&agent, &said)));
    }
    failed("an id", both(HumanAgentId::parse(SENTENCE)));
    let text = texts.join("\n");
    none_in("an error", &text);
}

#[test]
fn no_secret_of_a_configuration_is_ever_shown() {
    const SECRETS: [&str; 3] = [
        "kestrel-9f27ab-long-enough-token",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=",
    ];
    let [token, webhook, key] = SECRETS;
    let text = format!(
        r#"
[edge]
id = "edge-1"
tenant = "t_acme"
sip_udp = "127.0.0.1:5060"
http = "127.0.0.1:8080"
public_ip = "192.0.2.7"
public_url = "https://handoff.example"
[[trunk]]
name = "carrier"
addresses = ["203.0.113.0/24"]
[voice_agent]
url = "wss://bot.example/media?key={token}"
auth_token = "a{token}"
signal_token = "b{token}"
[[agent]]
id = "agent_ana"
name = "{NAME}"
user = "ana"
password = "c{token}"
desktop_token = "d{token}"
[[agent]]
id = "agent_ben"
name = "Ben"
uri = "sip:{CALLER_NUMBER}@pbx.example"
[[queue]]
id = "queue_nurse"
label = "Nurse line"
spoken = "dest.nurse"
agents = ["agent_ana", "agent_ben"]
[policy]
file = "policy.toml"
[[webhook]]
id = "crm"
url = "https://crm.example/hook/{token}"
secret = "{webhook}"
[audit]
tag_key = "{key}"
[[operator]]
id = "lead"
role = "supervisor"
token = "e{token}"
"#
    );
    let read = |_: &std::path::Path| Ok(String::new());
    let config = Config::parse(&text, &read).unwrap();
    let mut shown = format!("{config:?} {:#?} {}", config, config.check());
    // Every line is broken in turn: type, quotes, key and table.
    for (at, line) in text.lines().enumerate() {
        let Some((before, value)) = line.split_once(" = ") else { continue };
        for broken in [
            format!("{before} = [{value}]"),
            format!("{before} = {{ a = {value} }}"),
            format!("{before} = {}", value.trim_matches('"')),
            format!("{before} = {value}{value}"),
            format!("{before}_ = {value}"),
            format!("{before} = {}", value.trim_end_matches('"')),
            format!("{before} = 7"),
            format!("{before} = \"\"\n{before} = {value}"),
        ] {
            let lines: Vec<&str> =
                text.lines().enumerate().map(|(n, line)| if n == at { &broken } else { line }).collect();
            if let Err(problems) = Config::parse(&lines.join("\n"), &read) {
                for problem in problems {
                    let _ = writeln!(shown, "{problem} {problem:?}");
                }
            }
        }
    }
    for secret in SECRETS {
        let found = shown.lines().find(|line| line.contains(secret));
        assert_eq!(found, None, "a secret is shown");
    }
    let digits = CALLER_NUMBER.trim_start_matches('+');
    assert!(!shown.contains(NAME) && !shown.contains(digits), "a person is shown");
}

#[test]
fn what_leaves_a_pii_goes_into_no_log_line_and_no_message() {
    // Macros whose text a person or a machine reads far from the call.
    const TEXTS: [&str; 17] = [
        "trace!(",
        "debug!(",
        "info!(",
        "warn!(",
        "error!(",
        "event!(",
        "span!(",
        "println!(",
        "eprintln!(",
        "print!(",
        "eprint!(",
        "panic!(",
        "bail!(",
        "anyhow!(",
        "ensure!(",
        "print_line(",
        "#[error(",
    ];
    let mut found = Vec::new();
    for (path, text) in shipped() {
        for (at, opening) in TEXTS.iter().flat_map(|text_of| text.match_indices(text_of)) {
            let argument = balanced(text.get(at + opening.len()..).unwrap_or_default());
            if ["expose()", "into_exposed()", "reveal()"].iter().any(|way| argument.contains(way)) {
                let line = 1 + text.get(..at).unwrap_or_default().matches('\n').count();
                found.push(format!("{path}:{line}: {opening}{argument})"));
            }
        }
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn only_contracts_can_be_serialised_with_a_pii_inside() {
    // What crosses a queue or lies sealed in the store, and what `audit show` prints to whoever
    // holds the store and its key.
    const CONTRACTS: [&str; 8] = [
        "handoff/src/pii.rs",
        "handoff/src/signal.rs",
        "handoff/src/event.rs",
        "handoff/src/conversation.rs",
        "handoff/src/payload.rs",
        "handoff/src/payload/",
        "handoff/src/call/media.rs",
        "functions/src/audit_read.rs",
    ];
    let mut found = Vec::new();
    for (path, text) in shipped() {
        if CONTRACTS
            .iter()
            .any(|contract| path == *contract || contract.ends_with('/') && path.starts_with(contract))
        {
            continue;
        }
        for (at, _) in text.match_indices("#[derive(") {
            let rest = text.get(at..).unwrap_or_default();
            let end = rest.find("\n}").unwrap_or(rest.len());
            let item = rest.get(..end).unwrap_or_default();
            let derives = balanced(item.get("#[derive(".len()..).unwrap_or_default());
            if derives.contains("Serialize") && item.contains("Pii<") {
                let line = 1 + text.get(..at).unwrap_or_default().matches('\n').count();
                found.push(format!("{path}:{line}: serialises a `Pii` and is no contract"));
            }
        }
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
    let pii = std::fs::read_to_string(root().join("handoff/src/pii.rs")).unwrap();
    let ways = pii.matches("impl<T> fmt::").count();
    assert_eq!(
        (ways, pii.matches("f.write_str(\"[redacted]\")").count()),
        (2, 2),
        "Debug and Display redact"
    );
}

/// Both texts of an error; `None` where there is none.
fn both<T, E: Debug + std::fmt::Display>(result: Result<T, E>) -> Option<String> {
    result.err().map(|error| format!("{error} {error:?} {error:#?}"))
}

/// Up to the parenthesis that closes what was opened before.
fn balanced(text: &str) -> &str {
    let mut depth = 1;
    let end = text.find(|c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        depth == 0
    });
    text.get(..end.unwrap_or(text.len())).unwrap_or_default()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Shipped source files, without the tests at their end and without comments.
fn shipped() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders =
        vec![root().join("handoff/src"), root().join("edge-media/src"), root().join("functions/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder can be listed") {
            let path = entry.expect("a folder can be listed").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name =
                path.strip_prefix(root()).expect("it lies below the root").to_string_lossy().into_owned();
            if !name.ends_with(".rs") || name.ends_with("/tests.rs") || name.contains("/tests/") {
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("source is text");
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            let code = code.lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line });
            found.push((name, code.collect::<Vec<_>>().join("\n")));
        }
    }
    assert!(found.len() > 100, "{} files", found.len());
    found
}

/// Every span and event of every crate at every level, as text.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn keep(&self, metadata: &Metadata<'_>, values: impl FnOnce(&mut Line)) {
        let mut line = Line(format!("{} {}", metadata.target(), metadata.name()));
        values(&mut line);
        self.0.lock().expect("no thread panicked").push(line.0);
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

impl Subscriber for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.keep(span.metadata(), |line| span.record(line));
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Values<'_>) {
        let mut line = Line("span".to_owned());
        values.record(&mut line);
        self.0.lock().expect("no thread panicked").push(line.0);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        self.keep(event.metadata(), |line| event.record(line));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
