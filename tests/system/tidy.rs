//! What the repository promises of itself, checked: pure code stays pure, a foreign crate has
//! its owners, every file opens with its purpose and stays readable, documents name files
//! that exist. The tables at the top are the rules; a finding names the file, the line and
//! the rule. Text is read as text, so a rule that needs the compiler is Clippy's, not ours.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Code without sockets, clocks, threads, files or chance. Each decides, and none acts.
const PURE: &[&str] = &[
    "handoff/src/",
    "edge-media/src/sip.rs",
    "edge-media/src/sip/",
    "edge-media/src/media.rs",
    "edge-media/src/media/",
    "edge-media/src/link.rs",
    "edge-media/src/link/",
    "edge-media/src/desktop.rs",
    "edge-media/src/desktop/",
    "edge-media/src/edge.rs",
    "edge-media/src/edge/",
];

/// What pure code never says, and what it gets instead.
const IMPURE: &[(&str, &str)] = &[
    ("Instant::now", "time comes in as `Now`"),
    ("SystemTime", "wall time comes in as `Timestamp`"),
    ("tokio", "only the shell is asynchronous"),
    ("async fn", "only the shell is asynchronous"),
    ("async move", "only the shell is asynchronous"),
    ("await", "only the shell is asynchronous"),
    ("HashMap", "its order does not repeat: use `BTreeMap`"),
    ("HashSet", "its order does not repeat: use `BTreeSet`"),
    ("UdpSocket", "datagrams come in and go out as values"),
    ("TcpStream", "bytes come in and go out as values"),
    ("TcpListener", "bytes come in and go out as values"),
    ("std::fs", "files are the shell's"),
    ("fs::", "files are the shell's"),
    ("std::env", "the environment is the shell's"),
    ("std::process", "processes are the shell's"),
    ("std::thread", "threads are the shell's"),
    ("thread::", "threads are the shell's"),
    ("Mutex", "pure code shares nothing"),
    ("RwLock", "pure code shares nothing"),
    ("rand", "chance comes in as an argument"),
    ("getrandom", "chance comes in as an argument"),
    ("functions", "the edge reaches the functions through its shell"),
];

/// Who may name a foreign crate, so that replacing one touches these files and no others.
/// A folder ends in `/`. Crates that are vocabulary (`serde`, `thiserror`, `base64`, digests)
/// have no owner.
const OWNERS: &[(&str, &[&str])] = &[
    ("sipx_sip", &["edge-media/src/sip/message.rs", "edge-media/src/sip/transaction.rs"]),
    ("sdp_types", &["edge-media/src/sip/sdp.rs"]),
    (
        "tokio_tungstenite",
        &["edge-media/src/io/stream.rs", "edge-media/src/io/stream/", "edge-media/src/demo/"],
    ),
    ("rustls_native_certs", &["edge-media/src/io/stream.rs", "edge-media/src/io/tls.rs"]),
    ("tokio_rustls", &["edge-media/src/io/tls.rs"]),
    ("hickory_resolver", &["edge-media/src/io/dns.rs"]),
    ("aes", &["edge-media/src/media/srtp.rs"]),
    ("ctr", &["edge-media/src/media/srtp.rs"]),
    (
        "rustls",
        &[
            "edge-media/src/io/stream.rs",
            "edge-media/src/io/tls.rs",
            "edge-media/src/cli.rs",
            // Every program installs the one provider first.
            "functions/src/aws/lambda.rs",
            "functions/src/bin/ask-contract.rs",
        ],
    ),
    // The configuration borrows the type of a URI, so that it takes what the client takes.
    ("hyper", &["edge-media/src/io/http.rs", "edge-media/src/config/"]),
    (
        "futures_util",
        &[
            "edge-media/src/io/names.rs",
            "edge-media/src/io/stream/",
            "edge-media/src/io/http/events.rs",
            "edge-media/src/demo/",
        ],
    ),
    ("axum", &["edge-media/src/io/http.rs", "edge-media/src/io/http/"]),
    ("hyper_util", &["edge-media/src/io/http.rs"]),
    ("socket2", &["edge-media/src/io/"]),
    ("thread_priority", &["edge-media/src/io/media/"]),
    ("nix", &["edge-media/src/io/", "edge-media/src/demo/phone.rs", "edge-media/src/demo/idle.rs"]),
    (
        "tokio",
        &[
            "edge-media/src/io.rs",
            "edge-media/src/io/",
            "edge-media/src/cli.rs",
            "edge-media/src/cli/",
            "edge-media/src/cloud.rs",
            "edge-media/src/control.rs",
            "edge-media/src/local.rs",
            "edge-media/src/demo.rs",
            "edge-media/src/demo/",
            "functions/src/",
        ],
    ),
    ("clap", &["edge-media/src/cli.rs", "edge-media/src/cli/"]),
    ("tracing_subscriber", &["edge-media/src/cli.rs", "functions/src/aws/lambda.rs"]),
    ("hound", &["edge-media/src/demo/", "edge-media/src/io/recording/read.rs"]),
    // The guard borrows the client's type of a URL, so that both read one alike.
    ("reqwest", &["functions/src/guard.rs", "functions/src/http.rs"]),
    ("rusqlite", &["functions/src/sqlite.rs", "functions/src/sqlite/", "functions/src/audit_read.rs"]),
    ("aws_config", &["functions/src/aws.rs"]),
    ("aws_sdk_dynamodb", &["functions/src/aws.rs", "functions/src/aws/"]),
    ("aws_sdk_kms", &["functions/src/aws.rs", "functions/src/aws/"]),
    // The edge's alone: no function speaks, and none is built with it.
    ("aws_sdk_polly", &["edge-media/src/io/speech/polly.rs"]),
    ("aws_sdk_s3", &["functions/src/aws.rs", "functions/src/aws/"]),
    ("aws_sdk_secretsmanager", &["functions/src/aws.rs"]),
    ("aws_sdk_sqs", &["functions/src/aws.rs", "functions/src/aws/"]),
    ("aws_sdk_ssm", &["functions/src/aws.rs"]),
    ("aws_smithy_http_client", &["functions/src/aws.rs"]),
    ("lambda_runtime", &["functions/src/aws/lambda.rs", "functions/src/bin/"]),
    ("aes_gcm", &["handoff/src/seal.rs"]),
    ("hkdf", &["handoff/src/seal.rs"]),
    (
        "ed25519_dalek",
        &["handoff/src/checkpoint/", "functions/src/checkpoint/local_key.rs", "handoff/src/vcon/signed.rs"],
    ),
    ("md5", &["edge-media/src/sip/auth.rs"]),
    ("sha1", &["edge-media/src/link/twilio.rs", "edge-media/src/media/srtp.rs"]),
    // On one machine the edge links the functions as a library; nothing pure knows of it.
    (
        "functions",
        &[
            "functions/src/bin/",
            "edge-media/src/cloud.rs",
            "edge-media/src/control.rs",
            "edge-media/src/local.rs",
            "edge-media/src/setup.rs",
            "edge-media/src/io/",
            "edge-media/src/cli/",
            "edge-media/src/demo/",
        ],
    ),
];

/// What the pure crate may depend on: computation only.
const HANDOFF_DEPENDENCIES: &[&str] = &[
    "aes-gcm",
    "base64",
    "ed25519-dalek",
    "hkdf",
    "hmac",
    "serde",
    "serde_json",
    "sha2",
    "subtle",
    "thiserror",
    "toml",
    "zeroize",
];

/// No crate below `handoff` is one of these.
const IO_CRATES: &[&str] = &[
    "axum",
    "futures-util",
    "hyper",
    "libsqlite3-sys",
    "mio",
    "nix",
    "reqwest",
    "rusqlite",
    "rustls",
    "socket2",
    "tokio",
    "tokio-tungstenite",
    "tracing",
];

/// Beyond this a file is two files; a reader loses the thread well before.
const LINES_MAX: usize = 900;
/// From here on a file is named, for whoever next has a reason to split it.
const LINES_COMFORTABLE: usize = 600;

#[test]
fn pure_code_names_nothing_impure() {
    let findings = lines_of_code(|path| within(path, PURE)).flat_map(|line| {
        let why = |(word, instead): &(&str, &str)| {
            says(&line.text, word).then(|| finding(&line, &format!("`{word}` in pure code: {instead}")))
        };
        IMPURE.iter().filter_map(why).collect::<Vec<_>>()
    });
    none(findings);
}

#[test]
fn a_foreign_crate_is_named_by_its_owners_only() {
    let findings = lines_of_code(|path| path.contains("/src/")).flat_map(|line| {
        let stray = |(name, owners): &(&str, &[&str])| {
            let foreign = names_crate(&line.text, name) && !within(&line.path, owners);
            foreign.then(|| finding(&line, &format!("`{name}` belongs to {}", owners.join(", "))))
        };
        OWNERS.iter().filter_map(stray).collect::<Vec<_>>()
    });
    none(findings);
}

#[test]
fn the_table_of_owners_names_files_that_exist() {
    let owners = OWNERS.iter().flat_map(|(name, owners)| owners.iter().map(move |owner| (name, owner)));
    none(
        owners
            .chain(PURE.iter().map(|pure| (&"purity", pure)))
            .filter(|(_, path)| !root().join(path).exists())
            .map(|(rule, path)| format!("tests/system/tidy.rs: {rule}: there is no {path}")),
    );
}

#[test]
fn every_owner_names_its_crate() {
    let shipped: Vec<Line> = lines_of_code(|path| path.contains("/src/")).collect();
    let owners = OWNERS.iter().flat_map(|(name, owners)| owners.iter().map(move |owner| (name, owner)));
    none(
        owners
            .filter(|(name, owner)| {
                !shipped.iter().any(|line| within(&line.path, &[**owner]) && names_crate(&line.text, name))
            })
            .map(|(name, owner)| format!("{owner}:1: does not name `{name}`: strike it from its owners")),
    );
}

#[test]
fn dependencies_point_at_the_pure_crate() {
    const OURS: &[&str] = &["handoff", "functions", "edge-media", "tests"];
    // Each member and what it uses of ours: exactly that, in shipped code.
    const ARROWS: &[(&str, &[&str])] = &[
        ("handoff", &[]),
        ("functions", &["handoff"]),
        ("edge-media", &["handoff", "functions"]),
        ("tests", &["handoff", "functions", "edge-media"]),
    ];
    let mut findings = Vec::new();
    for (name, line) in dependencies("handoff") {
        if !HANDOFF_DEPENDENCIES.contains(&name.as_str()) {
            findings.push(format!(
                "handoff/Cargo.toml:{line}: `{name}`: the pure crate depends on computation only"
            ));
        }
    }
    for (member, uses) in ARROWS {
        let named = dependencies(member);
        for (name, line) in &named {
            if OURS.contains(&name.as_str()) && !uses.contains(&name.as_str()) {
                findings.push(format!(
                    "{member}/Cargo.toml:{line}: `{name}`: arrows run edge-media → functions → handoff"
                ));
            }
        }
        for name in uses.iter().filter(|name| !named.contains_key(**name)) {
            findings
                .push(format!("{member}/Cargo.toml:1: does not use `{name}`, so a contract exists twice"));
        }
    }
    for name in tree("handoff") {
        if IO_CRATES.contains(&name.as_str()) {
            findings.push(format!("handoff/Cargo.toml:1: `{name}` below the pure crate"));
        }
    }
    none(findings);
}

#[test]
fn without_the_feature_nothing_of_aws_is_compiled() {
    let below = ["edge-media", "functions", "handoff", "tests"].map(|krate| (krate, tree(krate)));
    none(below.iter().flat_map(|(krate, names)| {
        let foreign = |name: &&String| name.starts_with("aws-") && !name.starts_with("aws-lc");
        names.iter().filter(foreign).map(move |name| format!("{krate}/Cargo.toml:1: `{name}` by default"))
    }));
}

#[test]
fn every_file_says_first_what_it_is() {
    none(
        files()
            .iter()
            .filter(|path| is_rust(path))
            .filter(|path| !text(path).trim_start().starts_with("//!"))
            .map(|path| format!("{path}:1: opens without `//!`")),
    );
}

#[test]
fn no_file_is_too_long_to_read() {
    let lengths = files().into_iter().filter(|path| is_rust(path)).map(|path| {
        let lines = text(&path).lines().count();
        (path, lines)
    });
    let long: Vec<_> = lengths.filter(|(_, lines)| *lines > LINES_COMFORTABLE).collect();
    for (path, lines) in &long {
        println!("{path}: {lines} lines; comfortable is {LINES_COMFORTABLE}");
    }
    none(
        long.iter()
            .filter(|(_, lines)| *lines > LINES_MAX)
            .map(|(path, lines)| format!("{path}:{lines}: over {LINES_MAX} lines")),
    );
}

#[test]
fn nothing_is_left_for_later() {
    // Written apart, so that this file does not find itself.
    let marks = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"]].map(|parts| parts.concat());
    let calls = [["todo", "!("], ["unimplemented", "!("], ["#[ig", "nore"]].map(|parts| parts.concat());
    let findings = files().into_iter().filter(|path| is_source(path)).flat_map(|path| {
        let mut found = Vec::new();
        for (number, line) in text(&path).lines().enumerate() {
            let mark = marks.iter().find(|mark| says(line, mark));
            let call = calls.iter().find(|call| is_rust(&path) && line.contains(call.as_str()));
            if let Some(word) = mark.or(call) {
                found.push(format!("{path}:{}: `{word}`: finish it or write down the limit", number + 1));
            }
        }
        found
    });
    none(findings.collect::<Vec<_>>());
}

#[test]
fn nothing_refers_to_what_a_clone_does_not_hold() {
    // The one file that may, where a corpus is at hand that is not ours to copy.
    const ALLOWED: &[&str] = &[".ci/", "edge-media/tests/corpus.rs"];
    let outside = ["../sha", "red"].concat();
    let findings =
        files().into_iter().filter(|path| is_source(path) && !within(path, ALLOWED)).flat_map(|path| {
            let text = text(&path);
            let numbered = text.lines().enumerate().filter(|(_, line)| line.contains(&outside));
            numbered
                .map(|(at, _)| format!("{path}:{}: `{outside}` is not in the repository", at + 1))
                .collect::<Vec<_>>()
        });
    none(findings.collect::<Vec<_>>());
}

#[test]
fn documents_name_files_that_exist() {
    let known = files();
    let mut findings = Vec::new();
    for document in ["README.md", "ARCHITECTURE.md"] {
        for (number, line) in text(document).lines().enumerate() {
            for name in links(line).into_iter().chain(paths_in_code(line)) {
                let name = name.trim_end_matches('/');
                let full = format!("/{name}");
                let exists = |path: &String| {
                    path == name
                        || path.ends_with(&full)
                        || path.starts_with(&format!("{name}/"))
                        || path.contains(&format!("{full}/"))
                };
                if !known.iter().any(exists) {
                    findings.push(format!("{document}:{}: there is no `{name}`", number + 1));
                }
            }
        }
    }
    none(findings);
}

#[test]
fn the_code_map_names_every_file() {
    let map = text("ARCHITECTURE.md");
    let listed: BTreeSet<&str> = map.lines().flat_map(code_spans).collect();
    none(
        files()
            .iter()
            .filter(|path| is_rust(path) && path.contains("/src/") && !is_test(path))
            .filter(|path| !listed.contains(path.as_str()))
            .map(|path| format!("ARCHITECTURE.md:1: the code map lacks a line for `{path}`")),
    );
}

#[test]
fn the_lessons_name_tests_that_exist() {
    let readme = text("tests/README.md");
    let (_, lessons) = readme.split_once("\nLessons:\n").expect("tests/README.md has its lessons");
    let tests: BTreeSet<String> = files()
        .iter()
        .filter(|path| is_rust(path))
        .flat_map(|path| text(path).lines().filter_map(function_named).collect::<Vec<_>>())
        .collect();
    let named = lessons.lines().filter(|line| line.starts_with('|')).flat_map(code_spans);
    let named: BTreeSet<&str> = named.filter(|name| is_a_sentence(name)).collect();
    assert!(named.len() > 40, "the tables are there");
    none(
        named
            .into_iter()
            .filter(|name| !tests.contains(*name))
            .map(|name| format!("tests/README.md:1: no test is called `{name}`")),
    );
}

fn function_named(line: &str) -> Option<String> {
    let (name, _) = line
        .trim_start()
        .strip_prefix("fn ")
        .or_else(|| line.trim_start().strip_prefix("async fn "))?
        .split_once('(')?;
    Some(name.to_owned())
}

/// The name of a test: several words of lower case.
fn is_a_sentence(name: &str) -> bool {
    name.split('_').count() > 2 && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

/// One line of shipped Rust that is not a comment.
struct Line {
    path: String,
    number: usize,
    text: String,
}

/// The shipped lines of the files that are wanted: without comments, and without the tests,
/// which stand at the end of their file or in one of their own that it declares.
fn lines_of_code(wanted: impl Fn(&str) -> bool) -> impl Iterator<Item = Line> {
    let mut found = Vec::new();
    for path in files() {
        if !is_rust(&path) || is_test(&path) || !wanted(&path) {
            continue;
        }
        let text = text(&path);
        let mut lines = text.lines().enumerate().peekable();
        while let Some((at, line)) = lines.next() {
            if line.trim() == "#[cfg(test)]" {
                let next = lines.peek().map(|(_, next)| next.trim()).unwrap_or_default();
                // A module in a file of its own is one line, wherever it stands.
                if next.starts_with("mod ") && next.ends_with(';') {
                    lines.next();
                    continue;
                }
                if next.starts_with("mod ") {
                    break;
                }
            }
            if !line.trim_start().starts_with("//") {
                found.push(Line { path: path.clone(), number: at + 1, text: line.to_owned() });
            }
        }
    }
    found.into_iter()
}

fn finding(line: &Line, rule: &str) -> String {
    format!("{}:{}: {rule}", line.path, line.number)
}

fn none(findings: impl IntoIterator<Item = String>) {
    let findings: Vec<String> = findings.into_iter().collect();
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

fn within(path: &str, places: &[&str]) -> bool {
    places.iter().any(|place| path == *place || (place.ends_with('/') && path.starts_with(place)))
}

/// Whether `word` stands in `line` by itself and not as a part of a longer name. One that ends
/// in `::` is whole there.
fn says(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line.get(at + word.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(part) && (word.ends_with("::") || !after.is_some_and(part))
    })
}

/// Whether a line uses the crate: `name::…`, `use name;` or `use name as …`, but not
/// `crate::name::…`.
fn names_crate(line: &str, name: &str) -> bool {
    let path = format!("{name}::");
    let by_path = line.match_indices(&path).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    });
    let line = line.trim();
    by_path || line == format!("use {name};") || line.starts_with(&format!("use {name} as "))
}

/// Targets of relative links, without their fragments.
fn links(line: &str) -> Vec<String> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = targets.filter_map(|target| target.split('#').next());
    files.filter(|file| !file.is_empty() && !file.contains("://")).map(str::to_owned).collect()
}

/// Code spans that are paths in the repository: they end in `/` or in an extension of ours.
fn paths_in_code(line: &str) -> Vec<String> {
    const EXTENSIONS: &[&str] = &[".rs", ".toml", ".md", ".sh", ".py", ".yaml", ".xml"];
    // A user's own files, and what the programs write.
    const ELSEWHERE: &[&str] = &["warmbridge.toml", "policy.toml", "template.yaml"];
    let is_path = |span: &&str| {
        let plain = span.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
        let ours = EXTENSIONS.iter().any(|extension| span.ends_with(extension));
        plain && !span.starts_with(['/', '.']) && (span.ends_with('/') || ours) && !ELSEWHERE.contains(span)
    };
    code_spans(line).filter(is_path).map(|span| span.trim_start_matches("./").to_owned()).collect()
}

fn code_spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

fn is_rust(path: &str) -> bool {
    path.ends_with(".rs")
}

fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/") || path.starts_with("tests/")
}

/// Text that people write and read.
fn is_source(path: &str) -> bool {
    let extension = Path::new(path).extension().and_then(|extension| extension.to_str());
    matches!(path, "test" | ".ci/run" | ".gitignore")
        || extension.is_some_and(|e| {
            ["rs", "toml", "md", "sh", "py", "yaml", "json", "xml", "js", "html", "css"].contains(&e)
        })
}

/// Names that a member's shipped code depends on, on any platform, and their lines.
fn dependencies(member: &str) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    let mut inside = false;
    for (at, line) in text(&format!("{member}/Cargo.toml")).lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            let header = header.trim_end_matches(']');
            inside = header.ends_with("dependencies") && !header.contains("dev-");
            // `[dependencies.name]` is one dependency and its options.
            if let Some((_, name)) = header.split_once("dependencies.").filter(|_| !header.contains("dev-")) {
                found.insert(name.to_owned(), at + 1);
            }
        } else if inside && !line.starts_with('#') {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            if !name.is_empty() {
                found.insert(name.to_owned(), at + 1);
            }
        }
    }
    found
}

/// Every crate that a member is compiled with by default.
fn tree(member: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "-p",
            member,
            "-e",
            "normal",
            "--prefix",
            "none",
            "-f",
            "{p}",
        ])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let listing = String::from_utf8_lossy(&output.stdout);
    listing.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a member lies in the workspace").to_owned()
}

fn text(path: &str) -> String {
    let bytes = fs::read(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Every file of the repository, relative to its root: what Git does not track, and what is
/// built or fetched, is left out by name, so that the test needs no Git.
fn files() -> Vec<String> {
    const SKIPPED: &[&str] = &[".git", "target", ".tools", "warmbridge-data", "__pycache__", ".aws-sam"];
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder can be listed").flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if SKIPPED.contains(&name) {
                continue;
            }
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            } else if let Ok(path) = path.strip_prefix(&root) {
                found.push(path.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}
