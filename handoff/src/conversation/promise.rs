//! Whether the voice agent has just promised a person. Offers, questions and conditions
//! are no promises: "would you like me to transfer you" binds nobody.

use std::sync::{Arc, OnceLock};

use crate::policy::phrase::{PhraseSets, Phrases, Vocabulary, Words};

/// Whether a turn of the voice agent promises a transfer.
pub(super) fn promises(text: &str) -> bool {
    detector().find(&Words::of(text)).is_some()
}

/// Whether a turn of the voice agent asks for keys, so that a 0 is a digit of the answer.
pub(super) fn asks_for_keys(text: &str) -> bool {
    static KEYS: OnceLock<Phrases> = OnceLock::new();
    let keys = KEYS.get_or_init(|| {
        Phrases::compile(&KEY_REQUESTS, &Arc::default(), true).expect("the built-in phrases compile")
    });
    keys.find(&Words::of(text)).is_some()
}

fn detector() -> &'static Phrases {
    static PROMISES_READY: OnceLock<Phrases> = OnceLock::new();
    PROMISES_READY.get_or_init(|| {
        let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let sets = PhraseSets::from([
            ("person".to_owned(), set(&PERSONS)),
            ("will".to_owned(), set(&WILLS)),
            ("a".to_owned(), set(&ARTICLES)),
        ]);
        let vocabulary = Arc::new(Vocabulary::of(&sets).expect("the built-in sets compile"));
        Phrases::compile(&PROMISES, &vocabulary, true).expect("the built-in phrases compile").hedged(&HEDGES)
    })
}

/// Words that make an offer, a question or a condition of what follows in the same clause.
const HEDGES: [&str; 30] = [
    "if",
    "before",
    "unless",
    "once",
    "after",
    "when",
    "whether",
    "shall",
    "should",
    "would",
    "could",
    "cannot",
    "whenever",
    "si",
    "antes",
    "cuando",
    "quiere",
    "quieres",
    "desea",
    "avant",
    "quand",
    "voulez",
    "souhaitez",
    "wenn",
    "bevor",
    "mochten",
    "sollen",
    "quer",
    "deseja",
    "se",
];

const WILLS: [&str; 13] = [
    "i ll",
    "i will",
    "i m",
    "i am",
    "i m going to",
    "i am going to",
    "let me",
    "we ll",
    "we will",
    "we re",
    "i ll now",
    "i am now",
    "i will now",
];
const ARTICLES: [&str; 10] =
    ["a", "an", "the", "our", "one of our", "somebody from", "someone from", "my", "some", "another"];
const PERSONS: [&str; 26] = [
    "person",
    "human",
    "human agent",
    "live agent",
    "agent",
    "agents",
    "representative",
    "representatives",
    "colleague",
    "colleagues",
    "specialist",
    "specialists",
    "someone",
    "somebody",
    "team",
    "team member",
    "supervisor",
    "manager",
    "nurse",
    "advisor",
    "advisors",
    "operator",
    "member of our team",
    "billing team",
    "customer service",
    "support team",
];

const PROMISES: [&str; 39] = [
    "{will} transfer|connect|transferring|connecting|forward|forwarding you",
    "{will} transfer|transferring|connect|connecting|pass|passing|hand|handing|route|routing your|the|this|you [call] over|to|through|on",
    "{will} put|putting|patch|patching you through",
    "{will} get|getting [you] [{a}] {person}",
    "{will} bring|bringing in [{a}] {person}",
    "{will} hand|handing|pass|passing you over|on|to",
    "{will} get|find|bring|fetch [you] [{a}] {person} [for] [you]",
    "^ transferring|connecting you",
    "^ putting you through",
    "transferring|connecting you now",
    "transferring|connecting you to|with {a} {person}",
    "you are|re [now] being transferred|connected",
    "hold|stay|line while|and i|we transfer|connect|get|find|put",
    "hold while i transfer|connect|get|find|put",
    "line while i transfer|connect|get|find|put",
    "{person} will be|take with|over you|from|shortly|now",
    "{person} will be right with you",
    "{will} have [{a}] {person} * join|take|speak|talk|help",
    "you ll|will be [now] transferred|connected|passed to|with|through|over",
    "transferring|connecting|forwarding now",
    // Spanish
    "permitame|permiteme|dejeme transferirle|transferirlo|comunicarle|comunicarlo|pasarle|conectarle",
    "le|te paso|transfiero|comunico|conecto|pongo [ahora] [con]",
    "voy a transferirle|transferirte|transferirlo|comunicarle|comunicarte|pasarle|pasarte|conectarle|ponerle",
    "le|te voy a transferir|comunicar|pasar|conectar|poner",
    "transfiriendo|transfiriendolo|transfiriendole|comunicandolo [su] [llamada]",
    "le|te estoy transfiriendo|comunicando|pasando",
    // French
    "je vous|te transfere|passe|mets|connecte|redirige",
    "je vais vous|te transferer|passer|mettre|connecter|rediriger",
    "vous allez etre mis|mise|transfere|transferee",
    "vous mets en relation",
    // German
    "ich verbinde|vermittle sie|dich",
    "ich stelle sie|dich * durch",
    "ich leite sie|dich|ihren *",
    "ich werde sie|dich * verbinden|durchstellen|weiterleiten",
    "sie werden [jetzt|nun] verbunden|weitergeleitet",
    // Portuguese
    "vou te|lhe transferir|passar|conectar|encaminhar",
    "vou transferir|passar|conectar|encaminhar voce|a|sua|o|para",
    "estou transferindo|te|lhe [transferindo|passando] [voce|sua|a|para]",
    "transferindo voce|sua|a",
];

const KEY_REQUESTS: [&str; 10] = [
    "enter|key|type [in] your|the|that",
    "using|on|with your keypad|phone",
    "press|dial",
    "followed by the pound|hash",
    "keypad",
    "marque|digite|pulse|teclee",
    "tapez|composez|appuyez",
    "drucken|geben|tippen sie",
    "digite|pressione|tecle",
    "digits",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_phrases_compile_and_tell_promises_from_offers() {
        assert!(promises("Sure, I'm transferring you to a specialist now."));
        assert!(!promises("Would you like me to transfer you?"));
        assert!(!promises("If you want, I'll transfer you."));
    }

    #[test]
    fn a_request_for_keys_is_told_from_other_turns() {
        assert!(asks_for_keys("Please enter your account number on your keypad."));
        assert!(!asks_for_keys("What can I do for you?"));
    }
}
