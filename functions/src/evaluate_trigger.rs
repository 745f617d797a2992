//! `evaluate-trigger`: a signal with its snapshot in, at most one decision per transfer out.
//! It reads nothing but the policy; the decision is a pure function of what the event
//! carries. It never dials: the edge adopts the decision, or has taken its own by then.

use std::time::Duration;

use handoff::audit::{Actor, AuditEntry, AuditMessage, ChainId, ProducerId};
use handoff::command::{Command, CommandBody};
use handoff::event::{CallEvent, Evaluable};
use handoff::id::{DecisionId, derived_text};
use handoff::policy::{Decision, Origin, Trigger};
use serde_json::{Value, json};

use crate::batch::{Failure, Handled};
use crate::config::command_queue;
use crate::outbox::{DecisionJob, JOB_VERSION};
use crate::ports::{ClaimOnce, Clock, Enqueue, Outgoing, Policies};

/// A signal older than this is not evaluated: the edge has decided by itself long ago.
pub const STALE_AFTER: Duration = Duration::from_secs(10);

/// Handles one event of the queue `signals`.
pub async fn handle<S, P, C>(store: &S, policies: &P, clock: &C, body: &[u8]) -> Result<Handled, Failure>
where
    S: Enqueue + ClaimOnce,
    P: Policies,
    C: Clock,
{
    let event = CallEvent::from_json(body).map_err(Failure::permanent)?;
    let Some(evaluable) = event.evaluable.as_deref() else {
        return Err(Failure::permanent("an event on `signals` carries no snapshot"));
    };
    let age_ms = clock.wall().unix_millis().saturating_sub(event.time.unix_millis());
    if u128::try_from(age_ms).is_ok_and(|age| age > STALE_AFTER.as_millis()) {
        tracing::info!(call_id = %event.call, age_ms, "stale signal acknowledged");
        return Ok(Handled::Done);
    }
    let version = &evaluable.snapshot.policy_version;
    let policy = policies
        .policy(version)
        .ok_or_else(|| Failure::permanent("the event's policy version is not known"))?;
    let Some(trigger) = policy.evaluate(&evaluable.snapshot, &evaluable.stimulus) else {
        return Ok(Handled::Done);
    };
    // A second reason for the same transfer joins the first; a retry of the first goes on.
    let claim = format!("decision:{}", evaluable.transfer_id);
    if !store.claim(&claim, &event.id()).await? {
        return Ok(Handled::Done);
    }
    tracing::info!(call_id = %event.call, category = trigger.category.as_str(), rule_id = trigger.rule_id, "decided");
    store.enqueue(outputs(&event, evaluable, trigger, policy.version())?).await?;
    Ok(Handled::Done)
}

fn outputs(
    event: &CallEvent,
    evaluable: &Evaluable,
    trigger: Trigger,
    version: &str,
) -> Result<Vec<Outgoing>, Failure> {
    let decision = Decision {
        decision_id: DecisionId::of(&evaluable.transfer_id),
        transfer_id: evaluable.transfer_id.clone(),
        call_id: event.call.clone(),
        trigger,
        policy_version: version.to_owned(),
        origin: Origin::Function,
    };
    let command = Command {
        id: format!("cmd_{}", derived_text(&["transfer.decided", decision.decision_id.as_str()])),
        call_id: event.call.clone(),
        body: CommandBody::TransferDecided { decision: decision.clone() },
    };
    let audit = Outgoing::audit(&AuditMessage::plain(evaluated(event, evaluable, &decision)))?;
    let job = DecisionJob {
        version: JOB_VERSION,
        tenant: event.tenant.clone(),
        edge: event.edge.clone(),
        commands: event.commands.clone(),
        seq: event.seq,
        at: event.time,
        decision,
        context: evaluable.context.clone(),
    };
    Ok(vec![send_command(&event.commands, &event.edge, &command), job.outgoing(), audit])
}

/// A command on its way to its edge.
pub(crate) fn send_command(named: &str, edge: &handoff::id::EdgeId, command: &Command) -> Outgoing {
    let body = serde_json::to_vec(command).unwrap_or_default();
    Outgoing::to(&command_queue(named, edge), &command.call_id, body)
}

/// The record of the evaluation. Its time is the event's, so that a retry has equal bytes.
fn evaluated(event: &CallEvent, evaluable: &Evaluable, decision: &Decision) -> AuditEntry {
    let snapshot = &evaluable.snapshot;
    let mut body = json!(decision.trigger);
    if let Some(members) = body.as_object_mut() {
        members.insert("transfer_id".to_owned(), json!(decision.transfer_id));
        members.insert("decision_id".to_owned(), json!(decision.decision_id));
        members.insert("ruleset".to_owned(), json!(decision.policy_version));
        members.insert("result".to_owned(), json!("transfer"));
        members.insert("event".to_owned(), json!(event.id()));
        members.insert(
            "inputs".to_owned(),
            json!({
                "elapsed_ms": snapshot.elapsed_ms,
                "confidence_pm": snapshot.confidence_pm,
                "confidence_rolling_pm": snapshot.confidence_rolling_pm,
                "turns_caller": snapshot.turns_caller,
                "turns_agent": snapshot.turns_agent,
                "tool_failures_run": snapshot.tool_failures_run,
                "failed_attempts": snapshot.failed_attempts,
            }),
        );
    }
    AuditEntry {
        tenant: event.tenant.clone(),
        chain: ChainId::of(&event.call),
        producer: ProducerId::job("evaluate-trigger", &event.id(), 0),
        pseq: 0,
        kind: "trigger.evaluated".to_owned(),
        occurred_at: event.time,
        actor: Actor::system("evaluate-trigger"),
        body: if body.is_object() { body } else { Value::Object(serde_json::Map::new()) },
        sealed: None,
        refs: None,
    }
}

#[cfg(test)]
mod tests {
    use handoff::policy::Category;

    use super::*;
    use crate::config::PolicySet;
    use crate::ports::{AUDIT, DECISIONS};
    use crate::testing::{Bench, asked, event, policy};

    async fn run(bench: &Bench, event: &CallEvent) -> Result<Handled, Failure> {
        let policies = PolicySet::new(&[policy()]);
        handle(&bench.store, &policies, &bench.clock, &event.to_json()).await
    }

    #[tokio::test]
    async fn a_caller_who_asks_for_a_person_gets_one_decision_told_to_all_who_need_it() {
        let bench = Bench::new();
        assert_eq!(run(&bench, &asked(4)).await, Ok(Handled::Done));
        let job = DecisionJob::from_json(&bench.drain(DECISIONS).await[0].body).unwrap();
        assert_eq!((job.seq, job.decision.trigger.category), (4, Category::CallerRequest));
        let command: Command = serde_json::from_slice(&bench.drain("commands-edge-1").await[0].body).unwrap();
        assert_eq!(command.body, CommandBody::TransferDecided { decision: job.decision });
        let audit = AuditMessage::from_json(&bench.drain(AUDIT).await[0].body).unwrap();
        assert_eq!(audit.entry.kind, "trigger.evaluated");
        assert!(!audit.entry.producer.is_stream());
    }

    #[tokio::test]
    async fn a_redelivered_event_repeats_itself_byte_for_byte_and_a_second_reason_joins() {
        let bench = Bench::new();
        for _ in 0..2 {
            run(&bench, &asked(4)).await.unwrap();
        }
        let repeated = bench.drain(DECISIONS).await;
        assert_eq!(repeated.len(), 2);
        assert_eq!(repeated[0].body, repeated[1].body);
        assert_eq!(bench.drain(AUDIT).await.len(), 1, "the queue drops an equal entry");
        run(&bench, &asked(5)).await.unwrap();
        assert_eq!(bench.drain(DECISIONS).await, []);
    }

    #[tokio::test]
    async fn a_stale_signal_is_acknowledged_and_nothing_follows() {
        let bench = Bench::new();
        bench.clock.pass(10_001);
        assert_eq!(run(&bench, &asked(4)).await, Ok(Handled::Done));
        assert_eq!(bench.store.outstanding().unwrap(), 0);
    }

    #[tokio::test]
    async fn a_decision_names_the_policy_that_it_was_taken_by() {
        let bench = Bench::new();
        let text = include_str!("../../handoff/policies/default.toml")
            .replace("name = \"default\"", "name = \"pinned\"");
        let pinned = std::sync::Arc::new(handoff::policy::Policy::from_toml(&text).unwrap());
        let policies = PolicySet::new(&[policy(), std::sync::Arc::clone(&pinned)]);
        let event = asked(4);
        assert_ne!(event.evaluable.as_ref().unwrap().snapshot.policy_version, pinned.version());
        let policies = crate::switches::Pinned { policies: &policies, version: Some(pinned.version()) };
        handle(&bench.store, &policies, &bench.clock, &event.to_json()).await.unwrap();
        let job = DecisionJob::from_json(&bench.drain(DECISIONS).await[0].body).unwrap();
        assert_eq!(job.decision.policy_version, pinned.version());
        let audit = AuditMessage::from_json(&bench.drain(AUDIT).await[0].body).unwrap();
        assert_eq!(audit.entry.body["ruleset"], pinned.version());
    }

    #[tokio::test]
    async fn what_cannot_be_evaluated_is_permanent() {
        let bench = Bench::new();
        let plain = event(1, handoff::event::Fact::ProducerFinal { count: 2 });
        assert!(matches!(run(&bench, &plain).await, Err(Failure::Permanent(_))));
        let mut foreign = asked(1);
        if let Some(evaluable) = &mut foreign.evaluable {
            evaluable.snapshot.policy_version = "unknown".to_owned();
        }
        assert!(matches!(run(&bench, &foreign).await, Err(Failure::Permanent(_))));
    }
}
