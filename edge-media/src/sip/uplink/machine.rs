//! When to ask which server for a registration, and what its answer leads to. It knows
//! statuses and times and no message; chance comes in as a drawn number. RFC 3261 section
//! 10.2, with the waits of RFC 5626 section 4.5 (doubling, with jitter, half an hour at most).

use std::net::SocketAddr;
use std::time::Duration;

use handoff::clock::Now;

use super::{EXPIRES_MAX_SECS, LastAnswer, RegistrationPhase, RegistrationState, UplinkChange};

/// First wait after a failed attempt; it doubles. Sooner would look like guessing passwords.
const RETRY_MIN: Duration = Duration::from_secs(30);
/// Longest wait after a failed attempt.
const RETRY_MAX: Duration = Duration::from_secs(1_800);
/// Answers to `stale=true` in one attempt: a server whose nonces are always stale is broken.
const STALE_MAX: u32 = 4;
/// Times that one attempt asks for longer; a server names its minimum once.
const LONGER_MAX: u32 = 2;
/// A refresh comes after half of the registration at the earliest and three quarters at the
/// latest, so that an edge that registers many accounts does not refresh them all at once,
/// and at least one further attempt fits before the end.
const REFRESH_PERCENT: (u64, u64) = (50, 25);
/// Jitter that is added to a wait, in percent of it.
const JITTER_PERCENT: u64 = 20;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// It is time.
    Due,
    /// The final answer was this.
    Answer(Answer),
    /// No answer came, or none can.
    Silence,
    /// Its server answers OPTIONS again.
    Reachable,
}

/// What a final answer says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// A 2xx: how long our contact is kept.
    pub(super) granted_secs: u32,
    /// 423.
    pub(super) min_expires: Option<u32>,
    /// In seconds.
    pub(super) retry_after: Option<u32>,
    /// 401 and 407.
    pub(super) challenge: Option<Asked>,
}

/// A challenge that we have credentials for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The first of its kind in this attempt.
    First,
    /// Our answer was good and its nonce too old.
    Stale,
    /// Our answer was not accepted.
    Again,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing but to wait for the deadline, if there is one.
    Rest,
    /// Ask the current server; with the answers to its challenges, if so.
    Ask { answered: bool },
}

/// One registration.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    servers: Vec<SocketAddr>,
    at: usize,
    /// Servers that failed in this attempt.
    failed: usize,
    stale: u32,
    longer: u32,
    phase: RegistrationPhase,
    expires_secs: u32,
    since: Option<Now>,
    until: Option<Now>,
    next: Option<Now>,
    failures: u32,
    retry: Duration,
    last: Option<LastAnswer>,
    news: Option<UplinkChange>,
}

impl Machine {
    pub(super) const fn new(expires_secs: u32) -> Self {
        Self {
            servers: Vec::new(),
            at: 0,
            failed: 0,
            stale: 0,
            longer: 0,
            phase: RegistrationPhase::Unresolved,
            expires_secs,
            since: None,
            until: None,
            next: None,
            failures: 0,
            retry: RETRY_MIN,
            last: None,
            news: None,
        }
    }

    /// Takes one input; `draw` is any number.
    pub(super) fn handle(&mut self, now: Now, input: Input, draw: u64) -> Step {
        if self.servers.is_empty() {
            return Step::Rest;
        }
        match (input, self.phase) {
            // One question at a time; its answer or its silence is on the way.
            (Input::Due | Input::Reachable, RegistrationPhase::Asking) => Step::Rest,
            (Input::Reachable, RegistrationPhase::Registered | RegistrationPhase::Stopped) => Step::Rest,
            (Input::Reachable, RegistrationPhase::Unresolved | RegistrationPhase::Waiting) => {
                self.retry = RETRY_MIN;
                self.begin()
            }
            (
                Input::Due,
                RegistrationPhase::Unresolved
                | RegistrationPhase::Registered
                | RegistrationPhase::Waiting
                | RegistrationPhase::Stopped,
            ) => self.begin(),
            (Input::Answer(answer), _) => {
                self.note(now, Some(answer.status));
                self.on_answer(now, answer, draw)
            }
            (Input::Silence, _) => {
                self.note(now, None);
                self.elsewhere(now, None, None, draw)
            }
        }
    }

    /// Learns the addresses of the servers, in the order in which they are tried. The one in
    /// use stays in use while it is among them; a look-up that finds none changes nothing.
    pub(super) fn learn(&mut self, now: Now, servers: &[SocketAddr]) -> Step {
        if servers.is_empty() || self.servers == servers {
            return Step::Rest;
        }
        let current = self.server();
        self.servers = servers.to_vec();
        self.at = servers.iter().position(|server| Some(*server) == current).unwrap_or(0);
        if self.phase == RegistrationPhase::Unresolved { self.handle(now, Input::Due, 0) } else { Step::Rest }
    }

    pub(super) fn server(&self) -> Option<SocketAddr> {
        self.servers.get(self.at).copied()
    }

    /// The next server, in turn, for who asks about health alone.
    pub(super) fn turn(&mut self) {
        self.at = (self.at + 1).checked_rem(self.servers.len()).unwrap_or(0);
    }

    pub(super) const fn expires_secs(&self) -> u32 {
        self.expires_secs
    }

    pub(super) const fn deadline(&self) -> Option<Now> {
        self.next
    }

    pub(super) const fn take_news(&mut self) -> Option<UplinkChange> {
        self.news.take()
    }

    pub(super) fn state(&self, now: Now) -> RegistrationState {
        let until = self.until.filter(|until| *until > now);
        RegistrationState {
            phase: self.phase,
            since: self.since.filter(|_| until.is_some()),
            until,
            next: self.next,
            failures: self.failures,
            last: self.last,
        }
    }

    fn begin(&mut self) -> Step {
        (self.failed, self.stale, self.longer) = (0, 0, 0);
        self.ask(false)
    }

    const fn ask(&mut self, answered: bool) -> Step {
        self.phase = RegistrationPhase::Asking;
        self.next = None;
        Step::Ask { answered }
    }

    fn note(&mut self, now: Now, status: Option<u16>) {
        self.last = self.server().map(|server| LastAnswer { at: now, server, status });
    }

    fn on_answer(&mut self, now: Now, answer: Answer, draw: u64) -> Step {
        let longer = answer.min_expires.filter(|min| *min > self.expires_secs && *min <= EXPIRES_MAX_SECS);
        match (answer.status, answer.challenge) {
            (200..=299, _) => self.succeed(now, answer.granted_secs, draw),
            (401 | 407, Some(Asked::First)) => self.ask(true),
            (401 | 407, Some(Asked::Stale)) if self.stale < STALE_MAX => {
                self.stale += 1;
                self.ask(true)
            }
            (423, _) if longer.is_some() && self.longer < LONGER_MAX => {
                self.longer += 1;
                self.expires_secs = longer.unwrap_or(self.expires_secs);
                self.ask(false)
            }
            (403, _) => {
                self.phase = RegistrationPhase::Stopped;
                (self.next, self.until, self.since) = (None, None, None);
                self.failures += 1;
                self.news = Some(UplinkChange::Stopped);
                Step::Rest
            }
            (408 | 500..=599, _) => self.elsewhere(now, Some(answer.status), answer.retry_after, draw),
            (_, _) => self.fail(now, Some(answer.status), answer.retry_after, draw),
        }
    }

    fn succeed(&mut self, now: Now, granted_secs: u32, draw: u64) -> Step {
        let unbroken = self.until.is_some_and(|until| until > now);
        if !unbroken || self.failures > 0 {
            self.news = Some(UplinkChange::Registered);
        }
        self.since = self.since.filter(|_| unbroken).or(Some(now));
        let granted = Duration::from_secs(granted_secs.clamp(1, EXPIRES_MAX_SECS).into());
        self.until = Some(now + granted);
        let (least, span) = REFRESH_PERCENT;
        self.next = Some(now + percent(granted, least + draw % (span + 1)).max(Duration::from_secs(1)));
        self.phase = RegistrationPhase::Registered;
        self.failures = 0;
        self.retry = RETRY_MIN;
        Step::Rest
    }

    /// The next server at once, or a wait when each has failed.
    fn elsewhere(&mut self, now: Now, status: Option<u16>, after: Option<u32>, draw: u64) -> Step {
        self.failed += 1;
        self.turn();
        if self.failed < self.servers.len() {
            (self.stale, self.longer) = (0, 0);
            return self.ask(false);
        }
        self.fail(now, status, after, draw)
    }

    fn fail(&mut self, now: Now, status: Option<u16>, after: Option<u32>, draw: u64) -> Step {
        let asked = Duration::from_secs(after.unwrap_or(0).into()).min(RETRY_MAX);
        let wait = self.retry.max(asked);
        self.next = Some(now + wait + percent(wait, draw % (JITTER_PERCENT + 1)));
        self.retry = (self.retry * 2).min(RETRY_MAX);
        self.phase = RegistrationPhase::Waiting;
        self.failures = self.failures.saturating_add(1);
        self.news = Some(UplinkChange::Failed(status));
        Step::Rest
    }
}

fn percent(of: Duration, percent: u64) -> Duration {
    let millis = u64::try_from(of.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(millis.saturating_mul(percent) / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "192.0.2.1:5060";
    const SECOND: &str = "192.0.2.2:5060";

    fn at(secs: u64) -> Now {
        Now::from_millis(secs * 1_000)
    }

    fn answer(status: u16) -> Input {
        Input::Answer(Answer { status, granted_secs: 600, ..Answer::default() })
    }

    fn challenge(asked: Asked) -> Input {
        Input::Answer(Answer { status: 401, challenge: Some(asked), ..Answer::default() })
    }

    /// A machine that has asked the first of these.
    fn asking(servers: &[&str]) -> Machine {
        let mut machine = Machine::new(600);
        let servers: Vec<SocketAddr> = servers.iter().map(|server| server.parse().unwrap()).collect();
        assert_eq!(machine.learn(at(0), &servers), Step::Ask { answered: false });
        machine
    }

    #[test]
    fn nothing_is_asked_before_a_server_is_known() {
        let mut machine = Machine::new(600);
        assert_eq!(machine.handle(at(0), Input::Due, 0), Step::Rest);
        assert_eq!(machine.learn(at(1), &[]), Step::Rest);
        assert_eq!(machine.state(at(1)).phase, RegistrationPhase::Unresolved);
    }

    #[test]
    fn a_refresh_comes_between_half_and_three_quarters_of_what_was_granted() {
        for (draw, due) in [(0, 300), (25, 450), (26, 300), (u64::MAX, 390)] {
            let mut machine = asking(&[FIRST]);
            assert_eq!(machine.handle(at(0), answer(200), draw), Step::Rest);
            assert_eq!(machine.deadline(), Some(at(due)), "{draw}");
            assert_eq!(machine.state(at(1)).until, Some(at(600)));
            assert_eq!(machine.handle(at(due), Input::Due, 0), Step::Ask { answered: false });
        }
    }

    #[test]
    fn one_wrong_password_is_a_failure_and_stale_nonces_are_not() {
        let mut machine = asking(&[FIRST]);
        assert_eq!(machine.handle(at(0), challenge(Asked::First), 0), Step::Ask { answered: true });
        for _ in 0..STALE_MAX {
            assert_eq!(machine.handle(at(0), challenge(Asked::Stale), 0), Step::Ask { answered: true });
        }
        assert_eq!(machine.state(at(0)).failures, 0);
        assert_eq!(machine.handle(at(0), challenge(Asked::Stale), 0), Step::Rest);
        assert_eq!(machine.state(at(0)).failures, 1);

        let mut machine = asking(&[FIRST, SECOND]);
        machine.handle(at(0), challenge(Asked::First), 0);
        assert_eq!(machine.handle(at(0), challenge(Asked::Again), 0), Step::Rest);
        assert_eq!(machine.deadline(), Some(at(30)), "another server has the same password");
        assert_eq!(machine.take_news(), Some(UplinkChange::Failed(Some(401))));
    }

    #[test]
    fn waits_double_from_half_a_minute_to_half_an_hour_with_jitter_and_a_success_resets_them() {
        let mut machine = asking(&[FIRST]);
        for wait in [30, 60, 120, 240, 480, 960, 1_800, 1_800] {
            assert_eq!(machine.handle(at(0), Input::Silence, 0), Step::Rest);
            assert_eq!(machine.deadline(), Some(at(wait)));
            machine.handle(at(wait), Input::Due, 0);
        }
        machine.handle(at(0), Input::Silence, 20);
        assert_eq!(machine.deadline(), Some(at(2_160)), "a fifth more at most");
        machine.handle(at(0), Input::Due, 0);
        machine.handle(at(0), answer(200), 0);
        machine.handle(at(300), Input::Due, 0);
        machine.handle(at(332), Input::Silence, 0);
        assert_eq!(machine.deadline(), Some(at(362)));
        let state = machine.state(at(332));
        assert_eq!(
            (state.phase, state.until),
            (RegistrationPhase::Waiting, Some(at(600))),
            "still kept there"
        );
        assert_eq!(machine.state(at(601)).until, None);
    }

    #[test]
    fn a_server_that_names_a_time_is_given_it_within_bounds() {
        for (after, wait) in [(10, 30), (90, 90), (86_400, 1_800)] {
            let mut machine = asking(&[FIRST]);
            let busy = Answer { status: 503, retry_after: Some(after), ..Answer::default() };
            machine.handle(at(0), Input::Answer(busy), 0);
            assert_eq!(machine.deadline(), Some(at(wait)), "{after}");
        }
    }

    #[test]
    fn a_server_that_is_silent_or_in_trouble_is_followed_by_the_next_at_once() {
        for failure in [Input::Silence, answer(503), answer(408)] {
            let mut machine = asking(&[FIRST, SECOND]);
            assert_eq!(machine.handle(at(0), failure, 0), Step::Ask { answered: false });
            assert_eq!(machine.server(), Some(SECOND.parse().unwrap()));
            machine.handle(at(1), answer(200), 0);
            machine.handle(at(301), Input::Due, 0);
            assert_eq!(machine.server(), Some(SECOND.parse().unwrap()), "what works stays in use");
            machine.handle(at(302), failure, 0);
            assert_eq!(machine.handle(at(303), failure, 0), Step::Rest, "each has failed");
        }
        let mut machine = asking(&[FIRST, SECOND]);
        assert_eq!(machine.handle(at(0), answer(404), 0), Step::Rest, "the others know no more");
    }

    #[test]
    fn a_minimum_is_taken_once_it_is_longer_and_not_longer_than_a_day() {
        let brief = |min| Input::Answer(Answer { status: 423, min_expires: min, ..Answer::default() });
        let mut machine = asking(&[FIRST]);
        assert_eq!(machine.handle(at(0), brief(Some(1_200)), 0), Step::Ask { answered: false });
        assert_eq!(machine.expires_secs(), 1_200);
        assert_eq!(machine.handle(at(0), brief(Some(1_200)), 0), Step::Rest);
        for bad in [None, Some(60), Some(EXPIRES_MAX_SECS + 1)] {
            let mut machine = asking(&[FIRST]);
            assert_eq!(machine.handle(at(0), brief(bad), 0), Step::Rest);
            assert_eq!(machine.expires_secs(), 600);
        }
    }

    #[test]
    fn a_refusal_for_good_stops_until_it_is_told_to_go_on() {
        let mut machine = asking(&[FIRST, SECOND]);
        machine.handle(at(0), answer(200), 0);
        machine.handle(at(300), Input::Due, 0);
        machine.take_news();
        assert_eq!(machine.handle(at(300), answer(403), 0), Step::Rest);
        assert_eq!(machine.take_news(), Some(UplinkChange::Stopped));
        assert_eq!((machine.deadline(), machine.state(at(300)).until), (None, None));
        assert_eq!(machine.handle(at(301), Input::Reachable, 0), Step::Rest);
        assert_eq!(machine.handle(at(302), Input::Due, 0), Step::Ask { answered: false });
    }

    #[test]
    fn a_server_that_answers_again_is_asked_at_once() {
        let mut machine = asking(&[FIRST]);
        machine.handle(at(0), Input::Silence, 0);
        assert_eq!(machine.handle(at(5), Input::Reachable, 0), Step::Ask { answered: false });
        assert_eq!(machine.handle(at(6), Input::Reachable, 0), Step::Rest, "one question at a time");
        machine.handle(at(6), answer(200), 0);
        assert_eq!(machine.take_news(), Some(UplinkChange::Registered));
        assert_eq!(machine.handle(at(7), Input::Reachable, 0), Step::Rest);
    }

    #[test]
    fn the_server_in_use_stays_in_use_when_the_names_resolve_anew() {
        let mut machine = asking(&[FIRST, SECOND]);
        machine.handle(at(0), Input::Silence, 0);
        let other: Vec<SocketAddr> = vec!["192.0.2.3:5060".parse().unwrap(), SECOND.parse().unwrap()];
        assert_eq!(machine.learn(at(1), &other), Step::Rest);
        assert_eq!(machine.server(), Some(SECOND.parse().unwrap()));
        assert_eq!(machine.learn(at(2), &[]), Step::Rest);
        assert_eq!(machine.server(), Some(SECOND.parse().unwrap()), "an answer without addresses is no news");
    }
}
