//! What a stack's resources are called: from the environment of a function, or from the stack's
//! own name where the edge or a person asks. A name that is missing is an error by its name.

use crate::ports::{
    AUDIT, COMMANDS_PREFIX, DECISIONS, PARKED, PortError, SIGNALS, WEBHOOKS_DURABLE, WEBHOOKS_LIVE,
};

/// Names of one stack. What a function may not use, it is not told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// URLs of the queues, by the names of the ports.
    pub queues: Vec<(&'static str, String)>,
    /// What every command queue's URL begins with.
    pub commands_prefix: String,
    /// The table of records.
    pub audit: String,
    /// The table of payloads.
    pub payloads: String,
    /// The table of transfers, attempts and claims.
    pub transfers: String,
    /// The bucket of transcripts and published configurations.
    pub media: String,
    /// The bucket of closed chains.
    pub archive: String,
    /// The bucket of signed checkpoints.
    pub checkpoints: String,
    /// The key that wraps data keys.
    pub data_key: String,
    /// The key that signs checkpoints.
    pub signing_key: String,
    /// What the name of a destination's secret begins with.
    pub secrets_prefix: String,
    /// The parameter that names the policy to decide by.
    pub policy_parameter: String,
    /// The parameter of what is switched off.
    pub switches_parameter: String,
}

/// The variable that names each queue.
const QUEUE_VARIABLES: [(&str, &str); 6] = [
    (SIGNALS, "WB_QUEUE_SIGNALS"),
    (DECISIONS, "WB_QUEUE_DECISIONS"),
    (WEBHOOKS_LIVE, "WB_QUEUE_WEBHOOKS_LIVE"),
    (WEBHOOKS_DURABLE, "WB_QUEUE_WEBHOOKS_DURABLE"),
    (AUDIT, "WB_QUEUE_AUDIT"),
    (PARKED, "WB_QUEUE_PARKED"),
];

/// What every command queue's URL begins with, by the URL of any of them.
fn commands_prefix(url: &str) -> String {
    let infix = format!("-{COMMANDS_PREFIX}");
    let end = url.rfind(&infix).map(|at| at + infix.len());
    end.and_then(|end| url.get(..end)).unwrap_or_default().to_owned()
}

impl Names {
    /// The names that a function's environment gives.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| variable(name).unwrap_or_default();
        let queues =
            QUEUE_VARIABLES.into_iter().filter_map(|(queue, name)| Some((queue, variable(name)?))).collect();
        Self {
            queues,
            commands_prefix: commands_prefix(&get("WB_QUEUE_COMMANDS")),
            audit: get("WB_TABLE_AUDIT"),
            payloads: get("WB_TABLE_PAYLOADS"),
            transfers: get("WB_TABLE_TRANSFERS"),
            media: get("WB_BUCKET_MEDIA"),
            archive: get("WB_BUCKET_ARCHIVE"),
            checkpoints: get("WB_BUCKET_CHECKPOINTS"),
            data_key: get("WB_DATA_KEY"),
            signing_key: get("WB_SIGNING_KEY"),
            secrets_prefix: get("WB_SECRETS_PREFIX"),
            policy_parameter: get("WB_PARAMETER_POLICY"),
            switches_parameter: get("WB_PARAMETER_SWITCHES"),
        }
    }

    /// The names that an edge or a person derives from a stack's name: its tables, and its
    /// data key by alias. Queues are asked for by name.
    pub fn of_stack(stack: &str, media: &str) -> Self {
        Self {
            audit: format!("{stack}-audit"),
            payloads: format!("{stack}-payloads"),
            transfers: format!("{stack}-transfers"),
            data_key: format!("alias/{stack}-data"),
            media: media.to_owned(),
            ..Self::default()
        }
    }

    /// The names that follow from an audit table's: its siblings lie beside it.
    pub fn of_audit_table(table: &str) -> Self {
        let stack = table.strip_suffix("-audit").unwrap_or(table);
        Self { audit: table.to_owned(), ..Self::of_stack(stack, "") }
    }

    /// The table of heads.
    pub fn heads(&self) -> String {
        format!("{}_head", self.audit)
    }

    /// The table of wrapped data keys.
    pub fn keys(&self) -> String {
        format!("{}_keys", self.audit)
    }

    /// The URL of a queue by its port name, or of a command queue by its name or URL. A
    /// command queue outside the stack is refused for good: an event could otherwise send a
    /// call's payload anywhere.
    pub fn queue_url(&self, queue: &str) -> Result<String, PortError> {
        if let Some((_, url)) = self.queues.iter().find(|(name, _)| *name == queue) {
            return Ok(url.clone());
        }
        if self.commands_prefix.is_empty() {
            return Err(PortError::Permanent("this function sends to no command queue".to_owned()));
        }
        if let Some(edge) = queue.strip_prefix(COMMANDS_PREFIX) {
            return Ok(format!("{}{edge}", self.commands_prefix));
        }
        let edge = queue.strip_prefix(&self.commands_prefix).unwrap_or_default();
        let named = !edge.is_empty() && edge.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
        if named {
            return Ok(queue.to_owned());
        }
        Err(PortError::Permanent("an event names a queue that is not of this stack".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "https://sqs.us-east-1.amazonaws.com/1234/warmbridge-commands-";

    fn names() -> Names {
        Names::from_environment(|name| match name {
            "WB_QUEUE_AUDIT" => {
                Some("https://sqs.us-east-1.amazonaws.com/1234/warmbridge-audit.fifo".to_owned())
            }
            "WB_QUEUE_COMMANDS" => Some(format!("{PREFIX}edge-1")),
            _ => None,
        })
    }

    #[test]
    fn commands_go_to_queues_of_the_own_stack_only() {
        let url = format!("{PREFIX}edge-1");
        assert_eq!(names().queue_url("commands-edge-1"), Ok(url.clone()));
        assert_eq!(names().queue_url(&url), Ok(url.clone()));
        for foreign in [
            "https://sqs.us-east-1.amazonaws.com/9999/warmbridge-commands-edge-1",
            "https://sqs.us-east-1.amazonaws.com/1234/warmbridge-audit.fifo",
            &format!("{PREFIX}edge-1/../../9999/theirs"),
            PREFIX,
            "",
        ] {
            assert!(matches!(names().queue_url(foreign), Err(PortError::Permanent(_))), "{foreign}");
        }
    }

    #[test]
    fn a_function_sends_only_where_it_was_told_to() {
        assert!(names().queue_url(AUDIT).is_ok());
        assert!(matches!(names().queue_url(DECISIONS), Err(PortError::Permanent(_))));
        assert!(Names::default().queue_url("commands-edge-1").is_err());
    }

    #[test]
    fn a_tables_siblings_follow_from_its_name() {
        let names = Names::of_audit_table("warmbridge-audit");
        assert_eq!(names.heads(), "warmbridge-audit_head");
        assert_eq!(names.keys(), "warmbridge-audit_keys");
        assert_eq!(names.data_key, "alias/warmbridge-data");
    }
}
