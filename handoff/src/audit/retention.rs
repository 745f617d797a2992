//! How long the records of a call are kept: classes as data. A call may be in several, and
//! the longest governs. These are floors for deletion, never a licence to read.

use crate::clock::Timestamp;

/// A reason to keep records, with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionClass {
    /// Its name in configuration and records.
    pub name: &'static str,
    /// Days from the close of the chain.
    pub days: u32,
    /// Whose rule it follows.
    pub basis: &'static str,
}

/// All classes. The days count leap days, so that no class is a day short of its years.
pub const CLASSES: [RetentionClass; 5] = [
    RetentionClass { name: "hipaa", days: 2_192, basis: "45 CFR 164.316(b)(2)(i), six years" },
    RetentionClass { name: "tsr", days: 1_827, basis: "16 CFR 310.5, five years" },
    RetentionClass { name: "co_admt", days: 1_096, basis: "Colorado SB 26-189, three years" },
    RetentionClass { name: "sec_3y", days: 1_096, basis: "17 CFR 240.17a-4, three years" },
    RetentionClass { name: "sec_6y", days: 2_192, basis: "17 CFR 240.17a-4, six years" },
];

impl RetentionClass {
    /// The class of a name.
    pub fn named(name: &str) -> Option<Self> {
        CLASSES.into_iter().find(|class| class.name == name)
    }

    /// Until when records of a chain that was closed at `closed` are kept.
    pub const fn until(&self, closed: Timestamp) -> Timestamp {
        closed.plus_millis(self.days as i64 * 86_400_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_class_is_shorter_than_its_years() {
        let closed = Timestamp::parse("2027-03-01T00:00:00.000Z").unwrap();
        for (name, until) in [("hipaa", "2033-03-01"), ("tsr", "2032-03-01"), ("co_admt", "2030-03-01")] {
            let class = RetentionClass::named(name).unwrap();
            assert!(class.until(closed).to_string().as_str() >= until, "{name}");
        }
        assert_eq!(RetentionClass::named("forever"), None);
    }
}
