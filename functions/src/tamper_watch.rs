//! The watch over the records: the writers only ever add rows, so whoever changes or removes one
//! goes behind their back, with the rights of a writer or of an operator. The table's stream
//! tells of it within seconds; the verdict on the chain itself is the verifier's.

use serde::Deserialize;
use serde_json::{Map, Value};

/// Where the keys of records begin.
const RECORD: &str = "EVT#";

/// The one attribute that may change: when the store may forget an archived record.
const TTL: &str = "ttl";

/// What the store itself removes, when that time has come.
const STORE: &str = "dynamodb.amazonaws.com";

/// The event that a table's stream invokes a function with.
#[derive(Debug, Deserialize)]
pub struct StreamOfRecords {
    #[serde(rename = "Records", default)]
    records: Vec<Change>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    event_name: String,
    #[serde(default)]
    user_identity: Option<Identity>,
    dynamodb: Images,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    #[serde(default)]
    principal_id: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Images {
    keys: Map<String, Value>,
    new_image: Map<String, Value>,
    old_image: Map<String, Value>,
}

/// A row that was changed or removed and should not have been. Keys hold ids and nothing
/// personal.
#[derive(Debug, PartialEq, Eq)]
pub struct Tampering<'a> {
    /// The chain's key.
    pub chain: &'a str,
    /// The record's key.
    pub record: &'a str,
    /// `MODIFY` or `REMOVE`.
    pub what: &'a str,
}

impl StreamOfRecords {
    /// What nobody should have done.
    pub fn tampering(&self) -> Vec<Tampering<'_>> {
        self.records.iter().filter_map(Change::tampering).collect()
    }
}

impl Change {
    fn tampering(&self) -> Option<Tampering<'_>> {
        let key = |name: &str| self.dynamodb.keys.get(name)?.get("S")?.as_str();
        let (chain, record) = (key("PK")?, key("SK")?);
        let by_store = self.user_identity.as_ref().is_some_and(|by| by.principal_id == STORE);
        let fair = match self.event_name.as_str() {
            "INSERT" => true,
            "REMOVE" => by_store,
            _ => self.dynamodb.differ_in_ttl_alone(),
        };
        let ours = record.starts_with(RECORD);
        (ours && !fair).then_some(Tampering { chain, record, what: &self.event_name })
    }
}

impl Images {
    fn differ_in_ttl_alone(&self) -> bool {
        let rest = |image: &Map<String, Value>| {
            let mut rest = image.clone();
            rest.remove(TTL);
            rest
        };
        !self.new_image.is_empty() && rest(&self.new_image) == rest(&self.old_image)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(change: Value) -> usize {
        let stream: StreamOfRecords = serde_json::from_value(json!({"Records": [change]})).unwrap();
        stream.tampering().len()
    }

    fn change(name: &str, record: &str, old: Value, new: Value) -> Value {
        json!({"eventName": name, "eventID": "1", "dynamodb": {"SequenceNumber": "1",
            "Keys": {"PK": {"S": "T#t_acme#C#call_0001"}, "SK": {"S": record}},
            "OldImage": old, "NewImage": new}})
    }

    #[test]
    fn a_record_that_is_changed_or_removed_is_told_of() {
        let (was, is) = (json!({"cj": {"B": "eyJ9"}}), json!({"cj": {"B": "eyJ8"}}));
        assert_eq!(told(change("MODIFY", "EVT#00000007", was.clone(), is)), 1);
        assert_eq!(told(change("REMOVE", "EVT#00000007", was.clone(), json!({}))), 1);
        assert_eq!(told(change("MODIFY", "EVT#00000007", was, json!({}))), 1);
    }

    #[test]
    fn what_writers_and_the_store_do_is_not() {
        let was = json!({"cj": {"B": "eyJ9"}});
        let marked = json!({"cj": {"B": "eyJ9"}, "ttl": {"N": "1900000000"}});
        assert_eq!(told(change("INSERT", "EVT#00000007", json!({}), was.clone())), 0);
        assert_eq!(told(change("MODIFY", "EVT#00000007", was.clone(), marked.clone())), 0);
        assert_eq!(told(change("MODIFY", "IDEM#edge-1#00000007", was, json!({}))), 0);
        let mut expired = change("REMOVE", "EVT#00000007", marked, json!({}));
        expired["userIdentity"] = json!({"type": "Service", "principalId": "dynamodb.amazonaws.com"});
        assert_eq!(told(expired), 0);
    }

    #[test]
    fn a_time_to_forget_may_be_set_moved_and_taken_away_but_nothing_beside_it() {
        let of = |cj: &str, ttl: Option<&str>| match ttl {
            Some(ttl) => json!({"cj": {"B": cj}, "ttl": {"N": ttl}}),
            None => json!({"cj": {"B": cj}}),
        };
        let (early, late) = (Some("1900000000"), Some("2000000000"));
        for (was, is) in [(None, early), (early, late), (late, None)] {
            assert_eq!(told(change("MODIFY", "EVT#00000007", of("eyJ9", was), of("eyJ9", is))), 0);
            assert_eq!(told(change("MODIFY", "EVT#00000007", of("eyJ9", was), of("eyJ8", is))), 1);
        }
    }

    #[test]
    fn a_removal_by_somebody_is_told_of_even_behind_the_time_to_forget() {
        let marked = json!({"ttl": {"N": "1900000000"}});
        let mut removed = change("REMOVE", "EVT#00000007", marked, json!({}));
        removed["userIdentity"] = json!({"type": "IAMUser", "principalId": "AIDA"});
        assert_eq!(told(removed), 1);
    }
}
