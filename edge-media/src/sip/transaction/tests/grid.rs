//! The whole grid of the four transaction machines, state by input, as a file: what each pair
//! sends, tells its user and leaves behind is seen in review. Over UDP; a stream only leaves
//! the retransmissions out.

use expect_test::expect_file;

use super::super::super::message::tests::request;
use super::super::*;

/// A transaction in some state.
struct Bench {
    transactions: Transactions,
    id: TransactionId,
    request: Request,
    now: Now,
    out: Vec<Progress>,
    told: bool,
}

/// What can happen to it.
#[derive(Clone, Copy)]
enum Input {
    /// The far end answers.
    Response(u16),
    /// The far end sends the request again.
    Again,
    /// The far end acknowledges.
    Ack,
    /// Its user answers.
    Respond(u16),
    /// Its next timer.
    Timer,
    /// All its timers, until none is left.
    Timers,
    /// Its transport is gone.
    Closed,
}

const CLIENT: [(&str, Input); 7] = [
    ("100", Input::Response(100)),
    ("180", Input::Response(180)),
    ("200", Input::Response(200)),
    ("486", Input::Response(486)),
    ("next timer", Input::Timer),
    ("all timers", Input::Timers),
    ("connection closed", Input::Closed),
];

const SERVER: [(&str, Input); 8] = [
    ("the request again", Input::Again),
    ("ACK", Input::Ack),
    ("user: 180", Input::Respond(180)),
    ("user: 200", Input::Respond(200)),
    ("user: 486", Input::Respond(486)),
    ("next timer", Input::Timer),
    ("all timers", Input::Timers),
    ("connection closed", Input::Closed),
];

/// Every state of every machine, and how to get there.
const STATES: [(&str, bool, &[Input]); 14] = [
    ("INVITE", true, &[]),
    ("INVITE", true, &[Input::Response(180)]),
    ("INVITE", true, &[Input::Response(200)]),
    ("INVITE", true, &[Input::Response(486)]),
    ("BYE", true, &[]),
    ("BYE", true, &[Input::Response(100)]),
    ("BYE", true, &[Input::Response(200)]),
    ("INVITE", false, &[]),
    ("INVITE", false, &[Input::Respond(200)]),
    ("INVITE", false, &[Input::Respond(486)]),
    ("INVITE", false, &[Input::Respond(486), Input::Ack]),
    ("BYE", false, &[]),
    ("BYE", false, &[Input::Respond(100)]),
    ("BYE", false, &[Input::Respond(200)]),
];

impl Bench {
    fn new(method: &str, client: bool, way: &[Input]) -> Self {
        let mut transactions = Transactions::new();
        let mut out = Vec::new();
        let request = request(method, "sip:a@h", 1, "");
        let flow = Flow { transport: Transport::Udp, peer: "192.0.2.1:5060".parse().unwrap(), connection: 0 };
        let id = if client {
            transactions.start(Now::ZERO, flow, &request, &mut out).unwrap()
        } else {
            match transactions.receive(Now::ZERO, flow, &request, true, &mut out) {
                Received::New(id) => id,
                Received::Absorbed | Received::Full => panic!("{method} is new"),
            }
        };
        let mut bench = Self { transactions, id, request, now: Now::ZERO, out, told: false };
        for input in way {
            bench.put(*input);
        }
        bench.out.clear();
        bench.told = false;
        bench
    }

    fn put(&mut self, input: Input) {
        let Self { transactions, id, request, now, out, told } = self;
        let flow = transactions.flow(*id);
        match input {
            Input::Response(status) => {
                let response = request.response(status, Some("t"));
                *told |= transactions.on_response(*now, &response, out).is_some_and(|(_, told)| told);
            }
            Input::Again => {
                let received = flow.map(|flow| transactions.receive(*now, flow, request, true, out));
                *told |= matches!(received, Some(Received::New(_)));
            }
            Input::Ack => {
                let mut ack = request.clone();
                ack.head.method = Method::Ack;
                *told |= !transactions.on_ack(*now, &ack, out);
            }
            Input::Respond(status) => {
                transactions.respond(*now, *id, &request.response(status, Some("t")), out);
            }
            Input::Timer => {
                if let Some(at) = transactions.next_timeout() {
                    *now = at;
                    transactions.handle_timeout(at, out);
                }
            }
            Input::Timers => {
                while let Some(at) = transactions.next_timeout() {
                    *now = at;
                    transactions.handle_timeout(at, out);
                }
            }
            Input::Closed => {
                if let Some(flow) = flow {
                    transactions.connection_closed(*now, flow, out);
                }
            }
        }
    }

    fn state(&self) -> String {
        self.transactions.state_of(self.id).unwrap_or_else(|| "over".to_owned())
    }

    /// What the last input did, in few words; `.` for nothing.
    fn effects(&self) -> String {
        let mut runs: Vec<(String, u32)> = Vec::new();
        for progress in &self.out {
            let effect = match progress {
                Progress::Send(_, bytes) => {
                    let text = String::from_utf8_lossy(bytes);
                    let mut words = text.split(' ');
                    let first = words.next().unwrap_or_default();
                    let word =
                        if first.starts_with("SIP/") { words.next().unwrap_or_default() } else { first };
                    format!("send {word}")
                }
                Progress::Unanswered(_) => "tell unanswered".to_owned(),
                Progress::Over(_) => "end".to_owned(),
            };
            match runs.last_mut() {
                Some((last, times)) if *last == effect => *times += 1,
                _ => runs.push((effect, 1)),
            }
        }
        if self.told {
            runs.push(("tell the user".to_owned(), 1));
        }
        let texts: Vec<String> = runs
            .into_iter()
            .map(|(effect, times)| if times == 1 { effect } else { format!("{effect} {times} times") })
            .collect();
        if texts.is_empty() { ".".to_owned() } else { texts.join(", ") }
    }
}

#[test]
fn the_whole_grid() {
    let mut grid = String::new();
    for (method, client, way) in STATES {
        let from = Bench::new(method, client, way);
        let side = if client { "client" } else { "server" };
        grid.push_str(&format!("\n== {method} {side}: {}\n", from.state()));
        grid.push_str(&format!("timers: {}\n", from.transactions.timers_of(from.id)));
        let inputs: &[(&str, Input)] = if client { &CLIENT } else { &SERVER };
        for (name, input) in inputs {
            let mut cell = Bench::new(method, client, way);
            cell.put(*input);
            let (effects, to) = (cell.effects(), cell.state());
            let line = if to == from.state() {
                format!("{name}: {effects}\n")
            } else {
                format!("{name}: {effects} => {to}\n")
            };
            grid.push_str(&line);
        }
    }
    expect_file!["grid.txt"].assert_eq(&grid);
}
