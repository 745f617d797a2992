#!/usr/bin/env bash
# Garbage from all sides while a call is running: from the carrier's own address, from a
# stranger's, from the voice agent, and at the HTTP port. The process lives, and the caller hears nothing of it.
. "$(dirname "$0")/lib.sh"
set_up
start edge idle python3 "$HERE/idle.py" "$WORK/idle.json"
idle=$STARTED

start agent voice-agent python3 "$HERE/voice_agent.py" "$AGENT_IP" 8765 "$WORK/agent.wav" "$WORK/agent.jsonl" --talk 1 --garbage
agent=$STARTED
start agent crm python3 "$HERE/crm.py" "$AGENT_IP" 8766 "$CRM_SECRET" "$WORK/crm.jsonl"
listens "$AGENT_IP" 8765
start_edge

start carrier rtp python3 "$HERE/rtp_peer.py" "$CARRIER_IP" 40000 450 "$WORK/caller.wav" "$WORK/caller.json"
rtp=$STARTED
start carrier sipp sipp -nostdin -sf "$(carrier_scenario 30000)" -i "$CARRIER_IP" -p 5060 -m 1 -key to +18005550100 \
  -key rtp_port 40000 -timeout 90 -timeout_error "$EDGE_IP:5060"
sipp=$STARTED
wait_for 30 grep -q '"mark"' "$WORK/agent.jsonl" || failed "the call does not come up"

# A name for the two senders, so that a bad run can be repeated.
seed=${SEED:-$(date +%s)}
memory() { awk '/VmRSS/ { print $2 }' "/proc/$EDGE_PID/status"; }
before=$(memory)
start carrier garbage-1 python3 "$HERE/garbage.py" "$EDGE_IP" 5060 20000 20198 "$seed" 12000
one=$STARTED
start phone garbage-2 python3 "$HERE/garbage.py" "$EDGE_IP" 5060 20000 20198 "$((seed + 1))" 12000
two=$STARTED
wait "$one"
wait "$two"
expect "HTTP that nobody should send is refused, each with its status" at phone \
  python3 "$HERE/http_garbage.py" "$EDGE_IP" 8080 "$PAGE_TOKEN" 1000
wait_for 20 grep -q 'garbage sent' "$WORK/agent.jsonl" || failed "the voice agent could not send its garbage: $(tail -n 3 "$WORK/agent.jsonl")"
after=$(memory)

# It lives, it answers, and it has not grown by what it was sent.
if kill -0 "$EDGE_PID" 2>/dev/null; then ok "the process lives (seed $seed)"; else failed "the process is gone (seed $seed)"; fi
grown=$(((${after:-9999999} - before) / 1024))
if [ "$grown" -le 64 ]; then ok "its memory grew by $grown MB"; else failed "its memory grew by $grown MB"; fi
expect "it answers OPTIONS" at carrier sh -c "sipp -nostdin -sf '$HERE/sipp/options.xml' -i $CARRIER_IP -p 5090 -m 1 -timeout 10 -timeout_error $EDGE_IP:5060 >/dev/null"
if grep -qE 'panicked|ERROR' "$WORK/edge.log"; then
  failed "the log tells of a fault: $(grep -E -m 1 'panicked|ERROR' "$WORK/edge.log")"
else
  ok "the log tells of no fault"
fi
if grep -q '"garbage sent"' "$WORK/agent.jsonl" && ! grep -q '"closed"' "$WORK/agent.jsonl"; then
  ok "the voice agent's link stays open"
else
  failed "the voice agent's link: $(tail -n 3 "$WORK/agent.jsonl")"
fi

# The call that was running goes on to its own end.
if wait "$sipp"; then ok "the carrier's call ends with its BYE"; else failed "the carrier's call: SIPp says $?"; fi
stop "$rtp"
stop "$idle"
stop "$agent"
expect "the caller's stream has no break" python3 "$HERE/unbroken.py" "$WORK/caller.json" "$WORK/idle.json"
expect "the caller heard the voice agent throughout" python3 "$HERE/ears.py" hears "$WORK/caller.wav" 650 25
expect "the voice agent heard the caller throughout" python3 "$HERE/ears.py" mostly "$WORK/agent.wav" 450 95

closed() { "$BINARY" audit list --json --data "$WORK/data" | grep -q '"state":"closed"'; }
wait_for 30 closed || failed "the call's chain does not close"
calls=$("$BINARY" audit list --json --data "$WORK/data" | wc -l)
if [ "$calls" -eq 1 ]; then ok "garbage opened no call"; else failed "there are $calls calls in the store"; fi
expect "the audit chain verifies" "$BINARY" audit verify --data "$WORK/data"

# What was dropped was counted, by where it came in.
stop "$EDGE_PID"
expect "what was dropped was counted" python3 - "$WORK/edge.log" <<'PY'
import re
import sys

text = re.sub("\x1b\\[[0-9;]*m", "", open(sys.argv[1], encoding="utf-8").read())
line = [line for line in text.splitlines() if "counted so far" in line][-1]
sip = sum(int(count) for count in re.findall(r'"[a-z_0-9]+": (\d+)', line))
media = sum(int(count) for count in re.findall(r"(?:malformed|foreign): (\d+)", line))
said = [int(count) for count in re.findall(r"tally=Tally \{.*?malformed: (\d+)", text)]
print(f"{sip} at SIP, {media} at RTP, {sum(said)} from the voice agent")
assert sip > 5000 and media > 0 and sum(said) > 2500
PY
finish
