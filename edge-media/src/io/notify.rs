//! What the service manager is told (sd_notify of systemd): ready, alive, stopping. It is told
//! that the edge is alive only when the loop itself has answered, so that a loop that stands is
//! restarted. Where no manager listens, nothing is sent.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tracing::warn;

/// Between two signs of life where the manager asks for none: rare enough to cost nothing.
const UNASKED: Duration = Duration::from_secs(60);

/// The service manager, where there is one.
#[derive(Debug)]
pub(super) struct Manager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Manager {
    /// The manager that the environment names.
    pub(super) fn of_environment() -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        Self::at(variable("NOTIFY_SOCKET").as_deref(), variable("WATCHDOG_USEC").as_deref())
    }

    fn at(socket: Option<&str>, watchdog_usec: Option<&str>) -> Self {
        let socket = socket.map(|path| match opened(path) {
            Ok(socket) => Some(socket),
            Err(error) => {
                warn!(kind = ?error.kind(), "the service manager cannot be told anything");
                None
            }
        });
        let watchdog = watchdog_usec.and_then(|usec| usec.parse().ok()).map(Duration::from_micros);
        Self { socket: socket.flatten(), watchdog }
    }

    /// How often it wants a sign of life: twice within the time after which it acts.
    pub(super) fn interval(&self) -> Duration {
        self.watchdog.map_or(UNASKED, |watchdog| (watchdog / 2).max(Duration::from_millis(10)))
    }

    /// Calls can come.
    pub(super) fn ready(&self) {
        self.tell("READY=1");
    }

    /// The loop has answered.
    pub(super) fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// No new calls; the running ones may take `grace`.
    pub(super) fn stopping(&self, grace: Duration) {
        self.tell(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}", grace.as_micros()));
    }

    /// The loop ends now and answers no more; what is left to do has a limit of its own.
    pub(super) fn finishing(&self) {
        if self.watchdog.is_some() {
            self.tell(&format!("WATCHDOG_USEC={}", UNASKED.as_micros()));
        }
    }

    fn tell(&self, state: &str) {
        if let Some((socket, manager)) = &self.socket
            && let Err(error) = socket.send_to_addr(state.as_bytes(), manager)
        {
            warn!(kind = ?error.kind(), "the service manager was not told");
        }
    }
}

/// A path, or a name of the abstract namespace behind an `@`.
fn opened(path: &str) -> io::Result<(UnixDatagram, SocketAddr)> {
    let manager = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, manager))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_manager_hears_ready_alive_and_stopping() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let listening = UnixDatagram::bind(&path).unwrap();
        let manager = Manager::at(path.to_str(), Some("5000000"));
        assert_eq!(manager.interval(), Duration::from_millis(2_500));
        manager.ready();
        manager.alive();
        manager.stopping(Duration::from_secs(900));
        assert_eq!(heard(&listening), "READY=1");
        assert_eq!(heard(&listening), "WATCHDOG=1");
        assert_eq!(heard(&listening), "STOPPING=1\nEXTEND_TIMEOUT_USEC=900000000");
        manager.finishing();
        assert_eq!(heard(&listening), "WATCHDOG_USEC=60000000");
    }

    #[test]
    fn without_a_manager_nothing_is_sent_and_nothing_fails() {
        for socket in [None, Some("/nowhere/at/all"), Some("@warmbridge-nobody")] {
            let manager = Manager::at(socket, None);
            assert_eq!(manager.interval(), UNASKED);
            manager.ready();
        }
    }
}
