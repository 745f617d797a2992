//! Which telephone numbers may be dialled. A number costs money, and some are made to: premium
//! services, satellites, islands that look like a domestic call. None of these is dialled
//! unless the operator allows that very range, and nothing outside the ranges that the operator
//! allows, where there are any. It judges numbers (ITU-T E.164); it knows no prices and dials
//! nobody.

use core::fmt;

/// Fewest digits of a number that leaves the house; what is shorter is an extension.
const DIGITS_MIN: usize = 7;

/// Most digits of a number (E.164 section 6).
const DIGITS_MAX: usize = 15;

/// Most ranges that may be allowed: every country, and as many again.
pub const RANGES_MAX: usize = 512;

/// Ranges that are dialled only where they are allowed by name, and what they are.
const DENIED: [(&str, Denied); 10] = [
    ("1900", Denied::Premium),
    ("979", Denied::Premium),
    ("4490", Denied::Premium),
    ("4491", Denied::Premium),
    ("4498", Denied::Premium),
    ("870", Denied::Satellite),
    ("881", Denied::Satellite),
    ("882", Denied::Satellite),
    ("883", Denied::Satellite),
    ("888", Denied::Satellite),
];

/// Area codes of the North American plan that are islands with prices of their own.
const ISLANDS: [&str; 21] = [
    "242", "246", "264", "268", "284", "345", "441", "473", "649", "658", "664", "721", "758", "767", "784",
    "809", "829", "849", "868", "869", "876",
];

/// Why a number is not dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// More digits than any number has.
    TooLong,
    /// It has no country: it cannot be judged.
    National,
    /// Whoever is called is paid for it.
    Premium,
    /// A satellite, or a network of no country.
    Satellite,
    /// An island that looks like a domestic call.
    Island,
    /// In no range that is allowed.
    NotAllowed,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "no number has more than 15 digits",
            Self::National => "without + and its country it cannot be told from others: write it as E.164",
            Self::Premium => "it is of a premium service: dial_allow must name its range",
            Self::Satellite => "it is of a satellite or of no country: dial_allow must name its range",
            Self::Island => "it is of an island with prices of its own: dial_allow must name its range",
            Self::NotAllowed => "dial_allow names no range of it",
        })
    }
}

/// A range that may be dialled: `+` and the digits that its numbers begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range(String);

impl Range {
    /// Reads a range such as `+49` or `+1876`; `None` where it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('+')?;
        let fits = (1..=DIGITS_MAX).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        // No country begins with a zero.
        (fits && !digits.starts_with('0')).then(|| Self(digits.to_owned()))
    }
}

/// Whether the user part of a URI may be dialled. Without `allowed` every country may be; names
/// and extensions always may.
pub fn judge(user: &str, allowed: Option<&[Range]>) -> Result<(), Denied> {
    let Some((digits, international)) = number_in(user) else { return Ok(()) };
    if digits.len() > DIGITS_MAX {
        return Err(Denied::TooLong);
    }
    if !international {
        // Eleven digits behind a 1 are an American number by anybody's reading.
        return match (allowed, digits.starts_with('1') && digits.len() == 11) {
            (_, true) => judge_digits(&digits, allowed),
            (Some(_), false) => Err(Denied::National),
            (None, false) => Ok(()),
        };
    }
    judge_digits(&digits, allowed)
}

fn judge_digits(digits: &str, allowed: Option<&[Range]>) -> Result<(), Denied> {
    let longest = allowed.into_iter().flatten().filter(|range| digits.starts_with(&range.0));
    let longest = longest.map(|range| range.0.len()).max();
    let denied = DENIED.iter().find(|(range, _)| digits.starts_with(range));
    let denied = denied.map(|(range, why)| (range.len(), *why)).or_else(|| denied_american(digits));
    match (denied, longest) {
        // Allowed by name: as narrow as what is denied, or narrower.
        (Some((denied, _)), Some(longest)) if longest >= denied => Ok(()),
        (Some((_, why)), _) => Err(why),
        (None, None) if allowed.is_some() => Err(Denied::NotAllowed),
        (None, _) => Ok(()),
    }
}

/// The North American plan: islands by their area code, 976 by its exchange.
fn denied_american(digits: &str) -> Option<(usize, Denied)> {
    let behind = digits.strip_prefix('1')?;
    if behind.get(..3).is_some_and(|area| ISLANDS.contains(&area)) {
        return Some((4, Denied::Island));
    }
    (behind.get(3..6) == Some("976")).then_some((7, Denied::Premium))
}

/// The digits of a user part that is a telephone number, and whether they begin with a country;
/// `None` for names and extensions. Signs that only help the eye, and escapes of those, do not
/// count (RFC 3966 section 5.1.1).
fn number_in(user: &str) -> Option<(String, bool)> {
    let user = user.split([';', ':']).next().unwrap_or_default();
    let user = user.replace("%2B", "+").replace("%2b", "+");
    let (plus, rest) = user.strip_prefix('+').map_or((false, user.as_str()), |rest| (true, rest));
    let digits: String = rest.chars().filter(|c| !"-.()".contains(*c)).collect();
    if digits.len() < DIGITS_MIN || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    if plus {
        return Some((digits, true));
    }
    // What most of the world, and what North America, dials to leave the country.
    let abroad = ["011", "00"].into_iter().find_map(|prefix| digits.strip_prefix(prefix));
    Some(match abroad {
        Some(number) => (number.to_owned(), true),
        None => (digits, false),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(texts: &[&str]) -> Vec<Range> {
        texts.iter().map(|text| Range::parse(text).unwrap()).collect()
    }

    #[test]
    fn names_and_extensions_are_no_numbers() {
        for user in ["ann", "2001", "agent1", "queue-7", "+12", "900", "11"] {
            assert_eq!(judge(user, Some(&ranges(&["+49"]))), Ok(()), "{user}");
        }
    }

    #[test]
    fn without_ranges_every_country_may_be_dialled_and_what_costs_may_not() {
        for user in ["+18005550100", "+4930123456", "+442071234567", "18005550100", "5550100"] {
            assert_eq!(judge(user, None), Ok(()), "{user}");
        }
        for (user, why) in [
            ("+19005550100", Denied::Premium),
            ("19005550100", Denied::Premium),
            ("+1-900-555-0100", Denied::Premium),
            ("%2B19005550100", Denied::Premium),
            ("01119005550100", Denied::Premium),
            ("0019005550100", Denied::Premium),
            ("+12129765555", Denied::Premium),
            ("+979123456789", Denied::Premium),
            ("+449012345678", Denied::Premium),
            ("+88216000000", Denied::Satellite),
            ("00870123456789", Denied::Satellite),
            ("+18765550100", Denied::Island),
            ("+18095550100;phone-context=x", Denied::Island),
            ("+4930123456789012", Denied::TooLong),
        ] {
            assert_eq!(judge(user, None), Err(why), "{user}");
        }
    }

    #[test]
    fn with_ranges_nothing_else_may_be_dialled() {
        let some = ranges(&["+1", "+49"]);
        assert_eq!(judge("+18005550100", Some(&some)), Ok(()));
        assert_eq!(judge("+4930123456", Some(&some)), Ok(()));
        assert_eq!(judge("+33123456789", Some(&some)), Err(Denied::NotAllowed));
        assert_eq!(judge("030123456", Some(&some)), Err(Denied::National));
        assert_eq!(judge("+4930123456", Some(&[])), Err(Denied::NotAllowed), "none is none");
    }

    #[test]
    fn what_costs_is_dialled_where_its_own_range_is_named_and_no_wider_one() {
        let (wide, own, narrower) = (ranges(&["+1"]), ranges(&["+1876"]), ranges(&["+1876555"]));
        assert_eq!(judge("+18765550100", Some(&wide)), Err(Denied::Island));
        assert_eq!(judge("+18765550100", Some(&own)), Ok(()));
        assert_eq!(judge("+18765550100", Some(&narrower)), Ok(()));
        assert_eq!(judge("+18766660100", Some(&narrower)), Err(Denied::Island));
        assert_eq!(judge("+12129765555", Some(&ranges(&["+1212"]))), Err(Denied::Premium));
        assert_eq!(judge("+12129765555", Some(&ranges(&["+1212976"]))), Ok(()));
    }

    #[test]
    fn a_range_is_a_plus_and_digits() {
        for good in ["+1", "+49", "+1876", "+123456789012345"] {
            assert!(Range::parse(good).is_some(), "{good}");
        }
        for bad in ["", "+", "1", "+0", "+4a", "+ 49", "49+", "+1234567890123456"] {
            assert_eq!(Range::parse(bad), None, "{bad}");
        }
    }
}
