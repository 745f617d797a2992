//! Framing of SIP on a TCP stream (RFC 3261 section 18.3): Content-Length or nothing. A
//! stream whose framing is lost is closed; where the next message starts is never guessed,
//! because that is how a body becomes a request. CRLF between messages is keep-alive
//! (RFC 5626 section 4.4.1).

use super::message::MESSAGE_BYTES_MAX;

/// What a stream yielded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Framed {
    /// One whole message.
    Message(Vec<u8>),
    /// A double CRLF that wants a CRLF back.
    Ping,
    /// A CRLF alone: the answer to one of ours, or an empty line before a message.
    Pong,
    /// Framing is lost: answer the head with 400 if it can be, then close.
    Broken(Vec<u8>),
}

/// One connection's unread bytes.
#[derive(Debug, Default)]
pub(super) struct Framer {
    pending: Vec<u8>,
}

impl Framer {
    /// Adds bytes and takes what became whole.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<Framed> {
        self.pending.extend_from_slice(bytes);
        let mut framed = Vec::new();
        loop {
            while self.pending.starts_with(b"\r\n") {
                let ping = self.pending.starts_with(b"\r\n\r\n");
                self.pending.drain(..if ping { 4 } else { 2 });
                framed.push(if ping { Framed::Ping } else { Framed::Pong });
            }
            let Some(head_end) = self.pending.windows(4).position(|window| window == b"\r\n\r\n") else {
                if self.pending.len() > MESSAGE_BYTES_MAX {
                    framed.push(Framed::Broken(std::mem::take(&mut self.pending)));
                }
                return framed;
            };
            let body_start = head_end + 4;
            let length = self.pending.get(..head_end).and_then(content_length);
            let Some(end) = length.and_then(|length| body_start.checked_add(length)) else {
                framed.push(Framed::Broken(std::mem::take(&mut self.pending)));
                return framed;
            };
            if end > MESSAGE_BYTES_MAX {
                framed.push(Framed::Broken(std::mem::take(&mut self.pending)));
                return framed;
            }
            if self.pending.len() < end {
                return framed;
            }
            framed.push(Framed::Message(self.pending.drain(..end).collect()));
        }
    }

    /// Whether a message has begun and not ended.
    pub(super) const fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }
}

/// The one Content-Length of a head: digits only, exactly once.
fn content_length(head: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(head);
    let unfolded = text.replace("\r\n ", " ").replace("\r\n\t", " ");
    let mut found = None;
    for (name, value) in unfolded.split("\r\n").skip(1).filter_map(|line| line.split_once(':')) {
        let name = name.trim();
        if name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("l") {
            let value = value.trim();
            if found.is_some() || value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            found = Some(value.parse::<usize>().ok()?);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &[u8] = b"OPTIONS sip:a@b SIP/2.0\r\nContent-Length: 3\r\n\r\nabc";

    #[test]
    fn a_message_is_whole_at_any_split() {
        for split in 0..=ONE.len() {
            let mut framer = Framer::default();
            let mut framed = framer.push(&ONE[..split]);
            framed.extend(framer.push(&ONE[split..]));
            assert_eq!(framed, [Framed::Message(ONE.to_vec())], "{split}");
            assert!(!framer.is_waiting());
        }
    }

    #[test]
    fn two_messages_in_one_read_are_two() {
        let mut framer = Framer::default();
        assert_eq!(framer.push(&[ONE, ONE].concat()).len(), 2);
    }

    #[test]
    fn keep_alive_between_messages_is_a_ping() {
        let mut framer = Framer::default();
        assert_eq!(framer.push(b"\r\n\r\n"), [Framed::Ping]);
        assert_eq!(framer.push(b"\r\n"), [Framed::Pong]);
    }

    #[test]
    fn a_missing_repeated_negative_or_huge_length_breaks_the_stream() {
        for lengths in [
            "",
            "l: 3\r\nContent-Length: 3\r\n",
            "l: -3\r\n",
            "l: +3\r\n",
            "l: 18446744073709551615\r\n",
            "l: 70000\r\n",
        ] {
            let bytes = format!("OPTIONS sip:a@b SIP/2.0\r\n{lengths}\r\nabc");
            let framed = Framer::default().push(bytes.as_bytes());
            assert!(matches!(framed.as_slice(), [Framed::Broken(_)]), "{lengths}");
        }
    }

    #[test]
    fn a_head_that_never_ends_breaks_the_stream() {
        let mut framer = Framer::default();
        let framed = framer.push(&vec![b'a'; MESSAGE_BYTES_MAX + 1]);
        assert!(matches!(framed.as_slice(), [Framed::Broken(_)]));
    }
}
