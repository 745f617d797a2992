//! `[[trunk]]`: whose calls are taken, and what is kept up with the carrier. A trunk is known
//! by its addresses; one that registers may leave them out and is then known by those of its
//! servers. Nothing is resolved here.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;
use toml::Spanned;

use super::Checker;
use super::values::SecretSource;
use crate::config::document::TrunkTable;
use crate::config::{Trunk, TrunkAccount, TrunkUplink};
use crate::sip::{EXPIRES_MAX_SECS, Rel100, Server, account_of};

impl Checker<'_> {
    pub(super) fn trunks(&mut self, tables: &[TrunkTable], allow_loopback: bool) -> Vec<Trunk> {
        let mut names = BTreeSet::new();
        let mut taken: Vec<(IpNet, String)> = Vec::new();
        let mut trunks = Vec::new();
        for table in tables {
            self.unique(&mut names, &table.name, "trunk");
            let name = self.name(Some(&table.name), "name", "");
            let call_type = table.call_type.as_ref().map(|field| self.name(Some(field), "call_type", ""));
            let uplink = self.uplink(table);
            let addresses = self.addresses(table, allow_loopback, &mut taken);
            let calls_max = self.limit(table.calls_max.as_ref(), "calls_max", CALLS_MAX);
            let calls_per_s = self.limit(table.calls_per_s.as_ref(), "calls_per_s", CALLS_PER_S);
            let rel100 = self.choice(table.rel100.as_ref(), "100rel", &REL100);
            let srtp = self.srtp(table.srtp.as_ref(), "srtp");
            if let (Some(name), Some(call_type), Some(rel100), Some(srtp)) =
                (name, call_type.map_or(Some(None), |given| given.map(Some)), rel100, srtp)
            {
                trunks.push(Trunk {
                    name,
                    addresses,
                    call_type,
                    calls_max,
                    calls_per_s,
                    rel100,
                    srtp,
                    uplink,
                });
            }
        }
        trunks
    }

    /// A limit that there may be.
    fn limit(
        &mut self,
        field: Option<&Spanned<i64>>,
        key: &str,
        allowed: RangeInclusive<u32>,
    ) -> Option<u32> {
        let least = *allowed.start();
        field.and_then(|field| self.in_range(Some(field), key, allowed, least))
    }

    fn addresses(
        &mut self,
        table: &TrunkTable,
        allow_loopback: bool,
        taken: &mut Vec<(IpNet, String)>,
    ) -> Vec<IpNet> {
        let given = table.addresses.as_ref();
        match given {
            Some(given) if given.get_ref().is_empty() => {
                self.refuse(&given.span(), "a trunk without addresses could never call");
            }
            None if table.register.is_none() => {
                self.refuse(&table.name.span(), "a trunk needs addresses, or register");
            }
            Some(_) | None => {}
        }
        let mut addresses = Vec::new();
        for field in given.map(|given| given.get_ref().as_slice()).unwrap_or_default() {
            let Some(net) = self.network(field) else { continue };
            let wide = if net.addr().is_ipv4() { PREFIX_MIN_V4 } else { PREFIX_MIN_V6 };
            if net.prefix_len() < wide {
                let why = format!("{net} is wider than /{wide}: a trunk may not be half the internet");
                self.refuse(&field.span(), why);
            }
            if net.addr().is_loopback() && !allow_loopback {
                self.refuse(&field.span(), format!("{net} is loopback without [edge] allow_loopback"));
            }
            if let Some((_, other)) =
                taken.iter().find(|(other, _)| other.contains(&net) || net.contains(other))
            {
                let why = format!("{net} belongs to trunk \"{other}\" already");
                self.refuse(&field.span(), why);
            }
            taken.push((net, table.name.get_ref().clone()));
            addresses.push(net);
        }
        addresses
    }

    /// What is kept up with the carrier, if anything.
    fn uplink(&mut self, table: &TrunkTable) -> Option<TrunkUplink> {
        let registrar = table.register.as_ref().and_then(|field| {
            let account = account_of(field.get_ref());
            if account.is_none() {
                self.refuse(&field.span(), "register is not like \"sip:user@registrar.example\"");
            }
            account
        });
        let account = registrar.as_ref().and_then(|(user, server)| self.account(table, user, server));
        let alone = [
            ("auth_user", table.auth_user.as_ref().map(Spanned::span)),
            ("password", table.password.as_ref().map(Spanned::span)),
            ("password_file", table.password_file.as_ref().map(Spanned::span)),
            ("expires_s", table.expires_s.as_ref().map(Spanned::span)),
        ];
        for (key, place) in alone {
            if let (Some(place), None) = (place, &table.register) {
                self.refuse(&place, format!("{key} is for a trunk that registers: it needs register"));
            }
        }
        let seconds = table
            .options_s
            .as_ref()
            .and_then(|field| self.in_range(Some(field), "options_s", OPTIONS_S, *OPTIONS_S.start()));
        let proxies = self.proxies(table);
        if let (Some(field), None, true) = (&table.options_s, &table.register, proxies.is_empty()) {
            self.refuse(&field.span(), "options_s needs a server to ask: register, or proxies");
        }
        if let (Some(field), None, None) = (&table.proxies, &table.register, &table.options_s) {
            self.refuse(&field.span(), "proxies are asked for register or options_s: give one of them");
        }
        let servers = match (proxies.is_empty(), registrar) {
            (true, Some((_, server))) => vec![server],
            (_, _) => proxies,
        };
        if table.register.is_none() && table.options_s.is_none() {
            return None;
        }
        Some(TrunkUplink {
            account,
            servers,
            options: seconds.map(|seconds| Duration::from_secs(seconds.into())),
        })
    }

    fn account(&mut self, table: &TrunkTable, user: &str, server: &Server) -> Option<TrunkAccount> {
        let place = table.register.as_ref().map(Spanned::span).unwrap_or_default();
        let source = SecretSource {
            key: "password",
            inline: table.password.as_ref(),
            file: table.password_file.as_ref(),
        };
        let given = source.inline.is_some() || source.file.is_some();
        let password = self.secret(source);
        if !given {
            self.refuse(&place, "a trunk that registers needs password_file (or password)");
        }
        let auth_user = self.name(table.auth_user.as_ref(), "auth_user", user)?;
        let expires = self.in_range(table.expires_s.as_ref(), "expires_s", EXPIRES_S, EXPIRES_DEFAULT_S)?;
        Some(TrunkAccount {
            user: user.to_owned(),
            domain: server.host.clone(),
            port: server.port,
            auth_user,
            password: password?,
            expires_s: expires,
        })
    }

    fn proxies(&mut self, table: &TrunkTable) -> Vec<Server> {
        let Some(field) = &table.proxies else { return Vec::new() };
        if !(1..=PROXIES_MAX).contains(&field.get_ref().len()) {
            self.refuse(&field.span(), format!("proxies: 1 to {PROXIES_MAX} servers"));
        }
        let mut proxies = Vec::new();
        for entry in field.get_ref() {
            match Server::parse(entry.get_ref()) {
                Some(server) => proxies.push(server),
                None => self.refuse(
                    &entry.span(),
                    "proxies are hosts such as \"sip1.example\" or \"192.0.2.1:5060\"",
                ),
            }
        }
        proxies
    }
}

/// The first is the default: it asks nothing of a carrier and gives what one may ask.
const REL100: [(&str, Rel100); 3] =
    [("supported", Rel100::Supported), ("off", Rel100::Off), ("require", Rel100::Require)];
/// Nobody is assigned more at once; a shorter prefix is a mistake.
const PREFIX_MIN_V4: u8 = 8;
/// The same for IPv6.
const PREFIX_MIN_V6: u8 = 19;
/// Carriers have two to four points of presence; each costs half a minute when it is silent.
const PROXIES_MAX: usize = 8;
/// Shorter is a load for the carrier, longer finds a dead contact only after a day.
const EXPIRES_S: RangeInclusive<u32> = 60..=EXPIRES_MAX_SECS;
/// Ten minutes: a carrier that lost its table has our contact back soon.
const EXPIRES_DEFAULT_S: u32 = 600;
/// Shorter than ten seconds is a load, longer than ten minutes no watch.
const OPTIONS_S: RangeInclusive<u32> = 10..=600;
/// The edge refuses more than a thousand by itself.
const CALLS_MAX: RangeInclusive<u32> = 1..=1_000;
/// Above it there is no limit: signalling takes more than that on one core.
const CALLS_PER_S: RangeInclusive<u32> = 1..=1_000;
