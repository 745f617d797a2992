#!/usr/bin/env bash
# One warm transfer with second implementations on every side: SIPp is the carrier, baresip the
# human agent's softphone, and the voice agent, the desktop and the CRM are small programs that
# share no code with the edge. Each party sends a tone of its own, and what each heard is judged
# by ear: caller 450 Hz, voice agent 650 Hz, human 1000 Hz.
. "$(dirname "$0")/lib.sh"
set_up
start edge idle python3 "$HERE/idle.py" "$WORK/idle.json"
idle=$STARTED

start agent voice-agent python3 "$HERE/voice_agent.py" "$AGENT_IP" 8765 "$WORK/agent.wav" "$WORK/agent.jsonl" --talk 3 --transfer
agent=$STARTED
start agent crm python3 "$HERE/crm.py" "$AGENT_IP" 8766 "$CRM_SECRET" "$WORK/crm.jsonl"
listens "$AGENT_IP" 8765
listens "$AGENT_IP" 8766
start_edge

# The human agent: a page, a softphone that registers, and a person who takes 9 s to answer, so
# that the caller has heard the message out and is on hold, listens to the whisper for 8 s and
# presses 1.
start phone desktop python3 "$HERE/desktop.py" "$EDGE_IP" 8080 "$PAGE_TOKEN" "$WORK/desktop.jsonl"
tone 1000 120 "$WORK/tone1000.wav"
start_baresip phone "$WORK/phone" "$PHONE_IP" \
  "<sip:dana@$EDGE_IP>;auth_user=dana;auth_pass=$PASSWORD;regint=60;answermode=manual;audio_codecs=PCMU/8000/1" "$WORK/tone1000.wav"
start phone person python3 "$HERE/softphone.py" 4444 "$WORK/person.jsonl" --ring 9 --listen 8 --press 1
if wait_for 15 grep -q REGISTER_OK "$WORK/person.jsonl" || grep -q '200 OK' "$WORK/baresip-phone.log"; then
  ok "baresip registers with digest"
else
  failed "baresip does not register"
fi
wait_for 5 grep -q connected "$WORK/desktop.jsonl" || failed "the desktop does not connect"

# The carrier: signalling by SIPp, audio by a peer of its own. Its quiet time starts anew with
# each re-INVITE, so it hangs up 25 s after the last: the whisper and some talk fit in.
start carrier rtp python3 "$HERE/rtp_peer.py" "$CARRIER_IP" 40000 450 "$WORK/caller.wav" "$WORK/caller.json"
rtp=$STARTED
wait_for 5 at carrier sh -c "ss -lun | grep -q 40000" || sleep 1
start carrier sipp sipp -nostdin -sf "$(carrier_scenario 25000)" -i "$CARRIER_IP" -p 5060 -m 1 -key to +18005550100 \
  -key rtp_port 40000 -trace_msg -message_file "$WORK/sipp-messages.txt" -timeout 120 -timeout_error "$EDGE_IP:5060"
sipp=$STARTED
if wait "$sipp"; then ok "the carrier's call ends with its BYE"; else failed "the carrier's call: SIPp says $?"; fi

# What the store says of it. The chain closes when the last webhook is out.
data=$WORK/data
closed() { "$BINARY" audit list --json --data "$data" | grep -q '"state":"closed"'; }
wait_for 30 closed || failed "the call's chain does not close"
call=$("$BINARY" audit list --json --data "$data" | main_chain 2>/dev/null)
"$BINARY" audit show "$call" --json --data "$data" >"$WORK/records.log" 2>&1
expect "the audit chain verifies" "$BINARY" audit verify "$call" --data "$data"
expect "the record tells of a completed transfer" python3 "$HERE/records.py" "$WORK/records.log"

stop "$rtp"
stop "$idle"
stop "$BARESIP_PID"
stop "$agent"

# Who heard whom.
whispered=$(ls "$WORK"/phone/*-dec.wav 2>/dev/null | head -n 1)
expect "the caller heard the voice agent" python3 "$HERE/ears.py" hears "$WORK/caller.wav" 650 2
expect "the caller heard the human" python3 "$HERE/ears.py" hears "$WORK/caller.wav" 1000 3
expect "the voice agent heard the caller" python3 "$HERE/ears.py" hears "$WORK/agent.wav" 450 2
expect "the voice agent never heard the human" python3 "$HERE/ears.py" lacks "$WORK/agent.wav" 1000
expect "the human heard the caller" python3 "$HERE/ears.py" hears "${whispered:-none}" 450 3
expect "the human never heard the voice agent" python3 "$HERE/ears.py" lacks "${whispered:-none}" 650
# The person listened for 8 s before accepting: that is the whisper, whatever voice spoke it.
expect "nothing of the whisper reached the caller" python3 "$HERE/ears.py" strange "${whispered:-none}" 0.2 7.5 "$WORK/caller.wav"
expect "the caller's stream has no break" python3 "$HERE/unbroken.py" "$WORK/caller.json" "$WORK/idle.json"
expect "the caller was never in silence, and on hold heard the bed alone" python3 - "$WORK" <<'PY'
import datetime
import json
import sys

import ears

work = sys.argv[1]
records = [json.loads(line) for line in open(f"{work}/records.log") if line.startswith("{")]
first = json.load(open(f"{work}/caller.json"))["first_at_ms"]


def place(kind):
    """Where in the recording this happened."""
    text = next(record["occurred_at"] for record in records if record["type"] == kind)
    at = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    return int((at.timestamp() * 1000 - first) * ears.RATE / 1000)


heard = ears.read(f"{work}/caller.wav")[place("transfer.decided") : place("bridge.completed")]
longest = run = 0
# Below -50 dBFS, frame by frame.
for at in range(0, len(heard) - 160, 160):
    frame = heard[at : at + 160]
    run = run + 20 if sum(x * x for x in frame) < 160 * (32768 * 10 ** (-50 / 20)) ** 2 else 0
    longest = max(longest, run)
print(f"longest silence {longest} ms in {len(heard) / ears.RATE:.1f} s")
assert len(heard) > 8 * ears.RATE and longest <= 500

# From the end of the announcement to the bridge there is music, and nobody's tone. The last
# window may hold the first of the human's.
held = ears.windows(ears.read(f"{work}/caller.wav")[place("hold.started") : place("bridge.completed")])[1:-2]
sound = sum(sum(x * x for x in window) > ears.FLOOR**2 * len(window) for window in held)
voices = [hz for hz in (450, 650, 1000) for window in held if ears.share(window, hz) >= ears.SHARE]
assert len(held) > 50 and sound * 10 > len(held) * 8 and not voices, (len(held), sound, voices)
print(f"{len(held) / 10:.1f} s on hold, {sound / 10:.1f} s of it with music, nobody's tone in it")
PY
expect "the trunk was held with sendonly and resumed" python3 - "$WORK/sipp-messages.txt" <<'PY'
import re
import sys

text = open(sys.argv[1], encoding="utf-8", errors="replace").read()
received = [part for part in re.split(r"-{20,}[^\n]*\n", text) if "message received" in part]
offers = [m.group(1) for part in received if "\nINVITE " in part for m in [re.search(r"a=(sendonly|sendrecv|inactive)", part)] if m]
assert "sendonly" in offers and offers[-1] == "sendrecv", offers
print(", ".join(offers))
PY

# The card was there before the phone rang, and was acknowledged.
expect "the card was on the page before the phone rang" python3 - "$WORK" <<'PY'
import json
import sys

read = lambda name: [json.loads(line) for line in open(f"{sys.argv[1]}/{name}.jsonl")]
desktop, person = read("desktop"), read("person")
card = next(line["at_ms"] for line in desktop if line["what"] == "card")
answers = next(line["at_ms"] for line in person if line["what"] == "CALL_ESTABLISHED")
assert card < answers, (card, answers)
print(f"{answers - card} ms before the answer")
kinds = [line["what"] for line in desktop]
assert "accepted" in kinds and "bridged" in kinds, kinds
PY
expect "the CRM received signed webhooks and no other" python3 - "$WORK/crm.jsonl" <<'PY'
import json
import sys

hooks = [json.loads(line) for line in open(sys.argv[1])]
assert hooks and all(hook["verified"] for hook in hooks), hooks
kinds = {hook["type"].split(".")[-2] for hook in hooks}
assert {"offered", "accepted", "bridged", "closed"} <= kinds, kinds
print(f"{len(hooks)}: {', '.join(sorted(kinds))}")
PY
expect "no number and no name is in the edge's log" sh -c "! grep -nE '5555550142|Sam Marsh|opening hours' '$WORK/edge.log'"

# A clean exit: nothing is left to write.
stop "$EDGE_PID"
if grep -q draining "$WORK/edge.log" && [ ! -s "$data/warmbridge.db-wal" ]; then
  ok "the edge drains at SIGTERM and leaves no log to replay"
else
  failed "the edge did not end cleanly: $(ls "$data" | tr '\n' ' ')"
fi
finish
