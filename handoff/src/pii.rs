//! `Pii<T>` wraps personal data so that it cannot be printed by accident: `Debug` and
//! `Display` say `[redacted]`, and [`Pii::expose`] is the one greppable way out.
//! It does serialise, because contracts carry personal data by design; who may receive it
//! is decided by `redact` and by each destination's grants, not here.

use core::fmt;

use serde::{Deserialize, Serialize};

/// A value that identifies or describes a person.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pii<T>(T);

impl<T> Pii<T> {
    /// Marks `value` as personal.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself. Each use is a decision; search for `expose()` to audit them.
    pub const fn expose(&self) -> &T {
        &self.0
    }

    /// Gives the value up.
    pub fn into_exposed(self) -> T {
        self.0
    }
}

impl<T> From<T> for Pii<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<T> fmt::Debug for Pii<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<T> fmt::Display for Pii<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_debug_nor_display_shows_the_value() {
        let number = Pii::new("+15555550142".to_owned());
        assert_eq!(
            format!("{number} {number:?} {:?}", Some(&number)),
            "[redacted] [redacted] Some([redacted])"
        );
        assert_eq!(number.expose(), "+15555550142");
    }
}
