//! HTTP digest for SIP (RFC 3261 section 22, RFC 7616, RFC 8760): challenges and checks as a
//! server, answers as a client. SHA-256, but MD5 for users who are listed for it, and `qop=auth`
//! only; the client also answers SHA-512-256 and `auth-int`. Nonces carry their own proof (an
//! HMAC over time and source), so that an unauthenticated peer costs no memory. Unknown users
//! take the same path as known ones.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use handoff::clock::Now;
use handoff::pii::Pii;
use md5::Md5;
use sha2::{Digest, Sha256, Sha512_256};
use subtle::ConstantTimeEq;

use super::header::Uri;
use super::random::{hex, mac};

/// How long a nonce is good: long enough for a phone to re-register with it, short enough
/// that a stolen answer is soon worthless.
const NONCE_LIFE: Duration = Duration::from_secs(300);
/// Most nonces whose use is remembered. The oldest goes first; its owner gets `stale=true`.
const NONCES_MAX: usize = 8_192;
/// How far `nc` may lag behind the highest one seen: UDP reorders.
const COUNT_WINDOW: u32 = 64;

/// What a user proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// The password itself.
    Password(Pii<String>),
    /// `H(user:realm:password)` in hexadecimal: the password is nowhere.
    Ha1 {
        /// With SHA-256.
        sha256: Pii<String>,
        /// With MD5, where the device needs it.
        md5: Option<Pii<String>>,
    },
}

/// A digest algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Algorithm {
    Md5,
    Sha256,
    /// As a client only: phones do not know it.
    Sha512_256,
}

impl Algorithm {
    const fn name(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
            Self::Sha512_256 => "SHA-512-256",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::Md5, Self::Sha256, Self::Sha512_256]
            .into_iter()
            .find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
    }

    fn hash(self, text: &str) -> String {
        self.hash_bytes(text.as_bytes())
    }

    fn hash_bytes(self, bytes: &[u8]) -> String {
        match self {
            Self::Md5 => hex(&Md5::digest(bytes)),
            Self::Sha256 => hex(&Sha256::digest(bytes)),
            Self::Sha512_256 => hex(&Sha512_256::digest(bytes)),
        }
    }
}

impl Secret {
    fn ha1(&self, algorithm: Algorithm, user: &str, realm: &str) -> Option<String> {
        match (self, algorithm) {
            (Self::Password(password), _) => {
                Some(algorithm.hash(&format!("{user}:{realm}:{}", password.expose())))
            }
            (Self::Ha1 { sha256, .. }, Algorithm::Sha256) => Some(sha256.expose().clone()),
            (Self::Ha1 { md5, .. }, Algorithm::Md5) => md5.as_ref().map(|ha1| ha1.expose().clone()),
            (Self::Ha1 { .. }, Algorithm::Sha512_256) => None,
        }
    }
}

/// Who may authenticate, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account<'a> {
    pub(super) secret: &'a Secret,
    pub(super) allow_md5: bool,
}

/// The outcome of looking at credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This user, proven.
    Known(String),
    /// No usable credentials: challenge. `true` where only the nonce was too old.
    Challenge { stale: bool },
    /// Credentials that are wrong: challenge again, and count it.
    Wrong(String),
}

/// The server's side.
pub(super) struct Authenticator {
    realm: String,
    key: [u8; 32],
    /// Highest `nc` and a bitmap of the window below it, per nonce in use.
    used: BTreeMap<String, (u32, u64)>,
}

impl Authenticator {
    /// For one realm.
    pub(super) const fn new(realm: String, key: [u8; 32]) -> Self {
        Self { realm, key, used: BTreeMap::new() }
    }

    /// The value of `WWW-Authenticate` for a phone of this algorithm.
    pub(super) fn challenge(&self, now: Now, source: IpAddr, algorithm: Algorithm, stale: bool) -> String {
        let nonce = self.nonce(now, source);
        let stale = if stale { ", stale=true" } else { "" };
        format!(
            "Digest realm=\"{}\", nonce=\"{nonce}\", algorithm={}, qop=\"auth\"{stale}",
            self.realm,
            algorithm.name()
        )
    }

    /// Which algorithm a name is challenged with that no user has: always the same for one
    /// name, and not to be guessed, so that a challenge does not tell who exists.
    pub(super) fn algorithm_of_nobody(&self, name: &str) -> Algorithm {
        let toss = mac(&self.key, &[b"algorithm", name.as_bytes()]);
        if toss.first().is_some_and(|byte| byte & 1 == 1) { Algorithm::Md5 } else { Algorithm::Sha256 }
    }

    /// Checks the `Authorization` values of a request. Credentials of another scheme or
    /// realm count as none.
    pub(super) fn check<'a>(
        &mut self,
        now: Now,
        source: IpAddr,
        method: &str,
        request_uri: &str,
        authorizations: &[&str],
        account: impl Fn(&str) -> Option<Account<'a>>,
    ) -> Verdict {
        let mut verdict = Verdict::Challenge { stale: false };
        for value in authorizations {
            let Some(credentials) = parse(value) else {
                continue;
            };
            if field(&credentials, "realm") != Some(self.realm.as_str()) {
                continue;
            }
            verdict = self.judge(now, source, method, request_uri, &credentials, &account);
            if matches!(verdict, Verdict::Known(_)) {
                break;
            }
        }
        verdict
    }

    fn judge<'a>(
        &mut self,
        now: Now,
        source: IpAddr,
        method: &str,
        request_uri: &str,
        credentials: &[(String, String)],
        account: impl Fn(&str) -> Option<Account<'a>>,
    ) -> Verdict {
        let get = |name| field(credentials, name).unwrap_or_default();
        let (user, nonce, uri) = (get("username"), get("nonce"), get("uri"));
        let name = field(credentials, "algorithm").unwrap_or("MD5");
        let known = Algorithm::parse(name).filter(|algorithm| *algorithm != Algorithm::Sha512_256);
        let Some(algorithm) = known else {
            return Verdict::Challenge { stale: false };
        };
        let count = u32::from_str_radix(get("nc"), 16).ok().filter(|count| *count > 0);
        let (Some(count), true) = (count, get("qop").eq_ignore_ascii_case("auth")) else {
            return Verdict::Challenge { stale: false };
        };
        if !self.is_ours(nonce, source) {
            return Verdict::Challenge { stale: false };
        }
        let found = account(user);
        // An unknown user is checked against a secret that nobody has, in the same time.
        let nobody = Secret::Password(Pii::new(hex(&self.key)));
        let (secret, allowed) = match found {
            Some(account) => (account.secret, algorithm == Algorithm::Sha256 || account.allow_md5),
            None => (&nobody, false),
        };
        let ha1 = secret.ha1(algorithm, user, &self.realm).unwrap_or_else(|| hex(&self.key));
        let used = Some((get("nc"), get("cnonce"), "auth"));
        let expected = response(algorithm, &ha1, nonce, used, &format!("{method}:{uri}"));
        let given = get("response").to_ascii_lowercase();
        let matches: bool = expected.as_bytes().ct_eq(given.as_bytes()).into();
        if !matches || !allowed || !same_target(uri, request_uri) {
            return Verdict::Wrong(user.to_owned());
        }
        if self.is_old(now, nonce) || !self.count(nonce, count) {
            return Verdict::Challenge { stale: true };
        }
        Verdict::Known(user.to_owned())
    }

    fn nonce(&self, now: Now, source: IpAddr) -> String {
        let time = format!("{:016x}", now.millis());
        let proof = self.proof(&time, source);
        format!("{time}{proof}")
    }

    fn proof(&self, time: &str, source: IpAddr) -> String {
        let source = source.to_canonical().to_string();
        let full = mac(&self.key, &[b"nonce", time.as_bytes(), source.as_bytes()]);
        hex(full.get(..16).unwrap_or_default())
    }

    fn is_ours(&self, nonce: &str, source: IpAddr) -> bool {
        let (Some(time), Some(proof)) = (nonce.get(..16), nonce.get(16..)) else {
            return false;
        };
        self.proof(time, source).as_bytes().ct_eq(proof.as_bytes()).into()
    }

    fn is_old(&self, now: Now, nonce: &str) -> bool {
        let millis = nonce.get(..16).and_then(|time| u64::from_str_radix(time, 16).ok()).unwrap_or(0);
        now.since(Now::from_millis(millis.min(now.millis()))) > NONCE_LIFE
    }

    /// Accepts each `nc` of a nonce once.
    fn count(&mut self, nonce: &str, count: u32) -> bool {
        let Some((highest, seen)) = self.used.get_mut(nonce) else {
            if self.used.len() >= NONCES_MAX {
                // Nonces begin with their time, so the first is the oldest.
                self.used.pop_first();
            }
            self.used.insert(nonce.to_owned(), (count, 1));
            return true;
        };
        if count > *highest {
            let shift = count - *highest;
            *seen = if shift >= COUNT_WINDOW { 1 } else { (*seen << shift) | 1 };
            *highest = count;
            return true;
        }
        let lag = *highest - count;
        if lag >= COUNT_WINDOW || *seen & (1 << lag) != 0 {
            return false;
        }
        *seen |= 1 << lag;
        true
    }
}

/// The parts of a request that an answer may cover.
#[derive(Clone, Copy, Debug)]
pub(super) struct Covered<'a> {
    pub(super) method: &'a str,
    pub(super) uri: &'a str,
    pub(super) body: &'a [u8],
}

/// What the answer to a challenge covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quality {
    /// Method and URI.
    Auth,
    /// The body as well.
    AuthInt,
}

/// A challenge as a client reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    realm: String,
    nonce: String,
    opaque: Option<String>,
    algorithm: Algorithm,
    qop: Option<Quality>,
    /// Only the nonce was too old.
    pub(super) stale: bool,
}

impl Challenge {
    /// The strongest challenge that can be answered.
    pub(super) fn strongest<'a>(values: impl Iterator<Item = &'a str>) -> Option<Self> {
        values
            .filter_map(Self::parse)
            .reduce(|best, next| if next.algorithm > best.algorithm { next } else { best })
    }

    fn parse(value: &str) -> Option<Self> {
        let fields = parse(value)?;
        let get = |name| field(&fields, name);
        let offers =
            |list: &str, wanted: &str| list.split(',').any(|qop| qop.trim().eq_ignore_ascii_case(wanted));
        let qop = match get("qop") {
            None => None,
            // Whatever lies between may change a body, so it is covered only on demand.
            Some(list) if offers(list, "auth") => Some(Quality::Auth),
            Some(list) if offers(list, "auth-int") => Some(Quality::AuthInt),
            Some(_) => return None,
        };
        Some(Self {
            realm: get("realm")?.to_owned(),
            nonce: get("nonce")?.to_owned(),
            opaque: get("opaque").map(str::to_owned),
            algorithm: Algorithm::parse(get("algorithm").unwrap_or("MD5"))?,
            qop,
            stale: get("stale").is_some_and(|stale| stale.eq_ignore_ascii_case("true")),
        })
    }

    /// The `Authorization` value that answers it, for the `count`-th use of its nonce.
    pub(super) fn answer(
        &self,
        user: &str,
        secret: &Secret,
        request: &Covered<'_>,
        count: u32,
        cnonce: &str,
    ) -> Option<String> {
        let Covered { method, uri, body } = *request;
        let ha1 = secret.ha1(self.algorithm, user, &self.realm)?;
        let count = format!("{count:08x}");
        let (qop, covered) = match self.qop {
            None => (None, format!("{method}:{uri}")),
            Some(Quality::Auth) => (Some("auth"), format!("{method}:{uri}")),
            Some(Quality::AuthInt) => {
                (Some("auth-int"), format!("{method}:{uri}:{}", self.algorithm.hash_bytes(body)))
            }
        };
        let used = qop.map(|qop| (count.as_str(), cnonce, qop));
        let response = response(self.algorithm, &ha1, &self.nonce, used, &covered);
        let mut value = format!(
            "Digest username=\"{}\", realm=\"{}\", nonce=\"{}\", uri=\"{}\", response=\"{response}\", algorithm={}",
            escape(user),
            escape(&self.realm),
            escape(&self.nonce),
            escape(uri),
            self.algorithm.name()
        );
        if let Some(qop) = qop {
            value.push_str(&format!(", qop={qop}, nc={count}, cnonce=\"{cnonce}\""));
        }
        if let Some(opaque) = &self.opaque {
            value.push_str(&format!(", opaque=\"{}\"", escape(opaque)));
        }
        Some(value)
    }
}

/// Phones repeat the Request-URI in their credentials with or without its parameters; user
/// and host have to be the same (RFC 7616 section 3.4.6 leaves it to the server).
fn same_target(given: &str, request_uri: &str) -> bool {
    let parts = |text| Uri::parse(text).map(|uri| (uri.scheme, uri.user, uri.host));
    given == request_uri || parts(given).is_some_and(|given| Some(given) == parts(request_uri))
}

/// RFC 7616 section 3.4.1, over what the answer covers; without `qop` (then its count, our
/// nonce and itself) the older formula of RFC 2069.
fn response(
    algorithm: Algorithm,
    ha1: &str,
    nonce: &str,
    qop: Option<(&str, &str, &str)>,
    covered: &str,
) -> String {
    let ha2 = algorithm.hash(covered);
    match qop {
        Some((count, cnonce, qop)) => algorithm.hash(&format!("{ha1}:{nonce}:{count}:{cnonce}:{qop}:{ha2}")),
        None => algorithm.hash(&format!("{ha1}:{nonce}:{ha2}")),
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

fn field<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// `Digest name=value, name="value"`; `None` for any other scheme.
fn parse(value: &str) -> Option<Vec<(String, String)>> {
    let (scheme, rest) = value.trim().split_once(char::is_whitespace)?;
    if !scheme.eq_ignore_ascii_case("Digest") {
        return None;
    }
    let mut fields = Vec::new();
    let mut chars = rest.chars().peekable();
    loop {
        let name: String = std::iter::from_fn(|| chars.next_if(|c| *c != '=' && *c != ',')).collect();
        match chars.next() {
            Some('=') => {}
            Some(_) => continue,
            None => return Some(fields),
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let mut text = String::new();
        if chars.next_if_eq(&'"').is_some() {
            while let Some(c) = chars.next() {
                match c {
                    '"' => break,
                    '\\' => text.extend(chars.next()),
                    _ => text.push(c),
                }
            }
            while chars.next_if(|c| *c != ',').is_some() {}
        } else {
            text.extend(std::iter::from_fn(|| chars.next_if(|c| *c != ',')));
        }
        fields.push((name.trim().to_owned(), text.trim().to_owned()));
        chars.next();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret::Password(Pii::new("Circle of Life".to_owned()))
    }

    #[test]
    fn the_vectors_of_rfc_7616_come_out() {
        let nonce = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v";
        let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        for (algorithm, expected) in [
            (Algorithm::Md5, "8ca523f5e9506fed4657c9700eebdbec"),
            (Algorithm::Sha256, "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ] {
            let ha1 = secret().ha1(algorithm, "Mufasa", "http-auth@example.org").unwrap();
            let used = Some(("00000001", cnonce, "auth"));
            let given = response(algorithm, &ha1, nonce, used, "GET:/dir/index.html");
            assert_eq!(given, expected);
        }
    }

    #[test]
    fn sha_512_256_is_the_truncated_hash_with_its_own_start() {
        // The vector of FIPS 180-4 for "abc".
        assert_eq!(
            Algorithm::Sha512_256.hash("abc"),
            "53048e2681941ef99b2e29b76b4c7dabe4c2d0c634fc6d46e0e2f13107e7af23"
        );
    }

    #[test]
    fn auth_int_covers_the_body_and_is_chosen_only_where_auth_is_not_offered() {
        let ask = |qop: &str| {
            let text = format!("Digest realm=\"r\", nonce=\"n\", algorithm=SHA-256, qop=\"{qop}\"");
            let challenge = Challenge::parse(&text)?;
            let request = Covered { method: "REGISTER", uri: "sip:r", body: b"body" };
            challenge.answer("ann", &secret(), &request, 1, "c")
        };
        assert!(ask("auth,auth-int").unwrap().contains("qop=auth,"));
        let given = ask("auth-int").unwrap();
        let hash = |text: &str| Algorithm::Sha256.hash(text);
        let covered = hash(&format!("REGISTER:sip:r:{}", hash("body")));
        let ha1 = hash("ann:r:Circle of Life");
        let expected = hash(&format!("{ha1}:n:00000001:c:auth-int:{covered}"));
        assert!(given.contains(&expected) && given.contains("qop=auth-int, nc=00000001"), "{given}");
        assert_eq!(ask("auth-conf"), None);
    }

    #[test]
    fn a_phone_cannot_use_an_algorithm_that_it_was_not_challenged_with() {
        let mut fixture = Fixture::new();
        let answer = fixture.answer_with(Algorithm::Sha512_256, "ann", 1);
        assert_eq!(fixture.check(Now::from_millis(6), &answer), Verdict::Challenge { stale: false });
    }

    struct Fixture {
        server: Authenticator,
        secret: Secret,
        allow_md5: bool,
        source: IpAddr,
    }

    impl Fixture {
        fn new() -> Self {
            Self {
                server: Authenticator::new("edge".to_owned(), [7; 32]),
                secret: secret(),
                allow_md5: false,
                source: "192.0.2.1".parse().unwrap(),
            }
        }

        fn check(&mut self, now: Now, value: &str) -> Verdict {
            let account = Account { secret: &self.secret, allow_md5: self.allow_md5 };
            self.server.check(now, self.source, "REGISTER", "sip:edge", &[value], |user| {
                (user == "ann").then_some(account)
            })
        }

        fn answer(&self, user: &str, count: u32) -> String {
            self.answer_with(Algorithm::Sha256, user, count)
        }

        fn answer_with(&self, algorithm: Algorithm, user: &str, count: u32) -> String {
            let challenge = self.server.challenge(Now::from_millis(5), self.source, algorithm, false);
            let challenge = Challenge::parse(&challenge).unwrap();
            let request = Covered { method: "REGISTER", uri: "sip:edge", body: b"" };
            challenge.answer(user, &secret(), &request, count, "c").unwrap()
        }
    }

    #[test]
    fn right_credentials_pass_once_per_count() {
        let mut fixture = Fixture::new();
        let first = fixture.answer("ann", 1);
        assert_eq!(fixture.check(Now::from_millis(6), &first), Verdict::Known("ann".to_owned()));
        assert_eq!(fixture.check(Now::from_millis(7), &first), Verdict::Challenge { stale: true });
        let third = fixture.answer("ann", 3);
        assert_eq!(fixture.check(Now::from_millis(8), &third), Verdict::Known("ann".to_owned()));
        let late_second = fixture.answer("ann", 2);
        assert_eq!(fixture.check(Now::from_millis(9), &late_second), Verdict::Known("ann".to_owned()));
    }

    #[test]
    fn wrong_unknown_foreign_and_old_are_told_apart_only_inside() {
        let mut fixture = Fixture::new();
        let unknown = fixture.answer("eve", 1);
        assert_eq!(fixture.check(Now::from_millis(6), &unknown), Verdict::Wrong("eve".to_owned()));
        let tampered = fixture.answer("ann", 1).replace("uri=\"sip:edge\"", "uri=\"sip:other\"");
        assert_eq!(fixture.check(Now::from_millis(6), &tampered), Verdict::Wrong("ann".to_owned()));
        let old = fixture.answer("ann", 1);
        assert_eq!(fixture.check(Now::from_millis(301_000), &old), Verdict::Challenge { stale: true });
        for nonsense in ["NoOneKnowsThisScheme opaque-data=here", "Digest", "Digest ,,=,\"", ""] {
            assert_eq!(fixture.check(Now::from_millis(6), nonsense), Verdict::Challenge { stale: false });
        }
    }

    #[test]
    fn a_nonce_of_another_source_is_no_nonce() {
        let mut fixture = Fixture::new();
        let answer = fixture.answer("ann", 1);
        fixture.source = "192.0.2.2".parse().unwrap();
        assert_eq!(fixture.check(Now::from_millis(6), &answer), Verdict::Challenge { stale: false });
    }

    #[test]
    fn parameters_of_the_digest_uri_do_not_matter_but_its_target_does() {
        for (given, same) in [
            ("sip:a@h;transport=udp", true),
            ("sip:a@H:5060", true),
            ("sip:b@h", false),
            ("sip:a@other", false),
            ("nonsense", false),
        ] {
            assert_eq!(same_target(given, "sip:a@h"), same, "{given}");
        }
    }

    #[test]
    fn md5_is_for_listed_users_only() {
        let mut fixture = Fixture::new();
        let answer = fixture.answer_with(Algorithm::Md5, "ann", 1);
        assert_eq!(fixture.check(Now::from_millis(6), &answer), Verdict::Wrong("ann".to_owned()));
        fixture.allow_md5 = true;
        assert_eq!(fixture.check(Now::from_millis(6), &answer), Verdict::Known("ann".to_owned()));
    }

    #[test]
    fn the_strongest_challenge_is_answered() {
        let source = "192.0.2.1".parse().unwrap();
        let challenges = [Algorithm::Md5, Algorithm::Sha512_256, Algorithm::Sha256]
            .map(|algorithm| Fixture::new().server.challenge(Now::ZERO, source, algorithm, false));
        let chosen = Challenge::strongest(challenges.iter().map(String::as_str)).unwrap();
        assert_eq!(chosen.algorithm, Algorithm::Sha512_256);
    }
}
