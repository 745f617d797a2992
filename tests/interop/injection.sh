#!/usr/bin/env bash
# Strangers at the media ports of a bridged call: RTP under guessed SSRCs and sequence numbers,
# from their own address and from the true peers', and RTCP that says BYE. Each true frame is
# numbered, and it is counted how many of them reach the other party.
. "$(dirname "$0")/lib.sh"
set_up
start edge idle python3 "$HERE/idle.py" "$WORK/idle.json"
idle=$STARTED

start agent voice-agent python3 "$HERE/voice_agent.py" "$AGENT_IP" 8765 "$WORK/agent.wav" "$WORK/agent.jsonl" --talk 0 --transfer
listens "$AGENT_IP" 8765
PHONE_LINES="uri = \"sip:dana@$PHONE_IP\"
trusted = true"
start_edge
start_human 10
start carrier rtp python3 "$HERE/rtp_peer.py" "$CARRIER_IP" 40000 450 "$WORK/caller.wav" "$WORK/caller.json" --number
caller_rtp=$STARTED
start carrier caller python3 "$HERE/phone.py" calls "$CARRIER_IP" "$EDGE_IP:5060" 40000 "$WORK/caller.jsonl"
caller=$STARTED
wait_for 60 grep -q '"bridged"' "$WORK/desktop.jsonl" || failed "nothing is bridged: $(tail -n 3 "$WORK/desktop.jsonl")"
sleep 2

# The two ports that talk, and the true SSRCs: the worst of luck.
port_of() { grep -oE '"media [0-9]+' "$WORK/$1.jsonl" | tail -n 1 | grep -oE '[0-9]+'; }
ports=$(port_of caller),$(port_of human)
ssrcs=$caller_rtp,$HUMAN_RTP
start agent stranger python3 "$HERE/stranger.py" "$EDGE_IP" "$ports" "$ssrcs" 8 "$WORK/stranger.json"
stranger=$STARTED
start carrier forger-1 python3 "$HERE/stranger.py" "$EDGE_IP" "$ports" "$ssrcs" 8 "$WORK/forger-1.json" --as "$CARRIER_IP:40000"
one=$STARTED
start phone forger-2 python3 "$HERE/stranger.py" "$EDGE_IP" "$ports" "$ssrcs" 8 "$WORK/forger-2.json" --as "$PHONE_IP:41000"
two=$STARTED
wait "$stranger" && wait "$one" && wait "$two" || failed "the strangers: exit $?"
sleep 2
if grep -q '"BYE"' "$WORK/caller.jsonl" "$WORK/human.jsonl" || grep -q '"ended"' "$WORK/desktop.jsonl"; then
  failed "the call ended: $(tail -n 2 "$WORK/caller.jsonl" "$WORK/desktop.jsonl" | tr '\n' ' ')"
else
  ok "the call goes on after the last BYE"
fi
stop "$caller"
wait_for 10 grep -q '"BYE"' "$WORK/human.jsonl" || failed "the human's phone is not told of the caller's BYE"
stop "$caller_rtp"
stop "$HUMAN_RTP"
stop "$idle"

counted() {
  python3 - "$WORK" "$1" "$2" <<'PY'
import json
import sys

work, sender, hearer = sys.argv[1:]
read = lambda name: json.load(open(f"{work}/{name}.json"))
strangers = [read(name) for name in ("stranger", "forger-1", "forger-2")]
began, ended = max(s["began_ms"] for s in strangers), min(s["ended_ms"] for s in strangers)
# Numbers begin anew after 65,536 frames, which is twenty minutes.
sent = {number for number, at in enumerate(read(sender)["sent"]) if began <= at < ended - 200}
told = [number for at, number in read(hearer)["told"] if began <= at < ended + 1000]
true, strange = len(sent & set(told)), sum(number is None for number in told)
rtp, bye = sum(s["rtp"] for s in strangers), sum(s["bye"] for s in strangers)
# What a machine that stood still kept from a jitter buffer, the strangers did not.
stall = read("idle")["stall_ms"]
print(f"{true} of {len(sent)} frames ({100 * true / len(sent):.1f} %), {strange} of {rtp} strange ones, beside {bye} RTCP BYE, the machine was {stall} ms late")
assert len(sent) > 300 and (true + stall // 20) * 100 >= 99 * len(sent) and strange == 0 and rtp > 2000 and bye > 500
PY
}
expect "the caller's frames reach the human" counted caller human
expect "the human's frames reach the caller" counted human caller
expect "the caller never heard a stranger" python3 "$HERE/ears.py" lacks "$WORK/caller.wav" 1500
expect "the human never heard a stranger" python3 "$HERE/ears.py" lacks "$WORK/human.wav" 1500
expect "the record tells of a completed transfer" recorded
stop "$EDGE_PID"
expect "what was dropped was counted" python3 - "$WORK/edge.log" <<'PY'
import re
import sys

text = re.sub("\x1b\\[[0-9;]*m", "", open(sys.argv[1], encoding="utf-8").read())
line = [line for line in text.splitlines() if "counted so far" in line][-1]
foreign = sum(int(count) for count in re.findall(r"foreign: (\d+)", line))
print(f"{foreign} packets of strangers")
assert foreign > 4000
PY
finish
