//! Counts sentences. Abbreviations, decimals and initials do not end one; the end of the
//! text always does.

/// Abbreviations after which a sentence goes on.
const ABBREVIATIONS: [&str; 24] = [
    "mr", "mrs", "ms", "dr", "prof", "sr", "jr", "st", "vs", "e.g", "i.e", "dept", "hon", "jan", "feb",
    "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov",
];

/// Words that are abbreviations only before a number: "invoice no. 12", but "he said no."
const BEFORE_NUMBERS: [&str; 5] = ["no", "nr", "ext", "fig", "approx"];

/// Abbreviations that may also be the last word: a capital after them begins a sentence.
const CLOSING_ABBREVIATIONS: [&str; 9] = ["dec", "a.m", "p.m", "etc", "inc", "ltd", "co", "corp", "ave"];

/// How many sentences `text` has.
pub(super) fn count(text: &str) -> usize {
    let mut sentences = 0;
    let mut words_since = false;
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let after = rest.get(letter.len_utf8()..).unwrap_or_default();
        if matches!(letter, '.' | '!' | '?' | '…' | '。' | '！' | '？') && words_since {
            let done = text.len() - rest.len();
            if ends(letter, text.get(..done).unwrap_or_default(), after) {
                sentences += 1;
                words_since = false;
            }
        } else if letter.is_alphanumeric() {
            words_since = true;
        }
        rest = after;
    }
    sentences + usize::from(words_since)
}

/// Whether the mark between `before` and `after` ends a sentence.
fn ends(mark: char, before: &str, after: &str) -> bool {
    if matches!(mark, '。' | '！' | '？') {
        return true;
    }
    let tail = after.trim_start_matches(['.', '!', '?', '…', '"', '\'', '”', '’', ')', ']']);
    if tail.trim().is_empty() {
        return true;
    }
    if !tail.starts_with(char::is_whitespace) {
        // "3.5", "example.com", "a.m"
        return false;
    }
    if mark != '.' {
        return true;
    }
    let word =
        before.rsplit(|c: char| c.is_whitespace() || matches!(c, '(' | '"')).next().unwrap_or_default();
    let word = word.to_lowercase();
    let numbered = tail.trim_start().starts_with(|next: char| next.is_ascii_digit());
    if numbered && BEFORE_NUMBERS.contains(&word.as_str()) {
        return false;
    }
    let next_capital = tail.trim_start().starts_with(char::is_uppercase);
    let initial = word.chars().count() == 1 && word.chars().all(char::is_alphabetic);
    if initial || ABBREVIATIONS.contains(&word.as_str()) {
        return false;
    }
    next_capital || !CLOSING_ABBREVIATIONS.contains(&word.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abbreviations_decimals_and_initials_do_not_end_a_sentence() {
        for (text, sentences) in [
            ("", 0),
            ("The answer was no. She waits.", 2),
            ("...", 0),
            ("One sentence without an end", 1),
            ("One. Two! Three?", 3),
            ("Dr. J. Smith paid $3.50 to example.com. He wants it back.", 2),
            ("The visit is at 3 p.m. on Monday. Please confirm.", 2),
            ("The visit is at 3 p.m. Please confirm.", 2),
            ("She said \"no.\" Then she left.", 2),
            ("Wait... what?! Yes.", 3),
            ("Moved to Dec. 3 by mistake. She waits.", 2),
            ("Invoice no. 12 is open, e.g. for paper. It is late.", 2),
            ("それは本です。はい。", 2),
        ] {
            assert_eq!(count(text), sentences, "{text}");
        }
    }
}
