//! Tests of the redactor: phrases, spoken digits, questions and bare answers.

use proptest::prelude::*;

use super::*;

const CARDS: [&str; 8] = [
    "4111111111111111",
    "5555555555554444",
    "378282246310005",
    "6011111111111117",
    "30569309025904",
    "3530111333300000",
    "2221000000000009",
    "36227206271667",
];

const WORDS: [&str; 10] = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];

fn cleaned(text: &str) -> String {
    pci(text).text
}

fn answered(question: &str, answer: &str) -> String {
    redact(answer, Level::R1Pci, &PriorTurns { question: Some(question), payment: false }).text
}

fn at_level(level: Level, text: &str) -> String {
    redact(text, level, &PriorTurns::default()).text
}

#[test]
fn a_card_number_goes_however_it_is_said() {
    for text in [
        "4111111111111111",
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "four one one one one one one one one one one one one one one one",
        "forty one eleven eleven eleven eleven eleven eleven eleven",
        "four triple one, double one double one, um, double one double one and triple one one",
        "it's five five five five, five five five five, uh, five five five five, four four four four",
        "thirty seven eighty two eighty two twenty four sixty three ten oh oh five",
        "3782 822463 10005",
        "four one 1 1 okay 1111 then 1111 dash one one one one",
        "４１１１１１１１１１１１１１１１",
        "order 7 4111111111111111",
        "4.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1",
    ] {
        let redacted = pci(text);
        assert!(redacted.text.contains("[PAN]"), "{text} -> {}", redacted.text);
        assert_eq!(redacted.counts, vec![(Class::Pan, 1)], "{text}");
    }
}

#[test]
fn other_numbers_stay() {
    for text in [
        "My order number is 4111111111111112.",
        "I was born on April 12 1980 and live at 12 Main Street.",
        "Call me at 555 555 0142.",
        "The total is 1,299.50 for three items.",
        "My zip code is 94110.",
        "Tracking number one two three four five six seven eight nine oh",
        "I moved it from the third to the twenty first.",
        "Oh, I have two appointments and one question, so...",
        "double check that and triple check this",
    ] {
        assert_eq!(pci(text), Redacted { text: text.to_owned(), counts: vec![] }, "{text}");
    }
}

#[test]
fn a_verification_code_goes_with_its_context_before_it_after_it_or_in_the_question() {
    for (text, expected) in [
        ("the CVV is 123", "the CVV is [CVV]"),
        ("my security code, let me see, is one two three", "my security code, let me see, is [CVV]"),
        ("C V C: 1234", "C V C: [CVV]"),
        ("four five six is the code on the back of my card", "[CVV] is the code on the back of my card"),
        ("123's my c.v.v.", "[CVV]'s my c.v.v."),
        ("my pin is 9 8 7 6", "my pin is [PIN]"),
        ("4111111111111111, it expires oh four twenty eight", "[PAN], it expires [CVV]"),
        ("4111 1111 1111 1111 04 28 123", "[PAN]"),
        ("my pin has 3 pins and 12 dots", "my pin has 3 pins and 12 dots"),
    ] {
        assert_eq!(cleaned(text), expected, "{text}");
    }
    assert_eq!(answered("What is the security code?", "123"), "[CVV]");
    assert_eq!(answered("And the three digits on the back?", "one, uh, two three"), "[CVV]");
    assert_eq!(
        answered("Please say your PIN.", "it's one two three, sorry, four"),
        "it's [PIN], sorry, [PIN]"
    );
    assert_eq!(answered("What is your order number?", "123"), "123");
}

#[test]
fn stripe_data_goes_whole() {
    assert_eq!(cleaned(";4111111111111111=28041010000012345678?"), ";[TRACK]?");
    assert_eq!(cleaned("%B4111111111111111^DOE/JANE^28041010000012345678? ok"), "%B[TRACK]? ok");
}

#[test]
fn during_a_payment_every_longer_number_goes() {
    let prior = PriorTurns { question: None, payment: true };
    let during = |text: &str| redact(text, Level::R1Pci, &prior).text;
    assert_eq!(during("4111 1111 no wait 1111 1112"), "[PAN] no wait [PAN]");
    assert_eq!(during("it is one two three"), "it is [CVV]");
    assert_eq!(during("I have two cards"), "I have two cards");
}

#[test]
fn personal_data_stays_at_the_payment_level_and_goes_at_the_personal_one() {
    for (text, expected) in [
        ("my social is 219 09 9999", "my social is [SSN]"),
        ("219-09-9999", "[SSN]"),
        ("social security number two one nine oh nine nine nine nine nine", "social security number [SSN]"),
        ("the last four of my social are 9999", "the last four of my social are [SSN4]"),
        ("I was born on April twelfth nineteen eighty", "I was born on [DOB]"),
        ("date of birth 04/12/1980", "date of birth [DOB]"),
        ("write to dana.ortiz+x@mail.example.com please", "write to [EMAIL] please"),
        ("it's dana dot ortiz at example dot com", "it's [EMAIL]"),
        ("call +44 20 7946 0958", "call +[PHONE]"),
        ("(415) 555-0142", "([PHONE]"),
        ("reach me at 555 0142", "reach me at [PHONE]"),
        ("I live at 12 Old Mill Road in town", "I live at [ADDRESS] in town"),
        ("zip 94110", "zip [ADDRESS]"),
        ("my bank account number is 000123456", "my bank account number is [BANK]"),
        ("MRN 884421", "MRN [MRN]"),
        ("driver's license D1234567", "driver's license D[DRIVER_LICENCE]"),
    ] {
        assert_eq!(at_level(Level::R1Pci, text), text);
        assert_eq!(at_level(Level::R2Pii, text), expected);
    }
    let born = PriorTurns { question: Some("What is your date of birth?"), payment: false };
    assert_eq!(redact("december third nineteen eighty", Level::R2Pii, &born).text, "[DOB]");
}

#[test]
fn what_is_no_personal_number_stays() {
    for text in ["000-12-3456", "666-12-3456", "912-34-5678", "219-00-9999", "order 123456", "see you at 5"] {
        assert_eq!(at_level(Level::R2Pii, text), text);
    }
}

#[test]
fn dates_go_only_beside_health_information() {
    let text = "moved to December third";
    assert_eq!(at_level(Level::R2Pii, text), text);
    assert_eq!(at_level(Level::R3Phi, text), "moved to [DATE]");
}

#[test]
fn the_sealed_store_gets_everything() {
    assert_eq!(at_level(Level::R0None, "4111111111111111"), "4111111111111111");
    assert!(!flags("4111111111111111", Level::R0None, &PriorTurns::default()));
}

#[test]
fn debug_output_shows_counts_and_no_text() {
    assert_eq!(
        format!("{:?}", pci("Dana: 4111111111111111")),
        "Redacted { text: \"[redacted]\", counts: [(Pan, 1)] }"
    );
}

/// One card in some spacing or spoken form.
fn said_card() -> impl Strategy<Value = String> {
    let digit_forms = prop::collection::vec((0_u8..4, 0_usize..8), 19);
    (prop::sample::select(CARDS.to_vec()), digit_forms).prop_map(|(card, forms)| {
        const BETWEEN: [&str; 8] = [" ", "-", ", ", " uh ", ". ", " and ", "  ", " okay so "];
        let digits: Vec<usize> = card.bytes().map(|digit| usize::from(digit - b'0')).collect();
        let mut said = String::new();
        let mut index = 0;
        while let (Some(digit), Some((form, between))) = (digits.get(index), forms.get(index)) {
            let pair = digits.get(index + 1);
            let between = BETWEEN[*between];
            match (form, pair) {
                (0, _) => said.push_str(&format!("{digit}")),
                (1, Some(next)) if next == digit => {
                    said.push_str(&format!(" double {}{between}", WORDS[*digit]));
                    index += 1;
                }
                (2, Some(next)) if *digit >= 2 => {
                    const TENS: [&str; 8] =
                        ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
                    // "forty" then "five" would be heard as 45, so a bare ten is not followed by a unit.
                    if *next > 0 {
                        said.push_str(&format!(" {} {}{between}", TENS[*digit - 2], WORDS[*next]));
                        index += 1;
                    } else {
                        said.push_str(&format!(" {}{between}", WORDS[*digit]));
                    }
                }
                _ => said.push_str(&format!(" {}{between}", WORDS[*digit])),
            }
            index += 1;
        }
        said
    })
}

fn digits_left(text: &str) -> String {
    crate::words::runs(&crate::words::tokens(text)).into_iter().map(|run| run.digits).collect()
}

proptest! {
    #[test]
    fn a_planted_card_never_survives(before in "[a-z ,.]{0,30}", said in said_card(), after in "[a-z ,.!?]{0,30}") {
        let cleaned = pci(&format!("{before} x {said} x {after}"));
        prop_assert!(cleaned.text.contains("[PAN]"), "{}", cleaned.text);
        prop_assert!(digits_left(&cleaned.text).len() < 13, "{}", cleaned.text);
    }

    #[test]
    fn a_code_never_survives_its_question(
        question in prop::sample::select(vec![
            "What is the security code?",
            "Can you read me the three digits on the back?",
            "And the C V V, please?",
            "Could you give me the card verification value now?",
            "Please say your PIN.",
        ]),
        code in "[0-9]{3,4}",
        spoken in any::<bool>(),
        lead in prop::sample::select(vec!["", "it's ", "sure, ", "um that would be ", "okay so "]),
    ) {
        let said = if spoken {
            code.bytes().map(|digit| WORDS[usize::from(digit - b'0')]).collect::<Vec<_>>().join(" ")
        } else {
            code
        };
        prop_assert_eq!(digits_left(&answered(question, &format!("{lead}{said}"))), "");
    }

    #[test]
    fn redacting_twice_changes_nothing_more(
        parts in prop::collection::vec(prop_oneof![
            said_card(),
            "[0-9]{1,12}",
            "[a-zA-Z,.@ -]{0,12}",
            prop::sample::select(vec![
                "cvv", "pin", "social security", "born", "zip", "street", "bank", "[PAN]", "[CVV]", "is my pin",
                "double", "oh", "dana at example dot com", "December 3", "=", "^", "?",
            ]).prop_map(str::to_owned),
        ], 0..12),
        level in prop::sample::select(vec![Level::R1Pci, Level::R2Pii, Level::R3Phi]),
        payment in any::<bool>(),
        asked in any::<bool>(),
    ) {
        let prior = PriorTurns { question: asked.then_some("Your security code?"), payment };
        let once = redact(&parts.join(" "), level, &prior).text;
        prop_assert_eq!(&redact(&once, level, &prior).text, &once);
        prop_assert!(!flags(&once, level, &prior));
    }

    #[test]
    fn no_text_makes_the_detector_panic(text in any::<String>(), question in any::<String>(), payment in any::<bool>()) {
        let _ = redact(&text, Level::R3Phi, &PriorTurns { question: Some(&question), payment });
    }
}
