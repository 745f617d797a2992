//! The limit of open files of this process. It knows none of them, and opens and closes nothing.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::warn;

/// All listeners' connections, and two sockets for each port of the widest range.
const DESCRIPTORS_MAX: u64 = 65_536 + 4_096;

/// Every connection and every media port is a descriptor, and each of these has a maximum of its
/// own. The usual soft limit of 1,024 is far below them, so that idle connections would take the
/// ports of new calls; it is there for programs that use `select`, and this one does not.
pub(super) fn raise_limit() {
    let done = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| match raised(soft, hard) {
        Some(enough) => setrlimit(Resource::RLIMIT_NOFILE, enough, hard),
        None => Ok(()),
    });
    if let Err(error) = done {
        warn!(%error, "the limit of open files stays as it is");
    }
}

/// The soft limit that is needed, as far as the hard one allows; `None` where there is enough.
fn raised(soft: u64, hard: u64) -> Option<u64> {
    let enough = hard.min(DESCRIPTORS_MAX);
    (soft < enough).then_some(enough)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_is_raised_to_what_is_needed_and_never_lowered() {
        assert_eq!(raised(1_024, 1_048_576), Some(DESCRIPTORS_MAX));
        assert_eq!(raised(1_024, 4_096), Some(4_096));
        assert_eq!(raised(4_096, 4_096), None);
        assert_eq!(raised(1_048_576, 1_048_576), None);
    }
}
