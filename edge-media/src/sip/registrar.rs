//! The registrar's bindings (RFC 3261 section 10.3): which contacts a user has, over which
//! flow, until when. It authenticates nobody: the stack does before it asks. A malformed
//! Contact changes nothing at all.

use std::collections::BTreeMap;
use std::time::Duration;

use handoff::clock::Now;

use super::header::{Address, Uri};
use super::message::{Contacts, Request};
use super::{Flow, Transport};

/// Most contacts of one user.
const CONTACTS_MAX: usize = 10;
/// Shorter registrations are refused with 423: they are load, not presence.
pub(super) const EXPIRES_MIN_SECS: u32 = 60;
/// Longer ones are shortened, so that a dead phone is forgotten within the hour.
const EXPIRES_MAX_SECS: u32 = 3_600;

/// One contact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Binding {
    /// What the Request-URI to it will be.
    pub(super) contact: Uri,
    /// How it registered, and so how it is reached: a NAT lets nothing else through.
    pub(super) flow: Flow,
    expires_at: Now,
    identity: Identity,
    call_id: String,
    cseq: u32,
    /// Grows with every registration; the highest is the newest.
    order: u64,
}

/// RFC 5626 section 6: what makes a binding the same binding.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Identity {
    Contact(String),
    Instance(String, String),
}

/// Why a REGISTER changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("refused with {status}")]
pub(super) struct Refusal {
    /// 400, 403, 423 or 500.
    pub(super) status: u16,
}

/// All bindings of all users.
#[derive(Debug, Default)]
pub(super) struct Registrar {
    users: BTreeMap<String, Vec<Binding>>,
    orders: u64,
}

impl Registrar {
    /// Applies a REGISTER that `user` was allowed to send. All of it or nothing.
    pub(super) fn apply(
        &mut self,
        now: Now,
        user: &str,
        flow: Flow,
        request: &Request,
    ) -> Result<(), Refusal> {
        let refuse = |status| Err(Refusal { status });
        let default = request.head.number("Expires").unwrap_or(EXPIRES_MAX_SECS);
        let Some(contacts) = request.head.contacts() else {
            return refuse(400);
        };
        let mut bindings = self.users.get(user).cloned().unwrap_or_default();
        let contacts = match contacts {
            Contacts::Wildcard if request.head.number("Expires") == Some(0) => {
                self.users.remove(user);
                return Ok(());
            }
            Contacts::Wildcard => return refuse(400),
            Contacts::List(contacts) => contacts,
        };
        for contact in contacts {
            if !contact.uri.is_sip() || contact.uri.has_headers {
                return refuse(400);
            }
            let expires = match contact.param("expires").flatten() {
                Some(text) => text.parse().unwrap_or(EXPIRES_MAX_SECS),
                None => default,
            };
            let identity = identity(&contact);
            let known = bindings.iter().position(|binding| binding.identity == identity);
            if let Some(old) = known.and_then(|index| bindings.get(index))
                && old.call_id == request.head.call_id
                && request.head.cseq <= old.cseq
            {
                return refuse(500);
            }
            if let Some(index) = known {
                bindings.remove(index);
            }
            if expires == 0 {
                continue;
            }
            if expires < EXPIRES_MIN_SECS {
                return refuse(423);
            }
            if bindings.len() >= CONTACTS_MAX {
                return refuse(403);
            }
            self.orders += 1;
            bindings.push(Binding {
                contact: contact.uri,
                flow,
                expires_at: now + Duration::from_secs(expires.min(EXPIRES_MAX_SECS).into()),
                identity,
                call_id: request.head.call_id.clone(),
                cseq: request.head.cseq,
                order: self.orders,
            });
        }
        self.store(user, bindings);
        Ok(())
    }

    /// Fresh bindings, newest first.
    pub(super) fn bindings(&self, now: Now, user: &str) -> Vec<Binding> {
        let all = self.users.get(user).map(Vec::as_slice).unwrap_or_default();
        let mut fresh: Vec<Binding> =
            all.iter().filter(|binding| binding.expires_at > now).cloned().collect();
        fresh.sort_by_key(|binding| std::cmp::Reverse(binding.order));
        fresh
    }

    /// How many contacts a user has.
    pub(super) fn count(&self, user: &str) -> usize {
        self.users.get(user).map_or(0, Vec::len)
    }

    /// Drops what has expired; tells whose contacts changed.
    pub(super) fn handle_timeout(&mut self, now: Now) -> Vec<String> {
        self.retain(|_, binding| binding.expires_at > now)
    }

    /// Bindings over a connection end with it.
    pub(super) fn connection_closed(&mut self, flow: Flow) -> Vec<String> {
        self.retain(|_, binding| binding.flow != flow)
    }

    /// Bindings of users who are no longer configured end.
    pub(super) fn reload(&mut self, known: impl Fn(&str) -> bool) -> Vec<String> {
        self.retain(|user, _| known(user))
    }

    /// Whether somebody who proved who they are is reached over this flow.
    pub(super) fn has(&self, flow: Flow) -> bool {
        self.users.values().flatten().any(|binding| binding.flow == flow)
    }

    /// UDP flows that a NAT would forget.
    pub(super) fn udp_flows(&self) -> Vec<Flow> {
        let all = self.users.values().flatten().map(|binding| binding.flow);
        all.filter(|flow| flow.transport == Transport::Udp).collect()
    }

    /// When the next binding expires.
    pub(super) fn next_timeout(&self) -> Option<Now> {
        self.users.values().flatten().map(|binding| binding.expires_at).min()
    }

    fn retain(&mut self, keep: impl Fn(&str, &Binding) -> bool) -> Vec<String> {
        let mut changed = Vec::new();
        for (user, bindings) in &mut self.users {
            let before = bindings.len();
            bindings.retain(|binding| keep(user, binding));
            if bindings.len() != before {
                changed.push(user.clone());
            }
        }
        self.users.retain(|_, bindings| !bindings.is_empty());
        changed
    }

    fn store(&mut self, user: &str, bindings: Vec<Binding>) {
        if bindings.is_empty() {
            self.users.remove(user);
        } else {
            self.users.insert(user.to_owned(), bindings);
        }
    }
}

impl Binding {
    /// As the 200 to a REGISTER lists it.
    pub(super) fn contact(&self, now: Now) -> Address {
        let left = self.expires_at.since(now).as_secs().to_string();
        Address { display: None, uri: self.contact.clone(), params: vec![("expires".to_owned(), Some(left))] }
    }
}

fn identity(contact: &Address) -> Identity {
    match contact.param("+sip.instance").flatten() {
        Some(instance) => {
            let flow = contact.param("reg-id").flatten().unwrap_or_default();
            Identity::Instance(instance.to_owned(), flow.to_owned())
        }
        None => Identity::Contact(contact.uri.text.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::tests::request;
    use super::*;

    fn flow(transport: Transport, port: u16) -> Flow {
        Flow { transport, peer: format!("192.0.2.1:{port}").parse().unwrap(), connection: 0 }
    }

    fn register(registrar: &mut Registrar, now: u64, cseq: u32, lines: &str) -> Result<(), u16> {
        let request = request("REGISTER", "sip:edge", cseq, lines);
        let flow = flow(Transport::Udp, 5060);
        registrar.apply(Now::from_millis(now), "ann", flow, &request).map_err(|refusal| refusal.status)
    }

    fn contacts(registrar: &Registrar, now: u64) -> Vec<String> {
        let bindings = registrar.bindings(Now::from_millis(now), "ann");
        bindings.into_iter().map(|binding| binding.contact.text).collect()
    }

    #[test]
    fn contacts_are_added_refreshed_removed_and_the_newest_is_first() {
        let mut registrar = Registrar::default();
        assert_eq!(
            register(&mut registrar, 0, 1, "Contact: <sip:a@h>, <sip:b@h>\r\nExpires: 100\r\n"),
            Ok(())
        );
        assert_eq!(contacts(&registrar, 1), ["sip:b@h", "sip:a@h"]);
        assert_eq!(register(&mut registrar, 50_000, 2, "Contact: <sip:a@h>;expires=100\r\n"), Ok(()));
        assert_eq!(contacts(&registrar, 50_001), ["sip:a@h", "sip:b@h"]);
        assert_eq!(contacts(&registrar, 100_001), ["sip:a@h"], "b has expired");
        assert_eq!(registrar.handle_timeout(Now::from_millis(100_001)), ["ann"]);
        assert_eq!(register(&mut registrar, 100_002, 3, "Contact: <sip:a@h>;expires=0\r\n"), Ok(()));
        assert_eq!(contacts(&registrar, 100_003), Vec::<String>::new());
    }

    #[test]
    fn what_is_wrong_changes_nothing() {
        let mut registrar = Registrar::default();
        register(&mut registrar, 0, 5, "Contact: <sip:a@h>\r\n").unwrap();
        let eleven: String = (0..11).map(|n| format!("Contact: <sip:{n}@h>\r\n")).collect();
        for (cseq, lines, status) in [
            (6, "Contact: *\r\n", 400),
            (6, "Contact: *\r\nExpires: 60\r\n", 400),
            (6, "Contact: <sip:x@h>;expires=59\r\n", 423),
            (6, "Contact: <tel:+15555550142>\r\n", 400),
            (6, "Contact: <sip:x@h?Route=%3Csip:evil%3E>\r\n", 400),
            (5, "Contact: <sip:a@h>;expires=0\r\n", 500),
            (6, eleven.as_str(), 403),
        ] {
            assert_eq!(register(&mut registrar, 1, cseq, lines), Err(status), "{lines}");
            assert_eq!(contacts(&registrar, 2), ["sip:a@h"], "{lines}");
        }
        assert_eq!(register(&mut registrar, 3, 6, "Contact: *\r\nExpires: 0\r\n"), Ok(()));
        assert_eq!(registrar.count("ann"), 0);
    }

    #[test]
    fn a_device_that_moves_keeps_one_binding() {
        let mut registrar = Registrar::default();
        for (cseq, host) in [(1, "old"), (2, "new")] {
            let lines = format!("Contact: <sip:a@{host}>;+sip.instance=\"<urn:uuid:1>\";reg-id=1\r\n");
            register(&mut registrar, 0, cseq, &lines).unwrap();
        }
        assert_eq!(contacts(&registrar, 1), ["sip:a@new"]);
    }

    #[test]
    fn a_binding_over_tcp_ends_with_its_connection() {
        let mut registrar = Registrar::default();
        let tcp = flow(Transport::Tcp, 40_000);
        let request = request("REGISTER", "sip:edge", 1, "Contact: <sip:a@h>\r\n");
        registrar.apply(Now::ZERO, "ann", tcp, &request).unwrap();
        assert_eq!(registrar.connection_closed(flow(Transport::Tcp, 40_001)), Vec::<String>::new());
        assert_eq!(registrar.connection_closed(tcp), ["ann"]);
        assert_eq!(registrar.next_timeout(), None);
    }

    #[test]
    fn escaped_nulls_are_distinct_contacts() {
        let mut registrar = Registrar::default();
        register(&mut registrar, 0, 1, "Contact: <sip:%00@h>, <sip:%00%00@h>\r\n").unwrap();
        assert_eq!(registrar.count("ann"), 2);
    }
}
