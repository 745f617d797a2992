//! Effects that wait: for the disk, until the facts before them are stored; and for a page,
//! until the call that it announces is written to it, so that no phone is dialled before its
//! person can see why. A page is waited for a moment only: a slow one delays nobody's phone.

use std::collections::VecDeque;

use functions::sqlite::StoreError;
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant, timeout_at};

use super::http::events::Told;
use super::spool::Stored;
use crate::edge::EdgeOutput;

/// How long a page may take to have the announcement written to its socket: below 1 ms where
/// the machine is not busy, and no phone is kept waiting for more than this.
const PAGE_WAIT: Duration = Duration::from_millis(25);

/// What waits, in order, and for what.
pub(super) struct Held {
    pub(super) waits: Waits,
    pub(super) effects: VecDeque<EdgeOutput>,
    /// The facts themselves, for those who follow them.
    pub(super) told: Vec<Told>,
}

/// What effects wait for.
pub(super) enum Waits {
    /// Their facts, on disk.
    Disk(Stored),
    /// The pages that are to show the call first.
    Pages(Vec<oneshot::Receiver<()>>, Instant),
}

/// What came.
pub(super) enum Came {
    /// The facts are on disk, or were refused.
    Stored(Result<(), StoreError>),
    /// The pages have it, or had their time.
    Shown,
}

impl Held {
    /// Effects behind facts.
    pub(super) const fn behind(stored: Stored, effects: VecDeque<EdgeOutput>, told: Vec<Told>) -> Self {
        Self { waits: Waits::Disk(stored), effects, told }
    }

    /// The rest of what was held, behind pages.
    pub(super) fn behind_pages(
        pages: Vec<oneshot::Receiver<()>>,
        effects: VecDeque<EdgeOutput>,
        told: Vec<Told>,
    ) -> Self {
        Self { waits: Waits::Pages(pages, Instant::now() + PAGE_WAIT), effects, told }
    }
}

/// What the front waits for; nothing at the front, nothing comes. May be dropped and called
/// again at any time.
pub(super) async fn came(front: Option<&mut Held>) -> Came {
    match front.map(|held| &mut held.waits) {
        Some(Waits::Disk(stored)) => Came::Stored(stored.committed().await),
        Some(Waits::Pages(pages, until)) => {
            let all = async {
                while let Some(page) = pages.last_mut() {
                    // A page that closed instead has nothing to show.
                    let _ = page.await;
                    pages.pop();
                }
            };
            let _ = timeout_at(*until, all).await;
            Came::Shown
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting_for(pages: Vec<oneshot::Receiver<()>>) -> Held {
        Held::behind_pages(pages, VecDeque::new(), Vec::new())
    }

    #[tokio::test]
    async fn what_follows_an_announcement_waits_until_every_page_has_it() {
        let ((first, of_first), (second, of_second)) = (oneshot::channel(), oneshot::channel());
        let mut held = waiting_for(vec![of_first, of_second]);
        let Waits::Pages(_, until) = &mut held.waits else { panic!("it waits for pages") };
        *until += Duration::from_secs(3_600);
        first.send(()).unwrap();
        tokio::select! {
            biased;
            _ = came(Some(&mut held)) => panic!("the second page does not have it"),
            () = tokio::task::yield_now() => {}
        }
        second.send(()).unwrap();
        assert!(matches!(came(Some(&mut held)).await, Came::Shown));
    }

    #[tokio::test]
    async fn a_page_that_closes_or_never_takes_it_holds_nobody_up() {
        let ((gone, of_gone), (_stuck, of_stuck)) = (oneshot::channel::<()>(), oneshot::channel());
        drop(gone);
        assert!(matches!(came(Some(&mut waiting_for(vec![of_gone, of_stuck]))).await, Came::Shown));
    }
}
