//! Connections whose far end has shown a certificate, and those whose far end should have (RFC
//! 5922): who is no trunk here is not talked to. Certificates are verified elsewhere; here are
//! their names alone.

use super::stack::{STREAMS_MAX, Stack};
use super::trunk::CertificateFault;
use super::{Flow, SipOutput};

/// Names of one certificate that are looked at: a trunk's has a handful.
const NAMES_MAX: usize = 32;
/// Faults of certificates that wait to be told of; they are taken after each input.
const CERTIFICATE_FAULTS_MAX: usize = 16;

impl Stack {
    /// The far end of a connection has shown a certificate with these names, and somebody has
    /// verified it; where we `dialled`, also that it has the name that was dialled. Comes before
    /// the first byte of the connection.
    #[must_use = "outputs are the only effect a stack has"]
    pub fn vouched(&mut self, flow: Flow, names: Vec<String>, dialled: bool) -> Vec<SipOutput> {
        self.vouch(flow, names, dialled);
        std::mem::take(&mut self.out)
    }

    /// Whose certificates were not taken since this was asked last.
    pub fn take_certificate_faults(&mut self) -> Vec<CertificateFault> {
        std::mem::take(&mut self.certificate_faults)
    }

    fn vouch(&mut self, flow: Flow, mut names: Vec<String>, dialled: bool) {
        names.truncate(NAMES_MAX);
        if self.config.vouched.len() >= STREAMS_MAX {
            self.counters.count("streams_full");
            self.close(flow);
            return;
        }
        self.config.vouched.insert(flow, names.clone());
        // Phones show no certificate to whom they dial, so this is a trunk's, and of none here.
        if !dialled && self.config.trunk(flow).is_none() {
            self.counters.count("certificate_of_nobody");
            self.blame(CertificateFault::Unknown { names });
            self.close(flow);
        }
    }

    /// Whether a connection comes from where a trunk is, without the trunk's certificate: then
    /// it is closed. A datagram proves nothing about its sender, and is a stranger's.
    pub(super) fn refuses_uncertified(&mut self, flow: Flow) -> bool {
        if !flow.transport.is_stream() || self.registrar.has(flow) {
            return false;
        }
        let Some(trunk) = self.config.lacking(flow).map(|trunk| trunk.name.clone()) else {
            return false;
        };
        self.counters.count("trunk_without_certificate");
        self.blame(CertificateFault::Lacking { trunk });
        self.close(flow);
        true
    }

    fn blame(&mut self, fault: CertificateFault) {
        if self.certificate_faults.len() < CERTIFICATE_FAULTS_MAX {
            self.certificate_faults.push(fault);
        }
    }
}
