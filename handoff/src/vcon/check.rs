//! What the draft of vCon says in words and its JSON schema lets pass: names of older drafts,
//! a transfer without its parties or with content, an attempt without its outcome, an index
//! that points nowhere, digits that somebody pressed.

use serde_json::Value;

/// Names that older drafts had.
const RENAMED: [&str; 7] =
    ["transfer-target", "target-dialog", "transfer-dialog", "appended", "must_support", "mimetype", "alg"];

/// What a transfer must say.
const TRANSFER: [&str; 4] = ["transferee", "transferor", "transfer_target", "original"];

/// What a transfer must not have: it is no conversation.
const NO_CONTENT: [&str; 8] =
    ["parties", "originator", "mediatype", "filename", "content", "body", "url", "content_hash"];

/// Everything that is wrong with a vCon; nothing where it is right.
pub fn faults(vcon: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    renamed(vcon, &mut faults);
    if vcon.get("redacted").is_some() && vcon.get("amended").is_some() {
        faults.push("both redacted and amended".to_owned());
    }
    let parties = list(vcon, "parties").len();
    let dialogs = list(vcon, "dialog").len();
    for (index, dialog) in list(vcon, "dialog").iter().enumerate() {
        let mut fault = |text: &str| faults.push(format!("dialog {index}: {text}"));
        match dialog.get("type").and_then(Value::as_str) {
            Some("transfer") => {
                for member in TRANSFER.iter().filter(|member| dialog.get(**member).is_none()) {
                    fault(&format!("a transfer lacks {member}"));
                }
                for member in NO_CONTENT.iter().filter(|member| dialog.get(**member).is_some()) {
                    fault(&format!("a transfer has {member}"));
                }
            }
            Some("incomplete") if dialog.get("disposition").is_none() => {
                fault("incomplete without disposition")
            }
            Some("incomplete" | "recording" | "text" | "recording-set") => {}
            Some(_) | None => fault("no type"),
        }
        for event in list(dialog, "party_history") {
            if matches!(event.get("event").and_then(Value::as_str), Some("keydown" | "keyup")) {
                fault("a pressed digit is exported");
            }
        }
        for (members, bound) in [
            (["parties", "transferee", "transferor", "transfer_target"], parties),
            (["original", "consultation", "target_dialog", "recording_set"], dialogs),
        ] {
            for member in members {
                if dialog.get(member).is_some_and(|value| !within(value, bound)) {
                    fault(&format!("{member} points nowhere"));
                }
            }
        }
    }
    for (index, attachment) in list(vcon, "attachments").iter().enumerate() {
        for (member, bound) in [("party", parties), ("dialog", dialogs)] {
            if !attachment.get(member).is_some_and(|value| within(value, bound)) {
                faults.push(format!("attachment {index}: {member} is missing or points nowhere"));
            }
        }
        for member in ["purpose", "start"] {
            if attachment.get(member).is_none() {
                faults.push(format!("attachment {index}: {member} is missing"));
            }
        }
    }
    faults
}

/// Every index of `value`, a number or a list, is below `bound`.
fn within(value: &Value, bound: usize) -> bool {
    let below = |index: &Value| index.as_u64().is_some_and(|index| index < bound as u64);
    value.as_array().map_or_else(|| below(value), |all| all.iter().all(below))
}

fn list<'a>(value: &'a Value, member: &str) -> &'a [Value] {
    value.get(member).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Old names in the vCon's own objects; bodies are somebody else's.
fn renamed(vcon: &Value, faults: &mut Vec<String>) {
    let own = ["parties", "dialog", "analysis", "attachments"];
    let objects = core::iter::once(vcon).chain(own.into_iter().flat_map(|member| list(vcon, member)));
    for object in objects {
        for name in RENAMED.iter().filter(|name| object.get(**name).is_some()) {
            faults.push(format!("{name} is a name of an older draft"));
        }
    }
}
