//! SRV and NAPTR records by the machine's name servers; the only file that names the resolver.
//! Addresses are not its business: the system's own resolver knows hosts files as well.

use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::{Name, RData, RecordType};

use crate::sip::{Naptr, Srv};

/// One question takes at most this long: the time in which a resolver tries its first server.
const QUESTION_MAX: Duration = Duration::from_secs(5);
/// Records that are looked at of one answer.
const RECORDS_MAX: usize = 64;

/// Asks the name servers that this machine is configured with.
pub(super) struct Dns(Option<TokioResolver>);

impl Dns {
    /// By `/etc/resolv.conf` as it is now. Without one that can be read nothing is found.
    pub(super) fn of_system() -> Self {
        Self(TokioResolver::builder_tokio().ok().and_then(|builder| builder.build().ok()))
    }

    /// The SRV records of a name; none where there are none, or nobody answers.
    pub(super) async fn srv(&self, name: &str) -> Vec<Srv> {
        let records = self.ask(name, RecordType::SRV).await;
        let srv = records.into_iter().filter_map(|data| {
            let RData::SRV(srv) = data else { return None };
            let (priority, weight, port) = (srv.priority, srv.weight, srv.port);
            Some(Srv { priority, weight, port, target: plain(&srv.target) })
        });
        srv.collect()
    }

    /// The NAPTR records of a domain.
    pub(super) async fn naptr(&self, domain: &str) -> Vec<Naptr> {
        let records = self.ask(domain, RecordType::NAPTR).await;
        let naptr = records.into_iter().filter_map(|data| {
            let RData::NAPTR(naptr) = data else { return None };
            Some(Naptr {
                order: naptr.order,
                preference: naptr.preference,
                flags: String::from_utf8_lossy(&naptr.flags).into_owned(),
                services: String::from_utf8_lossy(&naptr.services).into_owned(),
                replacement: plain(&naptr.replacement),
            })
        });
        naptr.collect()
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Vec<RData> {
        let Some(resolver) = &self.0 else { return Vec::new() };
        // A dot at its end: the machine's search list is not for carriers.
        let name = format!("{}.", name.trim_end_matches('.'));
        match tokio::time::timeout(QUESTION_MAX, resolver.lookup(name, kind)).await {
            Ok(Ok(found)) => {
                found.answers().iter().take(RECORDS_MAX).map(|record| record.data.clone()).collect()
            }
            Ok(Err(_)) | Err(_) => Vec::new(),
        }
    }
}

/// A name as everybody writes it.
fn plain(name: &Name) -> String {
    name.to_utf8().trim_end_matches('.').to_owned()
}
