#!/usr/bin/env bash
# Voice agents that do not behave, a call each: one never shakes hands, the others stall, drip a
# byte a second, send garbage or reset, some of them when a person was asked for already. Each
# caller goes on to hear something, on one unbroken stream; the call beside them hears none of it.
. "$(dirname "$0")/lib.sh"
set_up
start edge idle python3 "$HERE/idle.py" "$WORK/idle.json"
idle=$STARTED
start agent voice-agent python3 "$HERE/bad_agent.py" "$AGENT_IP" 8765 "$WORK/agent.wav" "$WORK/agent.jsonl" "$WORK/go"
agent=$STARTED
start agent crm python3 "$HERE/crm.py" "$AGENT_IP" 8766 "$CRM_SECRET" "$WORK/crm.jsonl"
listens "$AGENT_IP" 8765
listens "$AGENT_IP" 8766
# Nobody takes the calls: what is heard is what the edge has to say.
PHONE_LINES="uri = \"sip:dana@$PHONE_IP\"
trusted = true"
start_edge

PEERS=() CALLERS=()
# call NUMBER: a caller of that number, who stays.
call() {
  start carrier "rtp-$1" python3 "$HERE/rtp_peer.py" "$CARRIER_IP" "$((40000 + 2 * $1))" 450 "$WORK/caller-$1.wav" "$WORK/caller-$1.json"
  PEERS+=("$STARTED")
  start carrier "caller-$1" python3 "$HERE/phone.py" calls "$CARRIER_IP:$((5060 + $1))" "$EDGE_IP:5060" "$((40000 + 2 * $1))" "$WORK/caller-$1.jsonl"
  CALLERS+=("$STARTED")
}
count() { grep -c "\"what\": \"$1\"" "$WORK/agent.jsonl"; }
at_least() { [ "$(count "$1")" -ge "$2" ]; }

fds() { find "/proc/$EDGE_PID/fd" -mindepth 1 | wc -l; }
memory() { awk '/VmRSS/ { print int($2 / 1024) }' "/proc/$EDGE_PID/status"; }
call 0
wait_for 30 grep -q '"mark"' "$WORK/agent.jsonl" || failed "the call does not come up"
fds_before=$(fds) memory_before=$(memory)
call 1
wait_for 30 grep -q 'no handshake' "$WORK/agent.jsonl" || failed "the second call does not come up"
# What is tried once more must not take the place of another call.
sleep 7
touch "$WORK/go"
for number in 2 3 4 5 6 7 8 9; do call "$number"; done
wait_for 40 at_least fault 9 || failed "the faults: $(count fault)"
# A silent link is given up after 15 s, tried once more, and then the caller is told.
sleep 20
expect "every fault came to pass" python3 - "$WORK/agent.jsonl" <<'PY'
import collections
import json
import sys

lines = [json.loads(line) for line in open(sys.argv[1])]
faults = collections.Counter(f"{line['fault']}{' when asked for a person' if line.get('asked') else ''}" for line in lines if line["what"] == "fault")
back = sum(line["what"] == "back" for line in lines)
print(f"{', '.join(f'{fault} {count}' for fault, count in sorted(faults.items()))}; {back} came back")
assert len(faults) == 9 and all(count <= 2 for count in faults.values())
PY
gone=$(grep -l '"BYE"' "$WORK"/caller-*.jsonl | wc -l)
if grep -q '"BYE"' "$WORK/caller-0.jsonl"; then failed "the edge hung up on the good call"; else ok "the good call stands ($gone of the others were told goodbye)"; fi
for pid in "${CALLERS[@]}"; do kill -TERM "$pid" 2>/dev/null; done
for pid in "${CALLERS[@]}"; do wait "$pid" || failed "a caller's BYE is not answered"; done
for pid in "${PEERS[@]}"; do stop "$pid"; done
stop "$agent"
stop "$idle"

expect "each caller's stream is one, and each heard more than the voice agent" python3 - "$WORK" <<'PY'
import json
import sys

import ears

work = sys.argv[1]
stall = json.load(open(f"{work}/idle.json"))["stall_ms"]
told = []
for number in range(1, 10):
    counts = json.load(open(f"{work}/caller-{number}.json"))
    assert counts["ssrcs"] == 1 and not counts["seq_breaks"] and (not counts["timestamp_breaks"] or stall >= 100), (number, counts)
    windows = ears.windows(ears.read(f"{work}/caller-{number}.wav"))
    loud = [sum(x * x for x in window) > ears.FLOOR**2 * len(window) for window in windows]
    last = max((at for at, window in enumerate(windows) if ears.share(window, 650) >= ears.SHARE), default=-1)
    after = sum(loud[last + 1 :])
    told.append(f"{after / 10:.1f}")
    # The one without handshakes heard the voice agent never, and the disclosure before it.
    assert after >= 10 and (last >= 0) == (number != 1), (number, last, after, len(windows))
print(f"{', '.join(told)} s of it after the fault")
PY
expect "the good call's stream has no break" python3 "$HERE/unbroken.py" "$WORK/caller-0.json" "$WORK/idle.json"
expect "the good call heard its voice agent throughout" python3 "$HERE/ears.py" hears "$WORK/caller-0.wav" 650 25
expect "its voice agent heard the caller throughout" python3 "$HERE/ears.py" mostly "$WORK/agent.wav" 450 95
closed() { [ "$("$BINARY" audit list --json --data "$WORK/data" | grep -c '"state":"closed"')" -eq 10 ]; }
wait_for 40 closed
if closed; then ok "all ten chains close"; else failed "the chains: $("$BINARY" audit list --data "$WORK/data" | head -n 12)"; fi
expect "the audit chains verify" "$BINARY" audit verify --data "$WORK/data"
said="$fds_before and $memory_before MB with one call, $(fds) and $(memory) MB after all"
if [ "$(fds)" -le $((fds_before + 64)) ] && [ "$(memory)" -le $((memory_before + 96)) ]; then ok "descriptors and memory: $said"; else failed "descriptors and memory: $said"; fi
if kill -0 "$EDGE_PID" && ! grep -qE 'panicked|ERROR' "$WORK/edge.log"; then
  ok "the edge lives, and its log tells of no fault"
else
  failed "the edge: $(grep -E -m 1 'panicked|ERROR' "$WORK/edge.log")"
fi
finish
