//! Inputs that are several messages in an order: `%% words of the step`, a line end, and the
//! bytes of the step up to the next such line. Every sequence of bytes is a script, so that a
//! mutated one still says something.

/// Most steps of one script that are played: a mutation may repeat a line a thousand times.
const STEPS_MAX: usize = 48;

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step<'a> {
    /// What happens.
    pub(crate) words: Vec<&'a str>,
    /// With what.
    pub(crate) bytes: &'a [u8],
}

impl Step<'_> {
    pub(crate) fn word(&self, at: usize) -> &str {
        self.words.get(at).copied().unwrap_or_default()
    }

    /// A number among the words, at most `max`.
    pub(crate) fn number(&self, at: usize, max: u64) -> u64 {
        self.word(at).parse::<u64>().unwrap_or_default().min(max)
    }
}

/// The steps of an input. Bytes before the first header belong to no step.
pub(crate) fn steps(input: &[u8]) -> Vec<Step<'_>> {
    let mut starts: Vec<usize> = Vec::new();
    for at in 0..input.len() {
        let at_line_start = at == 0 || input.get(at - 1) == Some(&b'\n');
        if at_line_start && input.get(at..).is_some_and(|rest| rest.starts_with(HEADER)) {
            starts.push(at);
        }
    }
    let ends = starts.iter().skip(1).copied().chain([input.len()]);
    starts
        .iter()
        .zip(ends)
        .take(STEPS_MAX)
        .filter_map(|(start, end)| {
            let step = input.get(start + HEADER.len()..end)?;
            let header = step.iter().position(|byte| *byte == b'\n').unwrap_or(step.len());
            let words = core::str::from_utf8(step.get(..header)?).unwrap_or_default().split_whitespace();
            let bytes = step.get(header + 1..).unwrap_or_default();
            // The line end before the next header is the script's, not the message's.
            let bytes = if end < input.len() { bytes.strip_suffix(b"\n").unwrap_or(bytes) } else { bytes };
            Some(Step { words: words.collect(), bytes })
        })
        .collect()
}

const HEADER: &[u8] = b"%% ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_cut_at_its_headers_and_bytes_are_kept() {
        let script = b"left out\n%% udp carrier\nA\r\nB\r\n\n%% wait 500\n%% x\n";
        let found: Vec<_> = steps(script).into_iter().map(|step| (step.words, step.bytes)).collect();
        let expected: Vec<(Vec<&str>, &[u8])> =
            vec![(vec!["udp", "carrier"], b"A\r\nB\r\n"), (vec!["wait", "500"], b""), (vec!["x"], b"")];
        assert_eq!(found, expected);
    }
}
