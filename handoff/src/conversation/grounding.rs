//! Whether a turn shows a value: the difference between a fact that the caller stated and
//! one that a model concluded. It compares words and digits after folding, and errs
//! towards "not shown".

use crate::policy::phrase::Words;

/// Fewest digits by which a number is recognised inside other digits; fewer match by chance.
const DIGITS_MIN: usize = 4;

/// Whether `text` contains `value`.
pub(super) fn shows(text: &str, value: &str) -> bool {
    let (said, sought) = (Words::of(text), Words::of(value));
    if said.contains(&sought) {
        return true;
    }
    if value.contains('@') {
        // An address is spoken with its signs: "jane at example dot com".
        return address(&said).contains(&address(&sought));
    }
    let sought_digits = digits(&sought);
    let only_digits = value.chars().all(|character| !character.is_alphabetic());
    only_digits && sought_digits.len() >= DIGITS_MIN && digits(&said).contains(&sought_digits)
}

fn address(words: &Words) -> String {
    const SIGNS: [&str; 6] = ["at", "dot", "arroba", "punto", "ponto", "arobase"];
    words.texts().filter(|word| !SIGNS.contains(word)).collect()
}

/// The digits of a text, spoken ones included, in order.
fn digits(words: &Words) -> String {
    let mut digits = String::new();
    for word in words.texts() {
        match SPOKEN_DIGITS.iter().find(|(spoken, _)| *spoken == word) {
            Some((_, digit)) => digits.push(*digit),
            None if word.bytes().all(|byte| byte.is_ascii_digit()) => digits.push_str(word),
            // Any other word breaks the number, so that two numbers never join.
            None => digits.push(' '),
        }
    }
    digits
}

const SPOKEN_DIGITS: [(&str, char); 21] = [
    ("zero", '0'),
    ("oh", '0'),
    ("one", '1'),
    ("two", '2'),
    ("three", '3'),
    ("four", '4'),
    ("five", '5'),
    ("six", '6'),
    ("seven", '7'),
    ("eight", '8'),
    ("nine", '9'),
    ("cero", '0'),
    ("uno", '1'),
    ("dos", '2'),
    ("tres", '3'),
    ("cuatro", '4'),
    ("cinco", '5'),
    ("seis", '6'),
    ("siete", '7'),
    ("ocho", '8'),
    ("nueve", '9'),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_as_it_is_spoken() {
        for (text, value, found) in [
            ("My name is Jane Roe.", "jane roe", true),
            ("My name is Janet Roe.", "jane", false),
            ("It's four seven one one, oh two.", "471102", true),
            ("It's 4711-02", "471102", true),
            ("It's 47 and 1102", "471102", false),
            ("room 12", "12", true),
            ("room 412", "12", false),
            ("jane at example dot com", "jane@example.com", true),
            ("john at example dot com", "jane@example.com", false),
            ("anything", "", false),
            ("", "x", false),
        ] {
            assert_eq!(shows(text, value), found, "{text} / {value}");
        }
    }
}
