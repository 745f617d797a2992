//! Canonical JSON after RFC 8785 (JCS), over a restricted profile: integers only and below
//! 2^53 in magnitude, object keys of printable ASCII, no duplicate keys, no lone surrogates,
//! bounded depth. Within this profile byte order of keys equals the UTF-16 order that the
//! RFC asks for, and no number ever needs the ECMAScript float algorithm.
//! Strings are never Unicode-normalised. A value outside the profile is refused, not repaired.

use core::cell::Cell;
use core::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Largest magnitude of an integer: 2^53 − 1, the largest that every JSON reader keeps exactly.
pub const INTEGER_MAX: u64 = (1 << 53) - 1;

/// Deepest nesting of arrays and objects. Contract types need 6; a higher limit costs stack
/// on hostile input, a lower one would forbid nothing that we write.
pub const DEPTH_MAX: usize = 64;

/// Why a text or a value has no canonical form. Carries no content, which may be personal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCanonical {
    /// Not JSON at all: bad syntax, bad UTF-8, a lone surrogate, or bytes after the value.
    #[error("not valid JSON at line {line} column {column}")]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// A number with a fraction or an exponent (`941.0` too), or negative zero.
    #[error("a number has a fraction, an exponent or is negative zero")]
    NotInteger,
    /// An integer of 2^53 or more in magnitude.
    #[error("an integer is 2^53 or more in magnitude")]
    IntegerTooLarge,
    /// An object names the same key twice.
    #[error("an object names the same key twice")]
    DuplicateKey,
    /// An object key holds something other than printable ASCII.
    #[error("an object key is not printable ASCII")]
    BadKey,
    /// Nested deeper than [`DEPTH_MAX`].
    #[error("nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// Valid, but not the canonical bytes of its value (order, white space or escapes).
    #[error("not in canonical form")]
    NotCanonicalBytes,
}

/// The canonical bytes of `value`.
pub fn to_bytes(value: &Value) -> Result<Vec<u8>, NotCanonical> {
    let mut out = Vec::with_capacity(256);
    write_value(value, 0, &mut out)?;
    Ok(out)
}

/// Parses one JSON value of the profile. The bytes need not be canonical; see
/// [`parse_canonical`] for those that must be.
pub fn parse_strict(bytes: &[u8]) -> Result<Value, NotCanonical> {
    let fault = Cell::new(None);
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let parsed = Strict { fault: &fault, depth: 0 }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    parsed.map_err(|error| {
        fault.get().unwrap_or_else(|| NotCanonical::Syntax { line: error.line(), column: error.column() })
    })
}

/// Parses bytes that must already be canonical: what a hash was taken over.
pub fn parse_canonical(bytes: &[u8]) -> Result<Value, NotCanonical> {
    let value = parse_strict(bytes)?;
    if to_bytes(&value)? == bytes { Ok(value) } else { Err(NotCanonical::NotCanonicalBytes) }
}

fn write_value(value: &Value, depth: usize, out: &mut Vec<u8>) -> Result<(), NotCanonical> {
    if depth > DEPTH_MAX {
        return Err(NotCanonical::TooDeep);
    }
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => write_integer(number, out)?,
        Value::String(text) => write_string(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_value(item, depth + 1, out)?;
            }
            out.push(b']');
        }
        Value::Object(members) => {
            let mut sorted: Vec<(&String, &Value)> = members.iter().collect();
            // The map may keep insertion order, if some crate of the build asks serde_json to.
            sorted.sort_unstable_by(|a, b| a.0.cmp(b.0));
            out.push(b'{');
            for (index, (key, member)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                check_key(key)?;
                write_string(key, out);
                out.push(b':');
                write_value(member, depth + 1, out)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

fn check_key(key: &str) -> Result<(), NotCanonical> {
    if key.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) { Ok(()) } else { Err(NotCanonical::BadKey) }
}

fn write_integer(number: &Number, out: &mut Vec<u8>) -> Result<(), NotCanonical> {
    let (sign, magnitude) = match (number.as_u64(), number.as_i64()) {
        (Some(unsigned), _) => ("", unsigned),
        (None, Some(signed)) => ("-", signed.unsigned_abs()),
        (None, None) => return Err(NotCanonical::NotInteger),
    };
    if magnitude > INTEGER_MAX {
        return Err(NotCanonical::IntegerTooLarge);
    }
    out.extend_from_slice(sign.as_bytes());
    out.extend_from_slice(magnitude.to_string().as_bytes());
    Ok(())
}

//= https://www.rfc-editor.org/rfc/rfc8785#section-3.2.2.2
//# If the Unicode value falls within the traditional ASCII control
//# character range (U+0000 through U+001F), it MUST be serialized
//# using lowercase hexadecimal Unicode notation (\uhhhh) unless it is
//# in the set of predefined JSON control characters U+0008, U+0009,
//# U+000A, U+000C, or U+000D, which MUST be serialized as \b, \t, \n,
//# \f, and \r, respectively.
fn write_string(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x09 => out.extend_from_slice(b"\\t"),
            0x0a => out.extend_from_slice(b"\\n"),
            0x0c => out.extend_from_slice(b"\\f"),
            0x0d => out.extend_from_slice(b"\\r"),
            0x00..=0x1f => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 0x0f)]);
            }
            0x20..=0xff => out.push(byte),
        }
    }
    out.push(b'"');
}

/// Builds a `Value` and notes the first fault in `fault`, since serde's own error is only text.
#[derive(Clone, Copy)]
struct Strict<'f> {
    fault: &'f Cell<Option<NotCanonical>>,
    depth: usize,
}

impl Strict<'_> {
    fn refuse<E: serde::de::Error>(self, fault: NotCanonical) -> E {
        self.fault.set(Some(fault));
        E::custom(fault)
    }

    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth >= DEPTH_MAX {
            return Err(self.refuse(NotCanonical::TooDeep));
        }
        Ok(Self { fault: self.fault, depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        if value > INTEGER_MAX {
            return Err(self.refuse(NotCanonical::IntegerTooLarge));
        }
        Ok(Value::from(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        if value.unsigned_abs() > INTEGER_MAX {
            return Err(self.refuse(NotCanonical::IntegerTooLarge));
        }
        Ok(Value::from(value))
    }

    fn visit_f64<E: serde::de::Error>(self, _value: f64) -> Result<Value, E> {
        // Integers beyond 64 bits arrive here too; they are refused either way.
        Err(self.refuse(NotCanonical::NotInteger))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut object = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            if let Err(fault) = check_key(&key) {
                return Err(self.refuse(fault));
            }
            if object.contains_key(&key) {
                return Err(self.refuse(NotCanonical::DuplicateKey));
            }
            let member = members.next_value_seed(inner)?;
            object.insert(key, member);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn canonical(value: &Value) -> String {
        String::from_utf8(to_bytes(value).unwrap()).unwrap()
    }

    #[test]
    fn keys_are_sorted_and_white_space_is_gone_at_every_level() {
        let value =
            parse_strict(br#" { "b" : [ 1 , { "z":null, "a":true } ], "a" : -7, "B": "x" } "#).unwrap();
        assert_eq!(canonical(&value), r#"{"B":"x","a":-7,"b":[1,{"a":true,"z":null}]}"#);
    }

    #[test]
    fn strings_are_escaped_as_rfc_8785_says_and_nothing_else_is() {
        //= https://www.rfc-editor.org/rfc/rfc8785#section-3.2.2.2
        //= type=test
        //# If the Unicode value falls within the traditional ASCII control
        //# character range (U+0000 through U+001F), it MUST be serialized
        //# using lowercase hexadecimal Unicode notation (\uhhhh) unless it is
        //# in the set of predefined JSON control characters U+0008, U+0009,
        //# U+000A, U+000C, or U+000D, which MUST be serialized as \b, \t, \n,
        //# \f, and \r, respectively.
        let text = "\u{20ac}$\u{f}\nA'B\"\\\"/\u{8}\u{9}\u{c}\r\u{7f}\u{1f}\u{1f600}";
        assert_eq!(
            canonical(&json!(text)),
            "\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\"/\\b\\t\\f\\r\u{7f}\\u001f\u{1f600}\""
        );
    }

    #[test]
    fn what_is_outside_the_profile_is_refused_with_its_reason() {
        let deep = "[".repeat(DEPTH_MAX + 1) + &"]".repeat(DEPTH_MAX + 1);
        for (text, reason) in [
            ("941.0", NotCanonical::NotInteger),
            (r#"{"a":1e3}"#, NotCanonical::NotInteger),
            ("-0", NotCanonical::NotInteger),
            ("9007199254740992", NotCanonical::IntegerTooLarge),
            ("-9007199254740992", NotCanonical::IntegerTooLarge),
            ("99999999999999999999", NotCanonical::NotInteger),
            (r#"{"a":1,"a":1}"#, NotCanonical::DuplicateKey),
            (r#"{"a":{"b":1,"\u0062":2}}"#, NotCanonical::DuplicateKey),
            (r#"{"ä":1}"#, NotCanonical::BadKey),
            (r#"{"\n":1}"#, NotCanonical::BadKey),
            (deep.as_str(), NotCanonical::TooDeep),
        ] {
            assert_eq!(parse_strict(text.as_bytes()), Err(reason), "{text}");
        }
        for text in
            [r#""\ud800""#, r#""\ud800x""#, r#""\udc00\ud800""#, "", "{", "1 2", "[1,]", "01", "\u{feff}1"]
        {
            let refused = parse_strict(text.as_bytes());
            assert!(matches!(refused, Err(NotCanonical::Syntax { .. })), "{text} {refused:?}");
        }
        assert!(matches!(parse_strict(b"\"\xff\""), Err(NotCanonical::Syntax { .. })));
    }

    #[test]
    fn values_outside_the_profile_have_no_canonical_bytes() {
        let deep = (0..=DEPTH_MAX).fold(Value::Null, |inner, _| json!([inner]));
        for (value, reason) in [
            (json!(1.5), NotCanonical::NotInteger),
            (json!(941.0), NotCanonical::NotInteger),
            (json!(1_u64 << 53), NotCanonical::IntegerTooLarge),
            (json!(i64::MIN), NotCanonical::IntegerTooLarge),
            (json!({ "\u{7f}": 1 }), NotCanonical::BadKey),
            (deep, NotCanonical::TooDeep),
        ] {
            assert_eq!(to_bytes(&value), Err(reason));
        }
        assert_eq!(
            canonical(&json!([INTEGER_MAX, -9_007_199_254_740_991_i64])),
            "[9007199254740991,-9007199254740991]"
        );
    }

    #[test]
    fn only_canonical_bytes_pass_where_a_hash_was_taken() {
        assert_eq!(parse_canonical(br#"{"a":1,"b":"x"}"#), Ok(json!({ "a": 1, "b": "x" })));
        for text in [r#"{"b":1,"a":1}"#, r#"{"a": 1}"#, r#""\u0041""#, r#""\/""#, "[1]\n"] {
            assert_eq!(parse_canonical(text.as_bytes()), Err(NotCanonical::NotCanonicalBytes), "{text}");
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-9_007_199_254_740_991_i64..=9_007_199_254_740_991).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map("[ -~]{0,8}", inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn canonical_bytes_parse_back_to_the_same_value_and_bytes(value in any_value()) {
            let bytes = to_bytes(&value).unwrap();
            prop_assert_eq!(parse_canonical(&bytes), Ok(value));
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_strict(&bytes);
        }

        #[test]
        fn json_like_text_parses_to_one_fixed_point_or_is_refused(text in "[\\[\\]{}\",:0-9.eE\\\\u \n-]{0,40}") {
            if let Ok(value) = parse_strict(text.as_bytes()) {
                prop_assert_eq!(parse_canonical(&to_bytes(&value).unwrap()), Ok(value));
            }
        }
    }
}
