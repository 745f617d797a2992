//! Each refusal with its line; the annotated example; nothing secret in any message.

use super::*;

const MINIMAL: &str = r#"
[edge]
id = "edge-1"
tenant = "t_acme"
sip_udp = "127.0.0.1:5060"
http = "127.0.0.1:8080"
public_ip = "192.0.2.7"
public_url = "https://handoff.example/"
[[trunk]]
name = "carrier"
addresses = ["203.0.113.0/24"]
[voice_agent]
url = "wss://bot.example/media"
[[agent]]
id = "agent_ana"
name = "Ana Lind"
user = "ana"
password_file = "ana.sip"
[[queue]]
id = "queue_nurse"
label = "Nurse line"
spoken = "dest.nurse"
agents = ["agent_ana"]
[policy]
file = "policy.toml"
"#;

/// Every file that a configuration names, with fitting contents.
fn files(path: &Path) -> io::Result<String> {
    let name = path.to_string_lossy();
    Ok(match &*name {
        "missing" => return Err(io::Error::from(io::ErrorKind::NotFound)),
        "/etc/warmbridge/edge.key" => include_str!("../../tests/data/tls/edge.key").to_owned(),
        _ if name.ends_with(".key") => "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=\n".to_owned(),
        _ if name.ends_with(".webhook") => "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n".to_owned(),
        "edge.crt"
        | "/etc/warmbridge/edge.pem"
        | "/etc/warmbridge/roots.pem"
        | "/etc/warmbridge/carriers.pem" => include_str!("../../tests/data/tls/edge.pem").to_owned(),
        "edge.pk" => include_str!("../../tests/data/tls/edge.key").to_owned(),
        _ => format!("a-secret-of-{name}-that-is-long\n"),
    })
}

fn parse(text: &str) -> Result<Config, Vec<Problem>> {
    Config::parse(text, &files)
}

/// The minimal configuration with one line replaced, or lines added after one.
fn with(old: &str, new: &str) -> String {
    assert_eq!(MINIMAL.matches(old).count(), 1, "{old:?} must be in the minimal configuration once");
    MINIMAL.replace(old, new)
}

#[track_caller]
fn refused(text: &str, expected: &[&str]) {
    let problems = parse(text).map(|_| ()).unwrap_err();
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(lines, expected);
}

#[test]
fn the_annotated_example_is_valid_and_gives_no_warning_about_itself() {
    let text = include_str!("../../../warmbridge.example.toml");
    let config = parse(text).unwrap();
    assert_eq!(config.agents.len(), 2);
    let front = Fallback::Queue(QueueId::parse("queue_front").unwrap());
    let chain = [front, Fallback::VoiceAgent, Fallback::Voicemail, Fallback::Callback, Fallback::Closing];
    assert_eq!(config.queues[0].fallback, chain);
    assert_eq!(config.queues[0].patience, Some(Duration::from_secs(45)));
    assert_eq!(config.queues[1].patience, None);
    assert_eq!(config.edge.public_url, "https://handoff.example");
    assert!(config.audit.tag_key.is_some());
    assert_eq!(config.warnings, []);
}

/// The annotated example with lines that begin so used, and what belongs to them.
fn uncommented(text: &str, starts: &[&str]) -> String {
    let mut used = String::new();
    let mut within = false;
    for line in text.lines() {
        let bare = line.strip_prefix("# ");
        let begins = bare.is_some_and(|bare| starts.iter().any(|start| bare.starts_with(start)));
        // A table goes on for as long as there are keys.
        let is_key = bare.is_some_and(|bare| bare.contains(" = ") && !bare.starts_with(char::is_uppercase));
        within = begins || (within && is_key && starts.contains(&"[[trunk]]"));
        used.push_str(if within { bare.unwrap_or(line) } else { line });
        used.push('\n');
    }
    used
}

#[test]
fn each_style_of_trunk_in_the_annotated_example_is_accepted() {
    let text = include_str!("../../../warmbridge.example.toml");
    let secure = ["sip_tls = ", "sip_wss = ", "sip_ws = ", "tls_", "phones_srtp = "];
    let text = uncommented(&uncommented(text, &secure), &["[[trunk]]"]);
    let config = parse(&text).unwrap();
    let trunks: Vec<&str> = config.trunks.iter().map(|trunk| trunk.name.as_str()).collect();
    assert_eq!(
        trunks,
        ["carrier", "registered", "failover", "by-address", "encrypted", "registered-tls", "certified",]
    );
    let named = |name: &str| config.trunks.iter().find(|trunk| trunk.name == name).unwrap();
    assert!(named("by-address").uplink.as_ref().is_some_and(|uplink| uplink.account.is_none()));
    assert!(named("registered").uplink.as_ref().is_some_and(|uplink| uplink.account.is_some()));
    assert_eq!(named("encrypted").srtp, SrtpPolicy::Required);
    let tls = named("registered-tls").uplink.as_ref().map(|uplink| uplink.transport);
    assert_eq!(tls, Some(Transport::Tls));
    assert_eq!(named("certified").certificate.as_deref(), Some("sip.carrier.example"));
    assert!(config.edge.sip_wss.is_some() && config.edge.sip_ws.is_some() && config.edge.tls.is_some());
    assert_eq!(config.edge.phones_srtp, SrtpPolicy::Required);
}

#[test]
fn a_minimal_configuration_gets_the_documented_defaults() {
    let config = parse(MINIMAL).unwrap();
    assert_eq!(config.edge.public_url, "https://handoff.example");
    assert_eq!(config.edge.hold_signalling, HoldSignalling::Reinvite);
    assert_eq!(config.edge.rtp_ports, (20_000, 29_998));
    assert_eq!(config.voice_agent.on_bye, OnVoiceAgentBye::TransferDefault);
    let agent = &config.agents[0];
    assert!(agent.trusted && !agent.accept_on_answer);
    assert_eq!(agent.ring_timeout, Duration::from_secs(20));
    assert_eq!(agent.accept_timeout, Duration::from_secs(20));
    assert_eq!(config.edge.rtp_timeout, Duration::from_secs(20));
    assert_eq!(config.edge.drain_max, Duration::from_secs(900));
    assert_eq!(config.queues[0].on_agent_bye, Survivor::End);
    assert_eq!(config.queues[0].on_agent_lost, Survivor::Reoffer);
    assert_eq!(config.queues[0].payload_ack, PayloadAck::Desktop);
    assert_eq!(config.queues[0].wait_default_s, 30);
    assert_eq!(config.queues[0].rules().mode, Mode::Warm);
}

#[test]
fn a_person_is_not_reached_at_a_number_that_may_not_be_dialled() {
    let with = |allow: &str, uri: &str| {
        let person = "user = \"ana\"\npassword_file = \"ana.sip\"";
        assert_eq!(MINIMAL.matches(person).count(), 1);
        let text = MINIMAL.replace(person, &format!("uri = \"{uri}\""));
        text.replace("tenant = \"t_acme\"\n", &format!("tenant = \"t_acme\"\n{allow}"))
    };
    let told = |allow: &str, uri: &str| {
        let problems = parse(&with(allow, uri)).map(|_| ()).err().unwrap_or_default();
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    for good in ["sip:+18005550100@pbx.example", "sip:2001@pbx.example", "sip:ann@pbx.example"] {
        assert_eq!(told("", good), "", "{good}");
    }
    assert!(told("", "sip:+19005550100@pbx.example").contains("premium"));
    assert!(told("", "sip:%2B88216000000@pbx.example").contains("satellite"));
    let here = "dial_allow = [\"+49\"]\n";
    assert_eq!(told(here, "sip:+4930123456@pbx.example"), "");
    assert!(told(here, "sip:+18005550100@pbx.example").contains("dial_allow names no range"));
    assert!(told(here, "sip:030123456@pbx.example").contains("write it as E.164"));
    assert!(told("dial_allow = []\n", "sip:+4930123456@pbx.example").contains("dial_allow"));
    assert_eq!(told("dial_allow = []\n", "sip:2001@pbx.example"), "", "an extension is no number");
    let bad = told("dial_allow = [\"49\"]\n", "sip:2001@pbx.example");
    assert_eq!(bad, "line 5: a range is + and the first digits of its numbers, as +49");
}

#[test]
fn a_queue_is_warm_or_cold_and_nothing_between() {
    let mode = |name: &str| {
        with("label = \"Nurse line\"\n", &format!("label = \"Nurse line\"\nmode = \"{name}\"\n"))
    };
    assert_eq!(parse(&mode("cold")).unwrap().queues[0].rules().mode, Mode::Cold);
    refused(&mode("tepid"), &["line 22: mode is \"tepid\": choose \"warm\" or \"cold\""]);
}

#[test]
fn where_a_caller_goes_after_the_bridge_and_when_a_leg_is_given_up_are_chosen_within_bounds() {
    let survivors = "label = \"Nurse line\"\non_agent_bye = \"voice_agent\"\non_agent_lost = \"closing\"\n";
    let config = parse(&with("label = \"Nurse line\"\n", survivors)).unwrap();
    assert_eq!(config.queues[0].on_agent_bye, Survivor::VoiceAgent);
    assert_eq!(config.queues[0].on_agent_lost, Survivor::Closing);
    let silent = with("tenant = \"t_acme\"\n", "tenant = \"t_acme\"\nrtp_timeout_s = 1\n");
    refused(&silent, &["line 5: rtp_timeout_s is 1: 5 to 300 allowed"]);
    let abrupt = with("tenant = \"t_acme\"\n", "tenant = \"t_acme\"\ndrain_max_s = 0\n");
    refused(&abrupt, &["line 5: drain_max_s is 0: 10 to 172800 allowed"]);
}

#[test]
fn a_fallback_chain_is_refused_by_the_line_of_the_link_that_cannot_be() {
    let chain = |links: &str| {
        with("label = \"Nurse line\"\n", &format!("label = \"Nurse line\"\nfallback = [\n{links}\n]\n"))
    };
    for (links, line, problem) in [
        (
            "\"voicemail\",\n\"pager\",",
            24,
            "fallback is \"pager\": choose \"queue:ID\" or \"voice_agent\" or \"voicemail\" or \"callback\" or \
             \"closing\"",
        ),
        ("\"queue:nowhere\"", 23, "fallback: there is no queue \"nowhere\""),
        ("\"queue:queue_nurse\"", 23, "fallback: queue \"queue_nurse\" is this queue itself"),
        ("\"callback\",\n\"voicemail\",\n\"callback\"", 25, "fallback: \"callback\" could never be reached"),
        ("\"closing\",\n\"voicemail\"", 24, "fallback: \"voicemail\" could never be reached"),
    ] {
        refused(&chain(links), &[&format!("line {line}: {problem}")]);
    }
    let hasty = with("label = \"Nurse line\"\n", "label = \"Nurse line\"\noverflow_after_s = 3\n");
    refused(&hasty, &["line 22: overflow_after_s is 3: 10 to 300 allowed"]);
}

#[test]
fn an_unknown_key_is_refused_by_name_and_line() {
    let text = with("tenant = \"t_acme\"\n", "tenant = \"t_acme\"\nsip_upd = \"127.0.0.1:5060\"\n");
    let problems = parse(&text).map(|_| ()).unwrap_err();
    assert_eq!(problems[0].line, Some(5));
    assert!(problems[0].message.contains("unknown field `sip_upd`"), "{}", problems[0]);
}

#[test]
fn a_missing_key_and_broken_toml_are_refused_with_a_line() {
    let problems = parse(&with("label = \"Nurse line\"\n", "")).map(|_| ()).unwrap_err();
    assert!(problems[0].to_string().contains("missing field `label`"), "{}", problems[0]);
    assert!(problems[0].line.is_some());
    let problems = parse(&with("[policy]", "[policy")).map(|_| ()).unwrap_err();
    assert_eq!(problems[0].line, Some(24));
}

#[test]
fn every_problem_is_collected_in_the_order_of_the_file() {
    let text = MINIMAL
        .replace("public_url = \"https://handoff.example/\"", "public_url = \"http://handoff.example\"")
        .replace("spoken = \"dest.nurse\"", "spoken = \"dest.moon\"")
        .replace("agents = [\"agent_ana\"]", "agents = [\"agent_bob\"]")
        .replace("user = \"ana\"", "user = \"ana\"\nring_timeout_s = 3");
    refused(
        &text,
        &[
            "line 8: public_url must begin with https://: its links carry callers' data",
            "line 18: ring_timeout_s is 3: 5 to 120 allowed",
            "line 23: spoken: there is no clip \"dest.moon\"; known: dest.billing, dest.nurse, dest.sales, \
             dest.scheduling, dest.specialist, dest.support, dest.team",
            "line 24: queue \"queue_nurse\": there is no agent \"agent_bob\"",
        ],
    );
}

#[test]
fn names_ids_and_users_of_agents_are_their_own() {
    let twice = "[[agent]]\nid = \"agent_ana\"\nname = \"Ana Lind\"\nuser = \"ana\"\npassword_file = \"b\"\n[[queue]]";
    refused(
        &with("[[queue]]", twice),
        &[
            "line 20: agent id \"agent_ana\" is there twice",
            "line 21: agent \"agent_ana\" has the name of another agent",
            "line 22: agent user \"ana\" is there twice",
        ],
    );
}

#[test]
fn loopback_is_refused_beside_a_listener_that_strangers_reach() {
    let text = MINIMAL
        .replace("sip_udp = \"127.0.0.1:5060\"", "sip_udp = \"0.0.0.0:5060\"\nallow_loopback = true")
        .replace("192.0.2.7", "127.0.0.1");
    refused(
        &text,
        &["line 6: allow_loopback beside the listener 0.0.0.0:5060: strangers could reach local services"],
    );
    let text = MINIMAL.replace("192.0.2.7", "127.0.0.1").replace("203.0.113.0/24", "127.0.0.1");
    refused(
        &text,
        &[
            "line 7: public_ip is a loopback address without allow_loopback",
            "line 11: 127.0.0.1/32 is loopback without [edge] allow_loopback",
        ],
    );
    let text = text.replace("tenant =", "allow_loopback = true\ntenant =");
    assert!(parse(&text).is_ok());
}

#[test]
fn cancelling_while_waiting_needs_hold_without_signalling() {
    let waiting = |hold: &str| {
        with("tenant =", &format!("hold_signalling = \"{hold}\"\ncancel_while_waiting = true\ntenant ="))
    };
    refused(
        &waiting("reinvite"),
        &["line 5: cancel_while_waiting needs hold_signalling = \"none\": a held caller may stop sending"],
    );
    assert!(parse(&waiting("none")).is_ok());
    refused(&waiting("moh"), &["line 4: hold_signalling is \"moh\": choose \"reinvite\" or \"none\""]);
}

#[test]
fn a_secret_in_the_file_is_a_warning_and_never_printed() {
    let text = with("password_file = \"ana.sip\"", "password = \"correct horse battery\"");
    let config = parse(&text).unwrap();
    let warnings: Vec<String> = config.check().warnings.iter().map(ToString::to_string).collect();
    assert!(
        warnings
            .contains(&"line 18: password is written into this file: password_file keeps it out".to_owned())
    );
    assert!(!format!("{config:?} {:?}", config.check()).contains("horse"));
    let text = with("password_file = \"ana.sip\"", "password = \"horse\"");
    refused(&text, &["line 18: password must have at least 8 characters"]);
    let text = with("password_file = \"ana.sip\"", "password = \"horse\"\npassword_file = \"ana.sip\"");
    refused(&text, &["line 18: give password or password_file, not both"]);
    let text = with("password_file = \"ana.sip\"", "password_file = \"missing\"");
    refused(&text, &["line 18: password_file missing cannot be read: entity not found"]);
}

#[test]
fn the_disclosure_exists_in_the_language_of_the_prompts() {
    assert!(parse(&with("tenant =", "lang = \"es-MX\"\ntenant =")).is_ok());
    refused(
        &with("tenant =", "lang = \"de\"\ntenant ="),
        &["line 4: there is no clip \"disclosure.ai_recording\" in the language \"de\""],
    );
}

#[test]
fn a_secret_of_the_wrong_type_is_not_repeated() {
    let text = with("password_file = \"ana.sip\"", "password = 19451103");
    refused(&text, &["line 18: invalid type, expected a string"]);
}

#[test]
fn tokens_are_long_and_nobody_shares_one() {
    let text = with("user = \"ana\"", "user = \"ana\"\ndesktop_token = \"short\"");
    refused(&text, &["line 18: desktop_token must be 24 to 256 visible ASCII characters"]);
    let text = with("user = \"ana\"", "user = \"ana\"\ndesktop_token = \"0123456789-0123456789-0123\"")
        + "[[operator]]\nid = \"wallboard\"\nrole = \"monitor\"\ntoken = \"0123456789-0123456789-0123\"\n";
    refused(&text, &["\"agent_ana\" and \"wallboard\" have the same token: each needs its own"]);
}

#[test]
fn a_token_finds_its_holder_and_nothing_else_does() {
    let text = with("user = \"ana\"", "user = \"ana\"\ndesktop_token_file = \"ana.desktop\"")
        + "[[operator]]\nid = \"lead\"\nrole = \"supervisor\"\ntoken_file = \"lead.token\"\n";
    let config = parse(&text).unwrap();
    let found = config.agent_by_token(b"a-secret-of-ana.desktop-that-is-long").map(|agent| agent.id.as_str());
    assert_eq!(found, Some("agent_ana"));
    assert!(config.agent_by_token(b"a-secret-of-lead.token-that-is-long").is_none());
    assert!(config.agent_by_token(b"").is_none());
    let found =
        config.operator_by_token(b"a-secret-of-lead.token-that-is-long").map(|operator| operator.role);
    assert_eq!(found, Some(OperatorRole::Supervisor));
}

#[test]
fn a_phone_is_registered_or_fixed_and_a_fixed_one_never_accepts_by_answering() {
    let phone = |lines: &str| with("user = \"ana\"\npassword_file = \"ana.sip\"", lines);
    refused(&phone(""), &["line 15: agent \"agent_ana\" needs user and password_file, or uri"]);
    refused(&phone("user = \"ana\""), &["line 17: a user needs password_file (or password)"]);
    refused(
        &phone("user = \"ana\"\nuri = \"tel:+15555550100\"\npassword_file = \"p\""),
        &["line 18: an agent has a user that registers or a fixed uri, not both"],
    );
    refused(
        &phone("uri = \"sip:ben@pbx.example\"\naccept_on_answer = true"),
        &[
            "line 18: accept_on_answer needs a registered user: a voicemail behind a uri would take the caller",
        ],
    );
    refused(
        &phone("uri = \"sip:ben@pbx.example>\\r\\nX: y\""),
        &["line 17: uri must be a sip: URI without spaces, quotes, brackets or headers"],
    );
    for unreachable in ["tel:+15555550100", "sips:ben@pbx.example", "sip:ben@pbx.example?Subject=x", "sip:"] {
        refused(
            &phone(&format!("uri = \"{unreachable}\"")),
            &["line 17: uri must be a sip: URI without spaces, quotes, brackets or headers"],
        );
    }
    for (uri, host) in [
        ("sip:ben@pbx.example", "pbx.example"),
        ("sip:ben@[2001:db8::7]:5070;transport=tcp", "2001:db8::7"),
        ("sip:PBX.example", "pbx.example"),
    ] {
        let config = parse(&phone(&format!("uri = \"{uri}\""))).unwrap();
        assert!(!config.agents[0].trusted);
        let Phone::Fixed(fixed) = &config.agents[0].phone else { panic!("{uri} does not register") };
        assert_eq!((fixed.host.as_str(), fixed.line), (host, 17));
    }
}

#[test]
fn a_phone_that_knows_md5_alone_is_named_by_the_operator_and_doubted() {
    let phone =
        |lines: &str| with("password_file = \"ana.sip\"", &format!("password_file = \"ana.sip\"{lines}"));
    for (lines, allowed) in [("", false), ("\nallow_md5 = false", false), ("\nallow_md5 = true", true)] {
        let config = parse(&phone(lines)).unwrap();
        assert!(
            matches!(&config.agents[0].phone, Phone::Registered { allow_md5, .. } if *allow_md5 == allowed)
        );
        let doubted = config.check().warnings.iter().any(|warning| warning.message.contains("allow_md5"));
        assert_eq!(doubted, allowed);
    }
}

#[test]
fn webhooks_stay_outside_the_private_network_unless_it_is_named() {
    let webhook = |url: &str, rest: &str| {
        format!(
            "{MINIMAL}[[webhook]]\nid = \"crm\"\nurl = \"{url}\"\nsecret_file = \"crm.webhook\"\n{rest}\n"
        )
    };
    for (url, rest, problem) in [
        (
            "http://crm.example/x",
            "",
            "url must begin with https://; http:// is for addresses in allow_private only",
        ),
        (
            "https://10.0.0.8/x",
            "",
            "url is inside a private network: name it in allow_private if that is meant",
        ),
        (
            "https://[::ffff:169.254.169.254]/",
            "",
            "url is inside a private network: name it in allow_private if that is meant",
        ),
        (
            "https://crm.example:8443/x",
            "",
            "url must use port 443; other ports are for addresses in allow_private only",
        ),
        ("https://user:pw@crm.example/", "", "url must be an absolute URL without user name and password"),
    ] {
        refused(&webhook(url, rest), &[&format!("line 28: {problem}")]);
    }
    assert!(parse(&webhook("http://10.0.0.8:9000/x", "allow_private = [\"10.0.0.8/32\"]")).is_ok());
    refused(
        &webhook("https://crm.example/", "events = [\"warmbridge.transfer.won.v1\"]\nmode = \"fat\""),
        &[
            "line 30: events: there is no \"warmbridge.transfer.won.v1\" (such as warmbridge.call.closed.v1)",
            "line 31: mode is \"fat\": choose \"thin\" or \"full\"",
        ],
    );
}

#[test]
fn a_trunk_registers_over_a_transport_that_the_edge_listens_on() {
    let register = "register = \"sip:+15550100@reg.example\"\npassword_file = \"trunk.sip\"";
    let trunk = |lines: &str| with("addresses = [\"203.0.113.0/24\"]", lines);
    let transport = |text: &str| parse(text).map(|config| config.trunks[0].uplink.clone().unwrap().transport);
    assert_eq!(transport(&trunk(register)), Ok(Transport::Udp));
    assert_eq!(transport(&trunk(&format!("{register}\ntransport = \"udp\""))), Ok(Transport::Udp));
    let tcp = trunk(&format!("{register}\ntransport = \"tcp\""));
    refused(&tcp, &["line 13: transport = \"tcp\" needs [edge] sip_tcp"]);
    let listening = tcp.replacen("http = ", "sip_tcp = \"127.0.0.1:5060\"\nhttp = ", 1);
    assert_eq!(transport(&listening), Ok(Transport::Tcp));
    refused(
        &trunk(&format!("{register}\ntransport = \"tls\"")),
        &["line 13: transport = \"tls\" needs [edge] sip_tls"],
    );
    refused(
        &trunk(&format!("{register}\ntransport = \"ws\"")),
        &["line 13: transport is \"ws\": choose \"udp\" or \"tcp\" or \"tls\""],
    );
    let alone = with("203.0.113.0/24\"]", "203.0.113.0/24\"]\ntransport = \"udp\"");
    refused(&alone, &["line 12: transport is for register or options_s: give one of them"]);
}

#[test]
fn an_edge_without_a_udp_listener_is_refused_before_it_is_started() {
    let why = "[edge] needs sip_udp: phones are dialled over it (sip_tcp is beside it)";
    for instead in ["", "sip_tcp = \"127.0.0.1:5060\""] {
        let found = parse(&with("sip_udp = \"127.0.0.1:5060\"", instead)).unwrap_err();
        assert!(found.iter().any(|problem| problem.message == why), "{found:?}");
    }
}

#[test]
fn a_webhook_signs_with_the_key_before_while_it_is_named() {
    let webhook = |rest: &str| {
        format!(
            "{MINIMAL}[[webhook]]\nid = \"crm\"\nurl = \"https://crm.example/\"\nsecret_file = \"crm.webhook\"\n{rest}"
        )
    };
    assert!(parse(&webhook("")).unwrap().webhooks[0].old_secret.is_none());
    let both = parse(&webhook("old_secret_file = \"crm.webhook\"\n")).unwrap();
    assert!(both.webhooks[0].old_secret.is_some());
    refused(
        &webhook("old_secret = \"horse\"\n"),
        &["line 30: old_secret must be whsec_ followed by 24 to 64 bytes in base64"],
    );
}

#[test]
fn a_queue_acknowledges_by_the_desktop_or_by_a_webhook_that_exists() {
    refused(
        &with("spoken =", "payload_ack = \"crm\"\nspoken ="),
        &["line 22: payload_ack: \"crm\" is neither \"desktop\" nor a webhook"],
    );
    let text = with("spoken =", "payload_ack = \"crm\"\nspoken =")
        + "[[webhook]]\nid = \"crm\"\nurl = \"https://crm.example/\"\nsecret_file = \"crm.webhook\"\n";
    let config = parse(&text).unwrap();
    assert!(matches!(&config.queues[0].payload_ack, PayloadAck::Destination(id) if id.as_str() == "crm"));
}

#[test]
fn a_trunk_that_registers_needs_an_account_and_no_addresses() {
    let config = parse(&with(
        "addresses = [\"203.0.113.0/24\"]",
        "register = \"sip:+15550100@reg.example:5070\"\npassword_file = \"trunk.sip\"\noptions_s = 30",
    ))
    .unwrap();
    let uplink = config.trunks[0].uplink.as_ref().unwrap();
    let account = uplink.account.as_ref().unwrap();
    assert_eq!((account.user.as_str(), account.auth_user.as_str()), ("+15550100", "+15550100"));
    assert_eq!((account.domain.as_str(), account.port, account.expires_s), ("reg.example", Some(5_070), 600));
    assert_eq!(uplink.servers, [Server { host: "reg.example".to_owned(), port: Some(5_070) }]);
    assert_eq!(uplink.options, Some(Duration::from_secs(30)));
    assert!(config.trunks[0].addresses.is_empty());
    assert!(!format!("{config:?}").contains("a-secret-of"), "no password in a debug line");

    let given = parse(&with(
        "addresses = [\"203.0.113.0/24\"]",
        "addresses = [\"203.0.113.0/24\"]\noptions_s = 10\nproxies = [\"a.example\", \"192.0.2.1:5080\"]\ncalls_max = 30\ncalls_per_s = 5\n100rel = \"require\"",
    ))
    .unwrap();
    assert_eq!((given.trunks[0].calls_max, given.trunks[0].calls_per_s), (Some(30), Some(5)));
    assert_eq!([given.trunks[0].rel100, config.trunks[0].rel100], [Rel100::Require, Rel100::Supported]);
    let uplink = given.trunks[0].uplink.as_ref().unwrap();
    assert_eq!((uplink.account.is_none(), uplink.servers.len()), (true, 2));
}

#[test]
fn what_is_wrong_with_a_registration_is_named() {
    for (lines, expected) in [
        (
            "addresses = [\"192.0.2.1\"]\ncalls_max = 0\ncalls_per_s = 1001",
            vec![
                "line 12: calls_max is 0: 1 to 1000 allowed",
                "line 13: calls_per_s is 1001: 1 to 1000 allowed",
            ],
        ),
        ("", vec!["line 10: a trunk needs addresses, certificate or register"]),
        (
            "register = \"sip:reg.example\"\npassword_file = \"x.sip\"",
            vec!["line 11: register is not like \"sip:user@registrar.example\""],
        ),
        (
            "register = \"sip:a@reg.example\"",
            vec!["line 11: a trunk that registers needs password_file (or password)"],
        ),
        (
            "register = \"sip:a@reg.example\"\npassword_file = \"x.sip\"\nexpires_s = 5\noptions_s = 1",
            vec![
                "line 13: expires_s is 5: 60 to 86400 allowed",
                "line 14: options_s is 1: 10 to 600 allowed",
            ],
        ),
        (
            "addresses = [\"192.0.2.1\"]\nauth_user = \"a\"\nexpires_s = 60",
            vec![
                "line 12: auth_user is for a trunk that registers: it needs register",
                "line 13: expires_s is for a trunk that registers: it needs register",
            ],
        ),
        (
            "addresses = [\"192.0.2.1\"]\noptions_s = 30",
            vec!["line 12: options_s needs a server to ask: register, or proxies"],
        ),
        (
            "addresses = [\"192.0.2.1\"]\nproxies = [\"a.example\"]",
            vec!["line 12: proxies are asked for register or options_s: give one of them"],
        ),
        (
            "register = \"sip:a@reg.example\"\npassword_file = \"x.sip\"\nproxies = [\"sip:a.example;lr\"]",
            vec!["line 13: proxies are hosts such as \"sip1.example\" or \"192.0.2.1:5060\""],
        ),
    ] {
        refused(&with("addresses = [\"203.0.113.0/24\"]", lines), &expected);
    }
}

#[test]
fn overlapping_trunks_and_trunks_of_half_the_internet_are_refused() {
    let second = "[[trunk]]\nname = \"other\"\naddresses = [\"203.0.113.9\", \"0.0.0.0/0\"]\n[voice_agent]";
    refused(
        &with("[voice_agent]", second),
        &[
            "line 14: 203.0.113.9/32 belongs to trunk \"carrier\" already",
            "line 14: 0.0.0.0/0 is wider than /8: a trunk may not be half the internet",
            "line 14: 0.0.0.0/0 belongs to trunk \"carrier\" already",
        ],
    );
}

#[test]
fn a_configuration_on_disk_names_its_file_and_finds_its_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("warmbridge.toml");
    let errors = Config::load(&path).map(|_| ()).unwrap_err();
    assert!(errors.to_string().contains("cannot be read"));
    std::fs::write(&path, MINIMAL).unwrap();
    let errors = Config::load(&path).map(|_| ()).unwrap_err();
    assert!(errors.to_string().contains("warmbridge.toml: line 18: password_file ana.sip cannot be read"));
    std::fs::write(dir.path().join("ana.sip"), "long enough\n").unwrap();
    std::fs::write(dir.path().join("policy.toml"), "").unwrap();
    let config = Config::load(&path).unwrap();
    assert_eq!(config.policy_file, dir.path().join("policy.toml"));
    assert!(
        matches!(&config.agents[0].phone, Phone::Registered { password, .. } if password.matches(b"long enough"))
    );
}

#[test]
fn a_queue_has_those_it_names_and_then_everybody_with_its_skills() {
    let person = |name: &str, skills: &str| {
        format!(
            "[[agent]]\nid = \"agent_{name}\"\nname = \"{name}\"\nuser = \"{name}\"\npassword_file = \"{name}\"\n\
             skills = {skills}\n"
        )
    };
    let people = [
        person("ben", "[\"nurse\", \"spanish\"]"),
        person("cid", "[\"nurse\"]"),
        person("dee", "[\"spanish\", \"nurse\"]"),
    ]
    .concat();
    let text = with("[[queue]]", &format!("{people}[[queue]]"));
    let members = |agents: &str| {
        let config = parse(&text.replace("agents = [\"agent_ana\"]", agents)).unwrap();
        let ids: Vec<String> = config.queues[0].agents.iter().map(ToString::to_string).collect();
        (ids, config.check().to_string())
    };
    let (ids, said) = members("agents = [\"agent_ana\", \"agent_dee\"]\nskills = [\"nurse\", \"spanish\"]");
    assert_eq!(ids, ["agent_ana", "agent_dee", "agent_ben"]);
    assert!(!said.contains("skill"), "{said}");
    let (ids, said) = members("skills = [\"nurse\"]");
    assert_eq!(ids, ["agent_ben", "agent_cid", "agent_dee"]);
    assert!(said.contains("no queue wants the skill \"spanish\""), "{said}");
}

#[test]
fn a_queue_without_people_is_refused() {
    refused(&with("agents = [\"agent_ana\"]\n", ""), &["line 20: queue \"queue_nurse\" has nobody in it"]);
    refused(
        &with("agents = [\"agent_ana\"]", "skills = [\"surgeon\"]"),
        &["line 23: queue \"queue_nurse\": no agent has all of its skills"],
    );
}

#[test]
fn a_stack_is_named_by_a_build_that_has_its_adapters_and_its_functions_have_the_keys() {
    let cloud = "\n[aws]\nstack = \"warmbridge\"\nmedia_bucket = \"warmbridge-media-1234\"\n";
    let example = include_str!("../../../warmbridge.example.toml");
    let here = example.lines().filter(|line| !line.starts_with("checkpoint"));
    let text = format!("{}\n{cloud}", here.collect::<Vec<_>>().join("\n"));
    if cfg!(feature = "aws") {
        let doubled = parse(&format!("{example}{cloud}")).map(|_| ()).unwrap_err();
        assert!(doubled.len() == 1 && doubled[0].message.contains("the stack makes its own"), "{doubled:?}");
        let unsigned =
            text.replace("secret_file = \"secrets/crm.webhook\" # whsec_ and 24 to 64 bytes in base64\n", "");
        assert!(unsigned.len() < text.len());
        let config = parse(&unsigned).unwrap();
        assert_eq!(config.aws.unwrap().stack, "warmbridge");
        assert!(config.webhooks[0].secret.is_none());
        for (from, to) in
            [("\"warmbridge\"", "\"warm bridge\""), ("\"warmbridge-media-1234\"", "\"s3://warmbridge\"")]
        {
            assert_eq!(parse(&text.replace(from, to)).unwrap_err().len(), 1, "{to}");
        }
    } else {
        let problems = parse(&text).map(|_| ()).unwrap_err();
        assert!(problems.len() == 1 && problems[0].message.contains("--features aws"), "{problems:?}");
    }
}

#[test]
fn polly_speaks_where_a_language_has_a_voice_and_nowhere_else() {
    let example = include_str!("../../../warmbridge.example.toml");
    let here = example.lines().filter(|line| !line.starts_with("checkpoint"));
    let mut text = here.collect::<Vec<_>>().join("\n");
    text.push_str("\n[aws]\nstack = \"warmbridge\"\nmedia_bucket = \"warmbridge-media-1234\"\n[aws.polly]\n");
    let with = |polly: &str| parse(&format!("{text}{polly}\n"));
    if !cfg!(feature = "aws") {
        let problems = with("voices = { en = \"Matthew\" }").map(|_| ()).unwrap_err();
        assert!(problems.len() == 1 && problems[0].message.contains("--features aws"), "{problems:?}");
        return;
    }
    let polly = with("voices = { en = \"Matthew\", en-GB = \"Brian\" }").unwrap().aws.unwrap().polly.unwrap();
    assert_eq!(polly.engine, "neural");
    for (lang, voice) in [
        ("en", Some("Matthew")),
        ("en-US", Some("Matthew")),
        ("EN-gb", Some("Brian")),
        ("es", None),
        ("", None),
    ] {
        assert_eq!(polly.voice(lang), voice, "{lang}");
    }
    let engine = |name: &str| with(&format!("engine = \"{name}\"\nvoices = {{ en = \"Matthew\" }}"));
    assert_eq!(engine("long-form").unwrap().aws.unwrap().polly.unwrap().engine, "long-form");
    for (polly, said) in [
        (engine("best"), "engine must be one of standard, neural, long-form, generative"),
        (with("voices = {}"), "1 to 64"),
        (with("voices = { english = \"Matthew\" }"), "\"english\" is not a BCP 47 tag"),
        (with("voices = { en = \"a man\" }"), "one word"),
        (with("voice = \"Matthew\""), "unknown field `voice`"),
    ] {
        let problems = polly.map(|_| ()).unwrap_err();
        assert!(problems.len() == 1 && problems[0].message.contains(said), "{problems:?}");
        assert!(problems[0].line.is_some());
    }
}

#[test]
fn checkpoints_lie_outside_the_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir_all(&data).unwrap();
    std::os::unix::fs::symlink(&data, dir.path().join("link")).unwrap();
    let with = |folder: &str, more: &str| {
        let text = MINIMAL.replacen("[edge]", &format!("[edge]\ndata_dir = \"{}\"", data.display()), 1);
        let folder = dir.path().join(folder);
        parse(&format!("{text}\n[audit]\ncheckpoints = \"{}\"\n{more}", folder.display()))
    };
    let config = with("notes", "checkpoint_every_s = 300").unwrap();
    assert_eq!(config.audit.checkpoints, Some(dir.path().join("notes")));
    assert_eq!(config.audit.checkpoint_every, Duration::from_secs(300));
    assert_eq!(with("data-beside", "").unwrap().audit.checkpoint_every, Duration::from_secs(3_600));
    for inside in ["data", "data/notes", "data/../data/notes", "notes/../data", "link/notes"] {
        assert!(with(inside, "").is_err(), "{inside}");
    }
    assert!(with("notes", "checkpoint_every_s = 5").is_err());
    assert!(parse(&format!("{MINIMAL}\n[audit]\ncheckpoint_every_s = 300\n")).is_err());
}

#[test]
fn tls_needs_a_certificate_its_key_and_a_listener() {
    let after = |lines: &str| with("http = ", &format!("{lines}http = "));
    let listener = "sip_tls = \"127.0.0.1:5061\"\n";
    let files = "tls_cert_file = \"edge.crt\"\ntls_key_file = \"edge.pk\"\n";
    let config = parse(&after(&format!("{listener}{files}"))).unwrap();
    assert_eq!(config.edge.sip_tls.map(|address| address.port()), Some(5_061));
    refused(&after(listener), &["line 6: sip_tls and sip_wss need tls_cert_file and tls_key_file"]);
    refused(&after(files), &["line 6: a file for TLS without sip_tls or sip_wss: nothing would listen"]);
    refused(
        &after(&format!("{listener}tls_cert_file = \"edge.pk\"\ntls_key_file = \"edge.crt\"\n")),
        &["line 7: no certificate in PEM in its file"],
    );
    for (line, policy) in [("", SrtpPolicy::WithTls), ("phones_srtp = \"off\"\n", SrtpPolicy::Off)] {
        let config = parse(&after(&format!("{listener}{files}{line}"))).unwrap();
        assert_eq!(config.edge.phones_srtp, policy);
    }
    refused(
        &after("phones_srtp = \"required\"\n"),
        &["line 6: phones_srtp needs [edge] sip_tls or sip_wss: keys for audio are given inside TLS alone"],
    );
    refused(
        &after(&format!("{listener}{files}phones_srtp = \"always\"\n")),
        &["line 9: phones_srtp is \"always\": choose \"required\" or \"preferred\" or \"off\""],
    );
    let wss = after(&format!("sip_wss = \"127.0.0.1:7443\"\n{files}phones_srtp = \"required\"\n"));
    assert_eq!(parse(&wss).unwrap().edge.sip_wss.map(|address| address.port()), Some(7_443));
    refused(
        &after("sip_wss = \"127.0.0.1:7443\"\n"),
        &["line 6: sip_tls and sip_wss need tls_cert_file and tls_key_file"],
    );
    assert!(parse(&after("sip_ws = \"127.0.0.1:7080\"\n")).unwrap().edge.sip_ws.is_some());
    let authorities = "tls_client_ca_file = \"edge.crt\"\n";
    let asking = format!("{listener}{files}{authorities}");
    for line in ["", "tls_client_certificate = \"optional\"\n", "tls_client_certificate = \"required\"\n"] {
        assert!(parse(&after(&format!("{asking}{line}"))).unwrap().edge.tls.is_some(), "{line}");
    }
    let by_name = after(&asking).replacen(
        "addresses = [\"203.0.113.0/24\"]",
        "certificate = \"sip.carrier.example\"",
        1,
    );
    assert_eq!(parse(&by_name).unwrap().trunks[0].certificate.as_deref(), Some("sip.carrier.example"));
    for name in ["", "carrier", "*.carrier.example", "sip:carrier.example", "carrier..example"] {
        assert!(parse(&by_name.replace("sip.carrier.example", name)).is_err(), "{name}");
    }
    let registered = "register = \"sip:a@reg.example\"\npassword_file = \"trunk.sip\"\ncertificate";
    let registered = by_name.replacen("certificate", registered, 1);
    assert!(
        parse(&registered.replacen("certificate = \"sip.", "transport = \"tls\"\ncertificate = \"sip.", 1))
            .is_ok()
    );
    refused(
        &registered,
        &["line 17: certificate beside register needs transport = \"tls\": elsewhere nothing is shown"],
    );
    refused(
        &by_name.replace(authorities, ""),
        &["line 14: certificate needs [edge] sip_tls and tls_client_ca_file: nobody would be asked for one"],
    );
    refused(
        &after(&format!("{listener}{files}tls_client_certificate = \"required\"\n")),
        &["line 9: tls_client_certificate needs tls_client_ca_file: nobody could vouch for one"],
    );
    refused(
        &after(&asking.replace("sip_tls", "sip_wss")),
        &["line 9: tls_client_ca_file needs sip_tls: browsers are not asked for certificates"],
    );
    let trunk = with("[[trunk]]\n", "[[trunk]]\nsrtp = \"preferred\"\n");
    assert!(parse(&trunk).is_err(), "there is no TLS");
    let phone =
        with("user = \"ana\"\npassword_file = \"ana.sip\"", "uri = \"sip:ana@192.0.2.9;transport=tls\"");
    refused(
        &phone,
        &["line 17: transport=tls needs [edge] sip_tls: the edge would have no certificate to show"],
    );
    refused(
        &phone.replace("transport=tls", "transport=ws"),
        &[
            "line 17: a phone on a WebSocket cannot be dialled: give it user and password_file, and it registers",
        ],
    );
}
