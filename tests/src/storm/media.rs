//! The media plane as its contract: it applies whole plans and reports what follows from
//! them (`Applied` at the next tick, `PlayEnded` at a prompt's end or when it loses its place,
//! `FirstRtp`, `AudioSeen` after ten packets, `SourceLost` and `SourceBack`, `Drained`), without
//! one frame of sound. Whose audio flows is told by the phones. Who hears what follows from
//! the plan alone, which is what the checks of the storm judge; frames, tones and sequence
//! numbers are judged by the system tests, over the real engine.

use std::collections::BTreeMap;
use std::time::Duration;

use edge_media::media::{Carrier, MediaCommand, MediaEvent, Port};
use handoff::call::media::{MediaPlan, MediaReport, Part, Prompt, Source};
use handoff::clock::Now;
use handoff::id::{CallId, Epoch, LegId, PlayId};

/// One frame of the media plane.
const TICK: Duration = Duration::from_millis(20);
/// Ten packets.
const PROOF: Duration = Duration::from_millis(200);
/// The media plane says after this long that nothing comes from a leg.
const LOST_AFTER: Duration = Duration::from_millis(500);

/// A word, what is said in a message, and the pause behind it.
const WORD: Duration = Duration::from_millis(300);
const MESSAGE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_secs(5);

/// What somebody hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ear {
    /// Nothing: no source, silence, or a prompt that has ended.
    Nothing,
    /// Hold music.
    Bed,
    /// Soft noise: it is the listener's turn.
    Comfort,
    /// A prompt.
    Play(PlayId, Prompt),
    /// Another leg, and whether audio comes from it.
    Leg(LegId, bool),
    /// Several legs.
    Legs(Vec<LegId>),
}

/// The media of every call.
#[derive(Debug, Default)]
pub struct Plane {
    calls: BTreeMap<CallId, CallMedia>,
    ports: BTreeMap<Port, (CallId, LegId)>,
    /// How long a clip and a synthesised text last.
    clip: Duration,
    speech: Duration,
}

#[derive(Debug)]
struct CallMedia {
    plan: Option<MediaPlan>,
    planned_at: Now,
    legs: BTreeMap<LegId, Leg>,
    drain: Duration,
}

#[derive(Debug)]
struct Leg {
    port: Option<Port>,
    agreed: bool,
    source: Option<Source>,
    /// The source changed and its first packet has not left: at this tick it does.
    announces: Option<Now>,
    playing: Option<Playing>,
    /// Since when it is this leg's turn to speak; whether it has, and whether it has ceased.
    turn: Option<Now>,
    spoke: bool,
    quiet: bool,
    /// Since when audio comes, and when the last came.
    flows_since: Option<Now>,
    silent_since: Now,
    listened_since: Option<Now>,
    lost_told: bool,
    first_told: bool,
    proven: Epoch,
    drains_at: Option<Now>,
    heard: Option<Ear>,
}

#[derive(Clone, Debug)]
struct Playing {
    play: PlayId,
    prompt: Prompt,
    from: Now,
    until: Now,
    over: bool,
}

/// What follows from an order or from time.
#[derive(Debug, Default)]
pub struct Follows {
    /// Reports for the edge, in order.
    pub reports: Vec<MediaEvent>,
    /// Changes of what is heard.
    pub heard: Vec<(CallId, LegId, Ear)>,
    /// Orders that nothing fits: a leg that is not there, or a port that is taken.
    pub refused: Vec<String>,
}

impl Plane {
    /// A plane whose clips and texts last so long.
    pub fn new(clip: Duration, speech: Duration) -> Self {
        Self { calls: BTreeMap::new(), ports: BTreeMap::new(), clip, speech }
    }

    /// How long the voice agent of a call takes to finish its sentence.
    pub fn set_drain(&mut self, call: &CallId, drain: Duration) {
        if let Some(media) = self.calls.get_mut(call) {
            media.drain = drain;
        }
    }

    /// The leg that a port of ours belongs to.
    pub fn leg_of(&self, port: u16) -> Option<&(CallId, LegId)> {
        self.ports.get(&Port(port))
    }

    /// What `leg` hears now.
    pub fn ear(&self, call: &CallId, leg: LegId) -> Option<&Ear> {
        self.calls.get(call)?.legs.get(&leg)?.heard.as_ref()
    }

    /// Calls with an open leg.
    pub fn open(&self) -> usize {
        self.calls.len()
    }

    /// Carries out an order.
    pub fn command(&mut self, now: Now, command: &MediaCommand, out: &mut Follows) {
        match command {
            MediaCommand::Open { call, leg, carrier } => self.open_leg(now, call, *leg, *carrier, out),
            MediaCommand::Remote { call, leg, .. } => match self.leg_mut(call, *leg) {
                Some(leg) => leg.agreed = true,
                None => out.refused.push(format!("media agreed for {leg}, which is not open")),
            },
            MediaCommand::Apply(plan) => self.apply(now, plan, out),
            MediaCommand::Drain { call, leg } => {
                let drain = self.calls.get(call).map_or(Duration::ZERO, |media| media.drain);
                if let Some(leg) = self.leg_mut(call, *leg) {
                    leg.drains_at = Some(now + drain);
                }
            }
            MediaCommand::Clear { call, leg } => {
                if let Some(leg) = self.leg_mut(call, *leg) {
                    leg.drains_at = leg.drains_at.map(|_| now);
                }
            }
            MediaCommand::SendDigits { .. } | MediaCommand::Record { .. } => {}
            MediaCommand::Close { call, leg } => self.close_leg(now, call, *leg, out),
        }
        let (MediaCommand::Open { call, .. }
        | MediaCommand::Remote { call, .. }
        | MediaCommand::Drain { call, .. }
        | MediaCommand::Clear { call, .. }
        | MediaCommand::SendDigits { call, .. }
        | MediaCommand::Record { call, .. }
        | MediaCommand::Close { call, .. }
        | MediaCommand::Apply(MediaPlan { call, .. })) = command;
        self.advance(now, call, out);
    }

    fn leg_mut(&mut self, call: &CallId, leg: LegId) -> Option<&mut Leg> {
        self.calls.get_mut(call)?.legs.get_mut(&leg)
    }

    fn open_leg(&mut self, now: Now, call: &CallId, leg: LegId, carrier: Carrier, out: &mut Follows) {
        let media = self.calls.entry(call.clone()).or_insert_with(|| CallMedia {
            plan: None,
            planned_at: now,
            legs: BTreeMap::new(),
            drain: Duration::ZERO,
        });
        let port = match carrier {
            Carrier::Rtp(port) => Some(port),
            Carrier::Stream(_) => None,
        };
        let new = Leg {
            port,
            agreed: port.is_none(),
            source: None,
            announces: None,
            playing: None,
            turn: None,
            spoke: false,
            quiet: false,
            flows_since: port.is_none().then_some(now),
            silent_since: now,
            listened_since: None,
            lost_told: false,
            first_told: false,
            proven: Epoch::default(),
            drains_at: None,
            heard: None,
        };
        if media.legs.insert(leg, new).is_some() {
            out.refused.push(format!("{leg} was opened twice"));
        }
        if let Some(port) = port
            && self.ports.insert(port, (call.clone(), leg)).is_some()
        {
            out.refused.push(format!("port {} is in use", port.0));
        }
        if let Some(plan) = media.plan.clone() {
            Self::switch(now, media, &plan, (self.clip, self.speech), out);
        }
    }

    fn close_leg(&mut self, now: Now, call: &CallId, leg: LegId, out: &mut Follows) {
        let Some(media) = self.calls.get_mut(call) else {
            out.refused.push(format!("{leg} was closed, but its call is not open"));
            return;
        };
        let Some(gone) = media.legs.remove(&leg) else {
            out.refused.push(format!("{leg} was closed, but is not open"));
            return;
        };
        if let Some(playing) = gone.playing.filter(|playing| !playing.over) {
            out.reports.push(ended(now, call, &playing));
        }
        if let Some(port) = gone.port {
            self.ports.remove(&port);
        }
        out.heard.push((call.clone(), leg, Ear::Nothing));
        if media.legs.is_empty() {
            self.calls.remove(call);
        }
    }

    fn apply(&mut self, now: Now, plan: &MediaPlan, out: &mut Follows) {
        let Some(media) = self.calls.get_mut(&plan.call) else {
            // An empty plan after the last leg has nothing to change.
            if !plan.egress.is_empty() {
                out.refused.push("a plan for a call without legs".to_owned());
            }
            return;
        };
        if media.plan.as_ref().is_some_and(|known| known.epoch >= plan.epoch) {
            out.refused.push(format!("a plan of epoch {} after a later one", plan.epoch.0));
            return;
        }
        media.planned_at = now;
        media.plan = Some(plan.clone());
        Self::switch(now, media, plan, (self.clip, self.speech), out);
    }

    fn switch(
        now: Now,
        media: &mut CallMedia,
        plan: &MediaPlan,
        lasts: (Duration, Duration),
        out: &mut Follows,
    ) {
        for (id, leg) in &mut media.legs {
            let wanted = plan.egress.get(id);
            if leg.source.as_ref() != wanted {
                leg.source = wanted.cloned();
                leg.announces = wanted.map(|_| next_tick(now));
                leg.turn = (wanted == Some(&Source::Comfort)).then_some(now);
                (leg.spoke, leg.quiet) = (false, false);
                if let Some(playing) = leg.playing.take().filter(|playing| !playing.over) {
                    out.reports.push(ended(now, &plan.call, &playing));
                }
                if let Some(Source::Prompt(play)) = wanted {
                    let prompt = plan.prompts.get(play).cloned().unwrap_or(Prompt { parts: Vec::new() });
                    let lasts: Duration = prompt
                        .parts
                        .iter()
                        .map(|part| match part {
                            Part::Clip(_) => lasts.0,
                            Part::Say { .. } => lasts.1,
                        })
                        .sum();
                    let from = next_tick(now);
                    leg.playing =
                        Some(Playing { play: *play, prompt, from, until: from + lasts, over: false });
                }
            }
            let listened = plan.egress.iter().any(|(listener, source)| match source {
                Source::Leg(source) => source == id && listener != id,
                Source::Mix(sources) => sources.contains(id) && listener != id,
                Source::Prompt(_) | Source::HoldBed | Source::Silence | Source::Comfort => false,
            });
            match (listened, leg.listened_since) {
                (true, None) => leg.listened_since = Some(now),
                (false, Some(_)) => leg.listened_since = None,
                (true, Some(_)) | (false, None) => {}
            }
        }
    }

    /// Audio of the phone behind a port begins or ceases.
    pub fn flow(&mut self, now: Now, port: u16, flows: bool, out: &mut Follows) {
        let Some((call, id)) = self.ports.get(&Port(port)).cloned() else { return };
        let Some(leg) = self.leg_mut(&call, id) else { return };
        match (flows, leg.flows_since) {
            (true, None) => leg.flows_since = Some(now),
            (false, Some(_)) => {
                leg.flows_since = None;
                leg.silent_since = now;
            }
            (true, Some(_)) | (false, None) => return,
        }
        self.advance(now, &call, out);
    }

    /// What is due of a call by now.
    pub fn advance(&mut self, now: Now, call: &CallId, out: &mut Follows) {
        let Some(media) = self.calls.get_mut(call) else { return };
        let epoch = media.plan.as_ref().map_or_else(Epoch::default, |plan| plan.epoch);
        let planned_at = media.planned_at;
        let mut report = |report| out.reports.push(MediaEvent { at: now, call: call.clone(), report });
        for (id, leg) in &mut media.legs {
            let leg_id = *id;
            if leg.agreed && leg.announces.is_some_and(|at| now >= at) {
                leg.announces = None;
                report(MediaReport::Applied { epoch, egress: leg_id });
            }
            if let Some(playing) =
                leg.playing.as_mut().filter(|playing| !playing.over && now >= playing.until)
            {
                playing.over = true;
                report(MediaReport::PlayEnded { play: playing.play, played_pm: 1_000 });
            }
            if leg.drains_at.is_some_and(|at| now >= at) {
                leg.drains_at = None;
                report(MediaReport::Drained { leg: leg_id });
            }
            if leg.spoke_at().is_some_and(|at| now >= at) {
                leg.spoke = true;
                report(MediaReport::Spoke { leg: leg_id });
            }
            if leg.quiet_at().is_some_and(|at| now >= at) {
                leg.quiet = true;
                report(MediaReport::Quiet { leg: leg_id });
            }
            let Some(since) = leg.flows_since else {
                if leg.lost_at().is_some_and(|at| now >= at) {
                    leg.lost_told = true;
                    report(MediaReport::SourceLost { leg: leg_id });
                }
                continue;
            };
            if !std::mem::replace(&mut leg.first_told, true) {
                report(MediaReport::FirstRtp { leg: leg_id });
            }
            if std::mem::take(&mut leg.lost_told) {
                report(MediaReport::SourceBack { leg: leg_id });
            }
            if leg.proven < epoch && now >= since.max(planned_at) + PROOF {
                leg.proven = epoch;
                report(MediaReport::AudioSeen { leg: leg_id, epoch });
            }
        }
        let flowing: BTreeMap<LegId, bool> =
            media.legs.iter().map(|(id, leg)| (*id, leg.flows_since.is_some())).collect();
        for (id, leg) in &mut media.legs {
            let ear = leg.ear(&flowing);
            if leg.heard.as_ref() != Some(&ear) {
                leg.heard = Some(ear.clone());
                out.heard.push((call.clone(), *id, ear));
            }
        }
    }

    /// When something is due of a call next.
    pub fn next(&self, call: &CallId) -> Option<Now> {
        let media = self.calls.get(call)?;
        let epoch = media.plan.as_ref().map_or_else(Epoch::default, |plan| plan.epoch);
        media
            .legs
            .values()
            .flat_map(|leg| {
                let announces = leg.announces.filter(|_| leg.agreed);
                let ends = leg.playing.as_ref().filter(|playing| !playing.over).map(|playing| playing.until);
                let proof = leg
                    .flows_since
                    .filter(|_| leg.proven < epoch)
                    .map(|since| since.max(media.planned_at) + PROOF);
                [announces, ends, leg.drains_at, proof, leg.lost_at(), leg.spoke_at(), leg.quiet_at()]
            })
            .flatten()
            .min()
    }
}

impl Leg {
    fn lost_at(&self) -> Option<Now> {
        let listened = self.listened_since.filter(|_| self.flows_since.is_none() && !self.lost_told)?;
        self.port.map(|_| listened.max(self.silent_since) + LOST_AFTER)
    }

    /// When it is certain that a word was said, once audio comes from it.
    fn spoke_at(&self) -> Option<Now> {
        let (turn, flows) = self.turn.zip(self.flows_since).filter(|_| !self.spoke)?;
        Some(turn.max(flows) + WORD)
    }

    /// When it is certain that nothing more is said: a message is always as long.
    fn quiet_at(&self) -> Option<Now> {
        let turn = self.turn.filter(|_| !self.quiet)?;
        Some(turn + if self.spoke { MESSAGE + PAUSE } else { PAUSE })
    }

    fn ear(&self, flowing: &BTreeMap<LegId, bool>) -> Ear {
        match &self.source {
            None | Some(Source::Silence) => Ear::Nothing,
            Some(Source::HoldBed) => Ear::Bed,
            Some(Source::Comfort) => Ear::Comfort,
            Some(Source::Prompt(_)) => match &self.playing {
                Some(playing) if !playing.over && playing.until > playing.from => {
                    Ear::Play(playing.play, playing.prompt.clone())
                }
                Some(_) | None => Ear::Nothing,
            },
            Some(Source::Leg(leg)) => flowing.get(leg).map_or(Ear::Nothing, |flows| Ear::Leg(*leg, *flows)),
            Some(Source::Mix(legs)) => Ear::Legs(legs.clone()),
        }
    }
}

fn ended(now: Now, call: &CallId, playing: &Playing) -> MediaEvent {
    let (sent, all) = (now.since(playing.from).as_millis(), playing.until.since(playing.from).as_millis());
    let played_pm = (sent * 1_000).checked_div(all).unwrap_or(0).min(999) as u16;
    MediaEvent {
        at: now,
        call: call.clone(),
        report: MediaReport::PlayEnded { play: playing.play, played_pm },
    }
}

fn next_tick(now: Now) -> Now {
    let tick = TICK.as_micros() as u64;
    Now::from_micros((now.micros() / tick + 1) * tick)
}
