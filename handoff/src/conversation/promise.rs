//! Whether the voice agent has just promised a person. Offers, questions and conditions
//! are no promises: "would you like me to transfer you" binds nobody; nor is a callback, which
//! no transfer can keep.

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
        let owned = |entries: &[&str]| entries.iter().map(|entry| (*entry).to_owned()).collect();
        let sets: PhraseSets = SETS.iter().map(|(name, set)| ((*name).to_owned(), owned(set))).collect();
        let vocabulary = Arc::new(Vocabulary::of(&sets).expect("the built-in sets compile"));
        let promises = Phrases::compile(&PROMISES, &vocabulary, true).expect("the built-in phrases compile");
        promises.except(&NO_PROMISES).expect("the built-in exceptions compile").hedged(&HEDGES)
    })
}

/// Words that make an offer, a question or a condition of what follows in the same clause.
const HEDGES: [&str; 32] = [
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
    "puede",
    "puedes",
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

/// The words that the promises are made of.
const SETS: [(&str, &[&str]); 35] = [
    (
        "will",
        &[
            "i|we ll|will [now|just] [be]",
            "i m|am [now] [going] [to]",
            "we re|are [now] [going] [to]",
            "i m gonna",
            "i|we m|am|are about to",
            "let me|us",
            "lets",
            "let s",
            "allow me to",
        ],
    ),
    (
        "soon",
        &["now|quickly|also|gladly|immediately", "go ahead and", "try to|and", "see if i can", "be able to"],
    ),
    (
        "a",
        &[
            "a|an|the|our|my|some|another|your",
            "one of our|my|the",
            "somebody|someone from [our|the]",
            "someone else in",
        ],
    ),
    (
        "kind",
        &[
            "human|live|real|senior|different|qualified|licensed|available|support|service|billing|sales|claims|technical|care",
            "customer service|support|care",
        ],
    ),
    (
        "person",
        &[
            "person|human|agent|agents|representative|representatives|rep|colleague|colleagues",
            "specialist|specialists|expert|someone|somebody|supervisor|manager|nurse|pharmacist",
            "advisor|advisors|adviser|advisers|operator|associate|coworker|teammate|people",
            "human being|agent|operator",
            "someone|somebody else",
            "team|staff member",
            "member of our|the|my team|staff",
        ],
    ),
    ("one", &["[{a}] [{kind}] [{kind}] {person}"]),
    (
        "desk",
        &[
            "[{a}] billing|sales|support|accounts|claims|reception|scheduling|pharmacy|fraud|returns|loans|collections|dispatch",
            "[{a}] front|help|service desk",
            "[{a}] technical|tech|customer support|service|care",
            "{a} * team|department|desk|line|office|unit",
        ],
    ),
    (
        "whom",
        &["{one}", "{desk}", "the right|correct|appropriate person|team|department|place", "them|him|her"],
    ),
    ("you", &["you", "your|the|this call [right|straight] [now]"]),
    (
        "transfer",
        &["transfer|transferring|connect|connecting|forward|forwarding|redirect|redirecting|reroute"],
    ),
    (
        "hand",
        &[
            "transfer|transferring|connect|connecting|pass|passing|hand|handing|send|sending|switch|switching|move|moving",
            "put|putting|get|getting|take|taking|bring|direct|directing|refer|route|routing|forward|forwarding|patch|patching|turn|turning|escalate|escalating",
        ],
    ),
    ("over", &["over|through|across|off|on|up|back|straight|right [over]", "in touch"]),
    (
        "fetch",
        &[
            "get|getting|grab|grabbing|find|finding|fetch|fetching|bring|bringing|reach|reaching|loop|looping",
            "call|calling|pull|pulling|invite|inviting|locate|page|paging|track|add|adding|have|having|ask|asking",
        ],
    ),
    ("while", &["while|and|as i|we [now]", "while i m|we re", "moment|second|minute|sec to"]),
    (
        "takes",
        &[
            "be [right] with you",
            "[be] join|joining|joins you|us|the|this",
            "take [this|it|you] over|from",
            "take|pick up|over|this|your [call]",
            "takes over",
            "pick|picking up",
            "be on the|with",
            "be [right] here",
            "speak|talk with|to you",
            "continue|assist|help|helping [with] [you|your|this] [from|now|shortly|right]",
        ],
    ),
    ("es_you", &["le|lo|la|te|les|los|las"]),
    (
        "es_one",
        &[
            "[un|una|el|la|mi|nuestro|nuestra|otro|otra|algun|uno|una] [de] [mis|nuestros] {es_person}",
            "alguien",
        ],
    ),
    (
        "es_person",
        &[
            "persona|humano|agente|agentes|asesor|asesora|representante|operador|operadora|supervisor|supervisora",
            "especialista|companero|companera|companeros|colega|encargado|encargada|responsable|gerente|ejecutivo|ejecutiva|tecnico|enfermera|medico",
        ],
    ),
    ("es_to", &["con|al|a", "de inmediato|vuelta", "en contacto|comunicacion|linea", "ahora|enseguida|ya"]),
    ("es_connects", &["transfiero|comunico|conecto|derivo|dirijo|redirijo|enlazo|remito|desvio"]),
    ("es_passes", &["paso|pongo|pasare|pondre|dejo"]),
    ("es_connect", &["transferir|comunicar|conectar|derivar|dirigir|redirigir|enlazar|desviar"]),
    (
        "es_connect_you",
        &[
            "transferirle|transferirlo|transferirla|transferirte|comunicarle|comunicarlo|comunicarla|comunicarte",
            "conectarle|conectarlo|conectarla|conectarte|derivarle|derivarlo|derivarla|derivarte|enlazarle|enlazarlo|dirigirle|dirigirlo",
        ],
    ),
    ("es_pass_you", &["pasarle|pasarlo|pasarla|pasarte|ponerle|ponerlo|ponerla|ponerte"]),
    ("es_will", &["voy|vamos|procedo|procederemos a", "permitame|permiteme|permita|dejeme|dejame|deje"]),
    (
        "es_fetch",
        &["buscar|busco|buscare|traer|traigo|llamar|llamo|conseguir|consigo|localizar|localizo|contactar"],
    ),
    (
        "es_doing",
        &[
            "transfiriendo|comunicando|conectando|pasando|derivando|transfiriendole|transfiriendolo|comunicandole|comunicandolo|conectandole|conectandolo",
        ],
    ),
    (
        "es_done",
        &[
            "transferido|transferida|comunicado|comunicada|conectado|conectada|derivado|derivada|atendido|atendida",
        ],
    ),
    ("fr_one", &["un|une|le|la|mon|ma|notre|votre|l [autre] [de] [mes|nos] {fr_person}", "quelqu un"]),
    (
        "fr_person",
        &[
            "conseiller|conseillere|collegue|agent|personne|humain|responsable|superviseur|specialiste|operateur|operatrice|technicien|technicienne|infirmiere",
        ],
    ),
    (
        "de_one",
        &["[ein|eine|einen|einem|einer|der|die|den|meinen|meine|mein] {de_person}", "jemand|jemanden"],
    ),
    (
        "de_person",
        &[
            "mitarbeiter|mitarbeiterin|berater|beraterin|kollege|kollegen|kollegin|mensch|menschen|person|spezialist|spezialisten|vorgesetzter|vorgesetzten|agent|techniker",
        ],
    ),
    ("pt_you", &["voce|lo|la", "o|a senhor|senhora", "sua|a|essa ligacao|chamada", "sua"]),
    ("pt_one", &["[um|uma|o|a|meu|minha|nosso|outro|outra] [dos] [meus|nossos] {pt_person}", "alguem"]),
    (
        "pt_person",
        &[
            "atendente|colega|pessoa|humano|agente|supervisor|supervisora|especialista|operador|operadora|representante|gerente|consultor|consultora|responsavel|enfermeira|tecnico",
        ],
    ),
];

/// What promises a person: the agent's own deed, what happens to the caller, what the person
/// will do.
const PROMISES: [&str; 59] = [
    "{will} [{soon}] {transfer} {you}",
    "{will} [{soon}] {hand} {you} [{over}] [{over}] to|with {whom}",
    "{will} [{soon}] {hand} {you}|this|it over|through|off|across to|with|now",
    "{will} [{soon}] put|putting|patch|patching {you} through",
    "{will} [{soon}] put|putting {you} on|in with|touch [with]",
    "{will} [{soon}] escalate|escalating this|it|you|your * to {whom}",
    "{will} [{soon}] {fetch} [down] [you|us] [in|on|up|over] [to] {one}",
    "{will} [{soon}] {fetch} {desk} on",
    "i ve|have [just] asked|called|requested|paged|alerted {one} to join|take|help|speak|come|assist",
    "^ [ok|okay|thanks|sure] transferring|connecting|forwarding|putting|redirecting {you}",
    "^ getting|bringing|finding {one}",
    "transferring|connecting {you} now|to|with|through",
    "transferring|connecting|forwarding now",
    "you are|re|ll|will [now|shortly|soon] [be|being] transferred|connected|passed|put|handed|forwarded|routed|switched|redirected",
    "you ll|will [now|shortly|soon] [be] speaking|talking|speak|talk [shortly|directly] to|with {whom}",
    "your|the|this call is|will [now] [being|be] [now] transferred|connected|forwarded|escalated|routed|passed|redirected",
    "{while} {transfer} {you}",
    "{while} {hand} {you} [{over}] to|with|over|through",
    "{while} {fetch} [you|in|over] {one}",
    "{one} [from|in|at] [our|the] * ll|will|is|are [now|shortly|then] [going] [to] {takes}",
    "{desk} ll|will|is|are [now|shortly|then] [going] [to] be|take|join [right] with|over|you",
    // Spanish
    "{es_you} {es_connects}",
    "{es_you} {es_passes} [ahora|ya|enseguida|inmediatamente|directamente] {es_to}",
    "{es_you} voy|vamos a {es_connect}",
    "{es_you} voy|vamos a pasar|poner [ahora] {es_to}",
    "{es_will} {es_connect_you}",
    "{es_will} {es_pass_you} [ahora] {es_to}",
    "{es_will} [que] {es_you} {es_connect}|{es_connects}|paso|transfiera|comunique|conecte|pase",
    "{es_will} {es_connect}|pasar|escalar su|la|esta llamada",
    "{es_connects}|{es_passes}|escalo su|la|esta llamada",
    "{es_will} {es_fetch} a {es_one}",
    "busco|traigo|llamo [ahora] a {es_one}",
    "{es_you} estoy|estamos {es_doing}",
    "^ [ahora] transfiriendo|transfiriendole|transfiriendolo|conectando|conectandole|comunicandole|comunicandolo [su] [llamada]",
    "llamada esta|sera [siendo] {es_done}",
    "sera|seras|esta|estas [siendo] {es_done} [a|con|al|por] {es_one}",
    "{es_you} atendera|atiende|atenderan|ayudara [enseguida|ahora] {es_one}",
    "{es_one} [de] * {es_you} atendera|atiende|ayudara|contactara",
    "{es_one} [se] va|vendra|tomara|hara|unira|estara|incorporara|continuara [a] [cargo|su|la|con|al|atenderle|atenderlo|ayudarle|unirse|tomar]",
    "mientras {es_you} {es_connects}|{es_passes}",
    // French
    "je vous|te transfere|passe|mets|connecte|redirige|dirige|bascule",
    "je vais vous|te transferer|passer|mettre|connecter|rediriger|diriger|basculer",
    "je transfere|vais|redirige [transferer|passer|rediriger] votre|cet|l appel",
    "je vais|m [vous] chercher|trouver|appeler|demander {fr_one}",
    "vous allez etre mis|mise|transfere|transferee|redirige|connecte|parler",
    "{fr_one} va|vient|arrive|prend [vous|tout] [prendre|repondre|aider|rejoindre|parler|occuper|le|la]",
    // German
    "ich verbinde|vermittle sie|dich",
    "ich stelle|leite|gebe|reiche sie|dich|ihren|den * durch|weiter|ab",
    "ich leite sie|dich|ihren *",
    "ich werde sie|dich * verbinden|durchstellen|weiterleiten",
    "ich hole|rufe|suche [ihnen|dir|jetzt] {de_one}",
    "sie werden * * verbunden|weitergeleitet|durchgestellt",
    "gleich|sofort|jetzt|nun ist|ubernimmt|hilft|spricht|meldet [ihnen|sich] {de_one}",
    "{de_one} ubernimmt|ist|wird|meldet [gleich|sofort|sich|sie|jetzt] [gleich|ihr|das|fur|ihnen]",
    // Portuguese
    "vou|estou|irei [te|lhe] transferir|passar|conectar|encaminhar|transferindo|passando|conectando|encaminhando [{pt_you}] [agora] para|pra|com|ao|a {pt_one}",
    "vou|estou [te|lhe] transferir|passar|conectar|encaminhar|transferindo|passando|conectando|encaminhando {pt_you}",
    "vou te|lhe transferir|passar|conectar|encaminhar",
    "vou chamar|buscar|trazer|procurar {pt_one}",
    "{pt_one} [ja] vai|ira [te|lhe] falar|atender|assumir|ajudar|entrar|continuar",
];

/// Longer phrases around these that promise something else: a callback, a visit.
const NO_PROMISES: [&str; 5] = [
    "{es_you} comunico|remito|transfiero|paso que|el|los|un",
    "{will} have|ask|get {one} [to] call|phone|email|contact|text|reach|follow|send|mail|come|visit|review|check",
    "{will} {fetch} {one} s",
    "{one} [from|in|at] * will|ll call|phone|email|contact|text|reach|follow",
    "{will} add|adding|pull|pulling {one} to your account|file|list",
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
        assert!(promises("Sí, le paso con un agente."));
        assert!(!promises("Le comunico que su pago fue recibido."));
        assert!(!promises("Si quiere, le paso con un agente."));
        assert!(promises("Let me see if I can get somebody on the line."));
        assert!(!promises("I'll have someone call you back tomorrow."));
    }

    #[test]
    fn a_request_for_keys_is_told_from_other_turns() {
        assert!(asks_for_keys("Please enter your account number on your keypad."));
        assert!(!asks_for_keys("What can I do for you?"));
    }
}
