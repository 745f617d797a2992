//! The table that leads from a figure to a setting. Limits of the checks are the goals that
//! the layer is built to; a layer within them is not blamed.

use super::super::figures::{Figures, Life, is_adjustable};
use super::super::proportion::Proportion;
use super::{Finding, Knob, Signal, per_mille};
use crate::policy::Category;

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Which figure.
    pub signal: Signal,
    /// Which layer.
    pub layer: &'static str,
    /// What the layer must fail in before it is blamed, in the order in which it is mended.
    pub checks: &'static [Check],
}

/// One thing to look at before a layer is blamed.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// Its name, with the unit last.
    pub name: &'static str,
    /// Beyond which the layer is sick.
    pub limit: Limit,
    /// Where it is read.
    pub measure: fn(&Figures) -> Option<i64>,
    /// What is turned when it is sick.
    pub knob: fn(&Figures) -> Option<Knob>,
}

/// On which side of a limit a layer is sick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Sick above.
    Above(i64),
    /// Sick below.
    Below(i64),
}

impl Limit {
    const fn value(self) -> i64 {
        match self {
            Self::Above(limit) | Self::Below(limit) => limit,
        }
    }

    const fn is_crossed(self, value: i64) -> bool {
        match self {
            Self::Above(limit) => value > limit,
            Self::Below(limit) => value < limit,
        }
    }
}

impl Check {
    /// Makes it.
    pub fn make(&self, figures: &Figures) -> Finding {
        let value = (self.measure)(figures);
        let sick = value.is_some_and(|value| self.limit.is_crossed(value));
        Finding { check: self.name, value, limit: self.limit.value(), sick }
    }
}

/// The layers of the four health figures.
pub const RULES: &[Rule] = &[
    Rule {
        signal: Signal::TransferRate,
        layer: "triggers",
        checks: &[
            Check {
                name: "reasons_that_rules_move_pm",
                // Half of what is handed over for reasons that a rule can move: the rules matter.
                limit: Limit::Above(499),
                measure: |figures| adjustable_share(figures),
                knob: |figures| Some(knob_of(largest(figures, true)?)),
            },
            Check {
                name: "reasons_that_no_rule_moves_pm",
                limit: Limit::Above(500),
                measure: |figures| Some(1_000 - adjustable_share(figures)?),
                knob: |figures| Some(knob_of(largest(figures, false)?)),
            },
        ],
    },
    Rule {
        signal: Signal::ResolutionPostTransfer,
        layer: "payload",
        checks: &[
            Check {
                name: "payloads_with_missing_fields_pm",
                limit: Limit::Above(100),
                measure: |figures| per_mille(figures.incomplete),
                knob: |_| {
                    Some(Knob {
                        setting: "[[payload.intent]] required",
                        direction: "let the voice agent ask for what is missing before it hands over",
                    })
                },
            },
            Check {
                name: "asked_again_pm",
                // One caller in ten who says it twice: the card is not where people look.
                limit: Limit::Above(100),
                measure: |figures| per_mille(figures.asked_again),
                knob: |_| {
                    Some(Knob {
                        setting: "the page of the desktop, or the card in the CRM",
                        direction: "put what is asked again where it is seen first, and tell people that it is there",
                    })
                },
            },
            Check {
                name: "wrong_team_pm",
                limit: Limit::Above(50),
                measure: |figures| per_mille(figures.wrong_team),
                knob: |_| {
                    Some(Knob {
                        setting: "[[queue]] skills and agents",
                        direction: "route the intent to the people who can settle it",
                    })
                },
            },
            Check {
                name: "template_summaries_pm",
                limit: Limit::Above(100),
                // Where no model writes, every summary is the template's, and that is no fault.
                measure: |figures| {
                    per_mille(figures.template).filter(|_| figures.template.k < figures.template.n)
                },
                knob: |_| {
                    Some(Knob {
                        setting: "instructions of the summary, and the time it is given",
                        direction: "make summaries come in time and say what to do next",
                    })
                },
            },
        ],
    },
    Rule {
        signal: Signal::HandleTime,
        layer: "screen pop",
        checks: &[
            Check {
                name: "pop_success_pm",
                limit: Limit::Below(950),
                measure: |figures| per_mille(figures.pop_success),
                knob: |_| {
                    Some(Knob {
                        setting: "[[queue]] payload_ack, and the page or receiver that it names",
                        direction: "find out why the card does not reach the screen",
                    })
                },
            },
            Check {
                name: "pop_skew_p50_ms",
                limit: Limit::Above(0),
                measure: |figures| figures.pop_skew_ms.p50,
                knob: |_| {
                    Some(Knob {
                        setting: "[[webhook]] events",
                        direction: "send it warmbridge.transfer.offered.v1, before the phone rings",
                    })
                },
            },
            Check {
                name: "pop_skew_p95_ms",
                limit: Limit::Above(1_000),
                measure: |figures| figures.pop_skew_ms.p95,
                knob: |_| {
                    Some(Knob {
                        setting: "[[webhook]] url, and the receiver behind it",
                        direction: "make the slowest receiver paint within a second",
                    })
                },
            },
        ],
    },
    Rule {
        signal: Signal::Abandonment,
        layer: "hold",
        checks: &[
            Check {
                name: "messages_cut_pm",
                limit: Limit::Above(50),
                measure: |figures| per_mille(figures.message_cut),
                knob: |_| {
                    Some(Knob {
                        setting: "transition message",
                        direction: "shorten it, so that it is heard whole before anything replaces it",
                    })
                },
            },
            Check {
                name: "transfers_with_dead_air_pm",
                limit: Limit::Above(50),
                measure: |figures| per_mille(figures.dead_air),
                knob: |_| {
                    Some(Knob {
                        setting: "hold audio and the interval of its announcements",
                        direction: "leave no silence above 500 ms",
                    })
                },
            },
            Check {
                name: "wait_beyond_promise_p95_ms",
                limit: Limit::Above(10_000),
                measure: |figures| figures.promise_error_ms.p95,
                knob: |_| {
                    Some(Knob {
                        setting: "[[queue]] wait_default_s",
                        direction: "promise the wait that is measured",
                    })
                },
            },
            Check {
                name: "ring_p95_ms",
                limit: Limit::Above(30_000),
                measure: |figures| figures.ring_ms.p95,
                knob: |_| {
                    Some(Knob {
                        setting: "[[agent]] ring_timeout_s, [[queue]] overflow_after_s",
                        direction: "ring shorter, or let the queue overflow sooner",
                    })
                },
            },
            Check {
                name: "left_at_once_pm",
                // Most of those who leave do so before they can have heard why they should stay.
                limit: Limit::Above(500),
                measure: |figures| {
                    let (k, n) = (figures.short_abandonment.k, figures.abandonment.k);
                    per_mille(Proportion { k, n })
                },
                knob: |_| {
                    Some(Knob {
                        setting: "transition message",
                        direction: "begin it with the person who is coming, not with the reason",
                    })
                },
            },
        ],
    },
];

/// The layer behind conversations that all end at the same moment.
pub const LINE_LAYER: &str = "destination";

/// What to change there.
pub const LINE: Knob = Knob {
    setting: "the line of the queue: session timers and call limits of its phones, trunk or PBX",
    direction: "find the timer that ends calls at this age",
};

/// Half of the short conversations end together: a timer, not people.
pub fn timer(life: &Life) -> Finding {
    let limit = Limit::Above(500);
    let value = per_mille(life.together);
    let sick = value.is_some_and(|value| limit.is_crossed(value));
    Finding { check: "short_lives_that_end_together_pm", value, limit: limit.value(), sick }
}

/// The setting that moves how often calls are handed over for a reason.
pub const fn knob_of(category: Category) -> Knob {
    match category {
        Category::LowConfidence => Knob {
            setting: "[[low_confidence]] threshold, consecutive",
            direction: "lower the threshold, or want it crossed more often in a row",
        },
        Category::ElapsedTime => Knob { setting: "[[elapsed_time]] after_s", direction: "widen the window" },
        Category::Topic => {
            Knob { setting: "[[topic]] topics, confidence_min", direction: "narrow the topics" }
        }
        Category::RoutingRule => Knob {
            setting: "[[routing_rule]] intents, call_types",
            direction: "narrow what goes to a person unasked",
        },
        Category::Loop => Knob {
            setting: "[[loop]] same_intent, same_prompt",
            direction: "teach the voice agent the intent that it circles on",
        },
        Category::BrokenPromise => Knob {
            setting: "[[broken_promise]] within_ms",
            direction: "stop the voice agent from promising a person that it does not ask for",
        },
        Category::ToolFailure => Knob {
            setting: "[[tool_failure]] in_a_row",
            direction: "mend the tool that the voice agent needs",
        },
        Category::CallerRequest => Knob {
            setting: "scope of the voice agent",
            direction: "find what callers want a person for; no threshold moves it",
        },
        Category::Regulatory | Category::Safety => Knob {
            setting: "scope of the voice agent",
            direction: "keep such calls from reaching it; no threshold may move them",
        },
    }
}

/// The reason that contributes most to the transfer rate, of the side that weighs more.
pub(super) fn blamed(figures: &Figures) -> Option<Category> {
    let adjustable = adjustable_share(figures)? > 499;
    largest(figures, adjustable)
}

/// Of the calls handed over for a known reason, those whose reason a rule can move.
fn adjustable_share(figures: &Figures) -> Option<i64> {
    let known = |wanted: Option<bool>| {
        let shares = figures.rate_by_trigger.iter();
        shares
            .filter(|(category, _)| wanted.is_none_or(|wanted| is_adjustable(Some(**category)) == wanted))
            .map(|(_, share)| share.k)
            .sum::<u64>()
    };
    per_mille(Proportion { k: known(Some(true)), n: known(None) })
}

/// The most frequent reason on one side.
fn largest(figures: &Figures, adjustable: bool) -> Option<Category> {
    figures
        .rate_by_trigger
        .iter()
        .filter(|(category, _)| is_adjustable(Some(**category)) == adjustable)
        .max_by_key(|(category, share)| (share.k, core::cmp::Reverse(**category)))
        .map(|(category, _)| *category)
}
