//! Requests to move a call: REFER (RFC 3515) and INVITE with Replaces (RFC 3891). Calls are
//! moved by the edge alone, on a person's word at the desktop or the API, to people of its
//! directory; so these are read, checked and declined, and what they name is never dialled.

use super::header::Address;
use super::message::Request;

/// The verdict on a REFER within a dialog. One that is well made is declined by policy.
pub(super) fn verdict(request: &Request) -> u16 {
    let one = |targets: &[Address]| targets.len() == 1;
    // RFC 3515 section 2.4.2: exactly one.
    let well_made = request.head.all("Refer-To").count() == 1
        && request.head.addresses("Refer-To").is_some_and(|targets| one(&targets));
    if well_made { 603 } else { 400 }
}

/// What stands against an INVITE that wants the place of another: nobody has the right to
/// take a running call over. `None` where it does not.
pub(super) fn replaces(request: &Request) -> Option<u16> {
    match request.head.all("Replaces").count() {
        0 => None,
        1 => Some(403),
        // RFC 3891 section 3.
        _ => Some(400),
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::tests::request;
    use super::*;

    #[test]
    fn a_refer_names_exactly_one_target_and_is_declined() {
        for (lines, status) in [
            ("Refer-To: <sip:ben@192.0.2.9>\r\n", 603),
            ("Refer-To: <sip:ben@192.0.2.9?Replaces=a%3Bto-tag%3Db%3Bfrom-tag%3Dc>\r\n", 603),
            ("r: <tel:+15555550142>\r\n", 603),
            ("", 400),
            ("Refer-To: <sip:ben@192.0.2.9>, <sip:ann@192.0.2.9>\r\n", 400),
            ("Refer-To: <sip:ben@192.0.2.9>\r\nRefer-To: <sip:ann@192.0.2.9>\r\n", 400),
            ("Refer-To: <<<\r\n", 400),
        ] {
            assert_eq!(verdict(&request("REFER", "sip:x@edge", 1, lines)), status, "{lines}");
        }
    }

    #[test]
    fn nobody_takes_the_place_of_another() {
        let one = "Replaces: a;to-tag=b;from-tag=c\r\n";
        for (lines, status) in
            [(String::new(), None), (one.to_owned(), Some(403)), (one.repeat(2), Some(400))]
        {
            assert_eq!(replaces(&request("INVITE", "sip:x@edge", 1, &lines)), status, "{lines}");
        }
    }
}
