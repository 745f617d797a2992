//! Rules on what can be counted or timed: low confidence, loops, failing tools, a broken
//! promise, elapsed time. Every threshold is exclusive on the side that does nothing, and
//! every rule re-arms in a way that cannot ring for ever.

use core::time::Duration;

use crate::conversation::Stimulus;
use crate::policy::{Rule, Seen, Verdict};
use crate::signal::Speaker;

/// The voice agent is not sure enough, several times in a row. After it fired, the
/// confidence must reach the upper edge before it can fire again.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LowConfidence {
    pub(super) id: String,
    pub(super) threshold_pm: u16,
    pub(super) upper_edge_pm: u16,
    pub(super) consecutive: u8,
}

impl Rule for LowConfidence {
    fn id(&self) -> &str {
        &self.id
    }

    fn verdict(&self, seen: &Seen<'_>) -> Verdict {
        let Stimulus::Confidence { value_pm } = seen.stimulus else {
            return Verdict::Skip("no confidence was given");
        };
        if *value_pm >= self.threshold_pm {
            return Verdict::Skip("the confidence is high enough");
        }
        if seen.snapshot.confidence_latched {
            return Verdict::Skip("fired before, and the confidence has not recovered since");
        }
        let recent = seen.snapshot.confidence_recent_pm.iter().rev();
        let run = recent.take_while(|value| **value < self.threshold_pm).count();
        if run < usize::from(self.consecutive) {
            return Verdict::Skip("not low often enough in a row");
        }
        Verdict::Fire(format!("confidence {value_pm} is below {}, {run} times in a row", self.threshold_pm))
    }
}

/// The same intent or the same prompt comes again and again.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Repetition {
    pub(super) id: String,
    pub(super) same_intent: Option<u32>,
    pub(super) same_prompt: Option<u32>,
}

impl Rule for Repetition {
    fn id(&self) -> &str {
        &self.id
    }

    fn verdict(&self, seen: &Seen<'_>) -> Verdict {
        let (what, run, limit) = match seen.stimulus {
            Stimulus::Intent(_) => ("intent", seen.snapshot.same_intent_run, self.same_intent),
            Stimulus::Turn { speaker: Speaker::Agent, .. } => {
                ("prompt", seen.snapshot.same_prompt_run, self.same_prompt)
            }
            Stimulus::Turn { speaker: Speaker::Caller | Speaker::Human | Speaker::System, .. }
            | Stimulus::Topic { .. }
            | Stimulus::Confidence { .. }
            | Stimulus::Digit { .. }
            | Stimulus::Tool { .. }
            | Stimulus::Requested { .. }
            | Stimulus::AgentError
            | Stimulus::Clock
            | Stimulus::Other => return Verdict::Skip("nothing that could repeat"),
        };
        match limit {
            Some(limit) if run >= limit => Verdict::Fire(format!("the same {what} {run} times in a row")),
            Some(_) => Verdict::Skip("not repeated often enough"),
            None => Verdict::Skip("not watched by this rule"),
        }
    }
}

/// Tools fail in a row, or the voice agent itself does.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ToolFailure {
    pub(super) id: String,
    pub(super) in_a_row: Option<u32>,
    pub(super) agent_error: bool,
}

impl Rule for ToolFailure {
    fn id(&self) -> &str {
        &self.id
    }

    fn verdict(&self, seen: &Seen<'_>) -> Verdict {
        match seen.stimulus {
            Stimulus::AgentError if self.agent_error => {
                Verdict::Fire("the voice agent reported a fault of its own".to_owned())
            }
            Stimulus::Tool { failed: true, name } => match self.in_a_row {
                Some(limit) if seen.snapshot.tool_failures_run >= limit => {
                    let run = seen.snapshot.tool_failures_run;
                    Verdict::Fire(format!("tool {name}: {run} failures in a row"))
                }
                Some(_) => Verdict::Skip("too few failures in a row"),
                None => Verdict::Skip("not watched by this rule"),
            },
            Stimulus::AgentError
            | Stimulus::Tool { .. }
            | Stimulus::Turn { .. }
            | Stimulus::Intent(_)
            | Stimulus::Topic { .. }
            | Stimulus::Confidence { .. }
            | Stimulus::Digit { .. }
            | Stimulus::Requested { .. }
            | Stimulus::Clock
            | Stimulus::Other => Verdict::Skip("nothing failed"),
        }
    }
}

/// The voice agent promised a person and none is on the way.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct BrokenPromise {
    pub(super) id: String,
    pub(super) within_ms: u64,
}

impl BrokenPromise {
    pub(super) const fn within(&self) -> Duration {
        Duration::from_millis(self.within_ms)
    }
}

impl Rule for BrokenPromise {
    fn id(&self) -> &str {
        &self.id
    }

    fn verdict(&self, seen: &Seen<'_>) -> Verdict {
        match seen.snapshot.promise_age_ms {
            Some(age) if age >= self.within_ms => {
                Verdict::Fire(format!("a person was promised {age} ms ago and none is on the way"))
            }
            Some(_) => Verdict::Skip("the promise is recent"),
            None => Verdict::Skip("no promise is open"),
        }
    }
}

/// The call takes too long. Each failed attempt opens a window of the same length, so that
/// a caller who came back to the voice agent is not taken away again at once.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ElapsedTime {
    pub(super) id: String,
    pub(super) after_s: u64,
}

impl ElapsedTime {
    pub(super) const fn after(&self) -> Duration {
        Duration::from_secs(self.after_s)
    }
}

impl Rule for ElapsedTime {
    fn id(&self) -> &str {
        &self.id
    }

    fn verdict(&self, seen: &Seen<'_>) -> Verdict {
        let windows = u64::from(seen.snapshot.failed_attempts).saturating_add(1);
        let limit_ms = self.after_s.saturating_mul(1_000).saturating_mul(windows);
        if seen.snapshot.elapsed_ms < limit_ms {
            return Verdict::Skip("within the time");
        }
        Verdict::Fire(format!("{} s of at most {} s", seen.snapshot.elapsed_ms / 1_000, limit_ms / 1_000))
    }
}
