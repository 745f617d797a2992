//! Judgements that many values share: names, numbers in a range, URLs, networks and secrets.

use core::fmt::Display;
use core::ops::{Range, RangeInclusive};
use core::str::FromStr;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::Uri;
use ipnet::IpNet;
use toml::Spanned;

use super::Checker;
use crate::config::{Problem, Secret, line_at};

/// The two ways to give a secret, as found in a table.
pub(super) struct SecretSource<'a> {
    /// Name of the key without `_file`.
    pub(super) key: &'static str,
    pub(super) inline: Option<&'a Spanned<String>>,
    pub(super) file: Option<&'a Spanned<PathBuf>>,
}

/// What many values have in common.
impl Checker<'_> {
    pub(super) fn line(&self, place: &Range<usize>) -> usize {
        line_at(self.text, place.start)
    }

    pub(super) fn refuse(&mut self, place: &Range<usize>, why: impl Into<String>) {
        let line = Some(self.line(place));
        self.problems.push(Problem { line, message: why.into() });
    }

    pub(super) fn warn(&mut self, place: &Range<usize>, why: impl Into<String>) {
        let line = Some(self.line(place));
        self.warnings.push(Problem { line, message: why.into() });
    }

    pub(super) fn bounded(&mut self, table: &str, count: usize, allowed: RangeInclusive<usize>) {
        if !allowed.contains(&count) {
            let message =
                format!("[[{table}]]: {count} found, {} to {} allowed", allowed.start(), allowed.end());
            self.problems.push(Problem { line: None, message });
        }
    }

    pub(super) fn unique(&mut self, seen: &mut BTreeSet<String>, field: &Spanned<String>, what: &str) {
        if !seen.insert(field.get_ref().clone()) {
            self.refuse(&field.span(), format!("{what} \"{}\" is there twice", field.get_ref()));
        }
    }

    pub(super) fn parsed<T>(&mut self, field: &Spanned<String>, key: &str) -> Option<T>
    where
        T: Parse,
    {
        match T::parse(field.get_ref()) {
            Ok(value) => Some(value),
            Err(why) => {
                self.refuse(&field.span(), format!("{key}: {why}"));
                None
            }
        }
    }

    /// A short name that may appear in records: visible, without quotes or controls.
    pub(super) fn name(
        &mut self,
        field: Option<&Spanned<String>>,
        key: &str,
        default: &str,
    ) -> Option<String> {
        let Some(field) = field else { return Some(default.to_owned()) };
        let name = field.get_ref();
        let visible = name.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | ' '));
        if name.trim().is_empty() || name.chars().count() > NAME_LEN_MAX || !visible {
            let why = format!("{key} must be 1 to {NAME_LEN_MAX} letters, digits, spaces or . _ -");
            self.refuse(&field.span(), why);
            return None;
        }
        Some(name.clone())
    }

    pub(super) fn lang(&mut self, field: Option<&Spanned<String>>, default: &str) -> Option<String> {
        let Some(field) = field else { return Some(default.to_owned()) };
        if is_language_tag(field.get_ref()) {
            return Some(field.get_ref().clone());
        }
        self.refuse(&field.span(), "lang must be a BCP 47 tag such as \"en\" or \"en-US\"");
        None
    }

    /// One of the named choices; the first is the default.
    pub(super) fn choice<T: Copy>(
        &mut self,
        field: Option<&Spanned<String>>,
        key: &str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let Some(field) = field else { return choices.first().map(|(_, value)| *value) };
        let found = choices.iter().find(|(name, _)| name == field.get_ref()).map(|(_, value)| *value);
        if found.is_none() {
            let names: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            let why = format!("{key} is \"{}\": choose {}", field.get_ref(), names.join(" or "));
            self.refuse(&field.span(), why);
        }
        found
    }

    pub(super) fn in_range(
        &mut self,
        field: Option<&Spanned<i64>>,
        key: &str,
        allowed: RangeInclusive<u32>,
        default: u32,
    ) -> Option<u32> {
        let Some(field) = field else { return Some(default) };
        let value = u32::try_from(*field.get_ref()).ok().filter(|value| allowed.contains(value));
        if value.is_none() {
            let why =
                format!("{key} is {}: {} to {} allowed", field.get_ref(), allowed.start(), allowed.end());
            self.refuse(&field.span(), why);
        }
        value
    }

    /// An absolute URL with a host and without credentials.
    pub(super) fn url(&mut self, field: &Spanned<String>, key: &str) -> Option<Uri> {
        let uri = Uri::from_str(field.get_ref()).ok();
        let usable = uri.filter(|uri| {
            let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
            uri.scheme().is_some()
                && uri.host().is_some_and(|host| !host.is_empty())
                && !authority.contains('@')
        });
        if usable.is_none() {
            self.refuse(
                &field.span(),
                format!("{key} must be an absolute URL without user name and password"),
            );
        }
        usable
    }

    pub(super) fn network(&mut self, field: &Spanned<String>) -> Option<IpNet> {
        let text = field.get_ref();
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok();
        if network.is_none() {
            self.refuse(
                &field.span(),
                format!("\"{text}\" is neither an address nor a network (192.0.2.0/24)"),
            );
        }
        network.map(|network| network.trunc())
    }

    /// A secret from its file, or from the configuration itself with a warning.
    pub(super) fn secret(&mut self, source: SecretSource<'_>) -> Option<Secret> {
        let key = source.key;
        let (text, place) = match (source.inline, source.file) {
            (Some(inline), Some(_)) => {
                self.refuse(&inline.span(), format!("give {key} or {key}_file, not both"));
                return None;
            }
            (None, None) => return None,
            (Some(inline), None) => {
                self.warn(
                    &inline.span(),
                    format!("{key} is written into this file: {key}_file keeps it out"),
                );
                (inline.get_ref().clone(), inline.span())
            }
            (None, Some(file)) => match (self.read)(file.get_ref()) {
                Ok(text) => (text, file.span()),
                Err(error) => {
                    let why = format!("{key}_file {} cannot be read: {error}", file.get_ref().display());
                    self.refuse(&file.span(), why);
                    return None;
                }
            },
        };
        let trimmed = text.trim_end_matches(['\r', '\n']);
        if trimmed.is_empty() {
            self.refuse(&place, format!("{key} is empty"));
            return None;
        }
        Some(Secret::new(trimmed.as_bytes().to_vec()))
    }

    /// A bearer token: long enough that it cannot be guessed, and fit for a header.
    pub(super) fn token(&mut self, source: SecretSource<'_>) -> Option<Secret> {
        let (key, place) = (source.key, source.place());
        let secret = self.secret(source)?;
        let fits = secret.reveal().iter().all(u8::is_ascii_graphic);
        if secret.reveal().len() < TOKEN_LEN_MIN || secret.reveal().len() > TOKEN_LEN_MAX || !fits {
            let why = format!("{key} must be {TOKEN_LEN_MIN} to {TOKEN_LEN_MAX} visible ASCII characters");
            self.refuse(&place, why);
            return None;
        }
        Some(secret)
    }

    /// A key of 32 bytes, in base64.
    pub(super) fn key(&mut self, source: SecretSource<'_>) -> Option<Secret> {
        let (key, place) = (source.key, source.place());
        let secret = self.secret(source)?;
        match BASE64.decode(secret.reveal()) {
            Ok(bytes) if bytes.len() == KEY_LEN => Some(Secret::new(bytes)),
            Ok(_) | Err(_) => {
                self.refuse(&place, format!("{key} must be {KEY_LEN} bytes in base64"));
                None
            }
        }
    }
}

impl SecretSource<'_> {
    pub(super) const fn is_given(&self) -> bool {
        self.inline.is_some() || self.file.is_some()
    }

    pub(super) fn place(&self) -> Range<usize> {
        self.inline.map(Spanned::span).or_else(|| self.file.map(Spanned::span)).unwrap_or_default()
    }
}

/// Text that becomes a value, with a reason where it cannot.
pub(super) trait Parse: Sized {
    fn parse(text: &str) -> Result<Self, String>;
}

macro_rules! parse_by {
    ($($kind:ty => $by:expr, $what:literal;)*) => {
        $(impl Parse for $kind {
            fn parse(text: &str) -> Result<Self, String> {
                $by(text).map_err(|error| reason(text, &error, $what))
            }
        })*
    };
}

parse_by! {
    handoff::id::EdgeId => Self::parse, "";
    handoff::id::TenantId => Self::parse, "";
    handoff::id::HumanAgentId => Self::parse, "";
    handoff::id::QueueId => Self::parse, "";
    handoff::id::DestinationId => Self::parse, "";
    SocketAddr => Self::from_str, "address and port, such as 0.0.0.0:5060";
    IpAddr => Self::from_str, "an IP address";
}

fn reason(text: &str, error: &dyn Display, wanted: &str) -> String {
    if wanted.is_empty() { format!("\"{text}\": {error}") } else { format!("\"{text}\" is not {wanted}") }
}

/// The address where a URL names one directly.
pub(super) fn literal_ip(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Whether `text` has the form of a BCP 47 tag.
pub(super) fn is_language_tag(text: &str) -> bool {
    let subtags_fit = text.split('-').enumerate().all(|(index, subtag)| {
        let length = if index == 0 { 2..=3 } else { 2..=8 };
        length.contains(&subtag.len()) && subtag.bytes().all(|byte| byte.is_ascii_alphanumeric())
    });
    subtags_fit && text.len() <= LANG_LEN_MAX
}

/// Fits a screen and a record.
pub(super) const NAME_LEN_MAX: usize = 64;
/// The payload's limit for `locale`.
const LANG_LEN_MAX: usize = 16;
/// Below this a token could be searched for.
const TOKEN_LEN_MIN: usize = 24;
/// Above this it no longer fits a header beside others.
const TOKEN_LEN_MAX: usize = 256;
/// As long as the digest of HMAC-SHA-256.
const KEY_LEN: usize = 32;
