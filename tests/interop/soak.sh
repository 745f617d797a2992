#!/usr/bin/env bash
# Calls at a steady rate, one in ten of them handed over to a person: when the last is over
# nothing of any call may be left, and the process is no larger than soon after its start.
#
#   tests/interop/soak.sh [SECONDS]     how long calls come in; 10 where nothing is said
. "$(dirname "$0")/lib.sh"
LASTS=${1:-10}
RATE=3
set_up
start agent voice-agent python3 "$HERE/soak_agent.py" "$AGENT_IP" 8765 "$WORK/agent.jsonl"
agent=$STARTED
start agent crm python3 "$HERE/crm.py" "$AGENT_IP" 8766 "$CRM_SECRET" "$WORK/crm.jsonl"
listens "$AGENT_IP" 8765
listens "$AGENT_IP" 8766
# Everybody's phone is behind one program; each has a page of their own and says yes there.
PHONE_LINES="uri = \"sip:dana@$PHONE_IP\"
trusted = true"
PEOPLE=19
# A port rests before it is used again: at this rate more rest than are in use.
RTP_LAST=21998
for number in $(seq $PEOPLE); do
  QUEUE_AGENTS+=", \"agent_$number\""
  MORE_LINES+="
[[agent]]
id = \"agent_$number\"
name = \"Agent $number\"
uri = \"sip:agent$number@$PHONE_IP\"
desktop_token = \"$PAGE_TOKEN-$number\"
trusted = true"
done
start_edge
start phone page-0 python3 "$HERE/desktop.py" "$EDGE_IP" 8080 "$PAGE_TOKEN" "$WORK/page-0.jsonl" 2
for number in $(seq $PEOPLE); do
  start phone "page-$number" python3 "$HERE/desktop.py" "$EDGE_IP" 8080 "$PAGE_TOKEN-$number" "$WORK/page-$number.jsonl" 2
done
# Somewhere for the audio to go; nobody listens.
SINK="import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('$CARRIER_IP', 40000))
while True: s.recv(2048)"
start carrier sink-1 python3 -c "$SINK"
start phone sink-2 python3 -c "${SINK/$CARRIER_IP/$PHONE_IP}"
start phone people sipp -nostdin -sf "$HERE/sipp/takes.xml" -i "$PHONE_IP" -p 5060 -key rtp_port 40000 "$EDGE_IP:5060"

memory() { awk '/VmRSS/ { print $2 }' "/proc/$EDGE_PID/status"; }
opened() { ls "/proc/$EDGE_PID/fd" | wc -l; }
# One call first: what is made once is made by then.
calls() {
  start carrier "sipp-$1" sipp -nostdin -sf "$(carrier_scenario 15000)" -i "$CARRIER_IP" -p "$2" -m "$1" -r "$RATE" -l 200 -key to +18005550100 \
    -key rtp_port 40000 -timeout $((LASTS + 90)) -timeout_error "$EDGE_IP:5060"
  wait "$STARTED"
}
if calls 1 5070; then ok "the first call is as it should be"; else failed "the first call: SIPp says $?"; fi
before=$(memory) files=$(opened)
count=$((RATE * LASTS))
if calls "$count" 5060; then ok "$count calls at $RATE a second, each to its own end"; else failed "the calls: SIPp says $?"; fi
# A transaction stays for 32 s behind its end.
sleep 34
after=$(memory)
asked=$(grep -c asks "$WORK/agent.jsonl")
expect "one in ten was handed over, and each of them bridged" python3 - "$BINARY" "$WORK/data" "$asked" <<'PY'
import json
import subprocess
import sys

binary, data, asked = sys.argv[1], sys.argv[2], int(sys.argv[3])
said = subprocess.run([binary, "metrics", "--since", "1h", "--data", data, "--json"], capture_output=True, text=True, check=True)
completion = json.loads(said.stdout)["figures"]["completion"]
print(f"{asked} asked, {completion}")
assert asked > 0 and completion["n"] == asked and completion["k"] == asked
PY
expect "every chain verifies" "$BINARY" audit verify --data "$WORK/data"
figures="$((before / 1024)) MB after the first call, $((${after:-0} / 1024)) MB after $count more"
# Buffers of the threads and of the store grow to their own size with the first dozens of calls.
if [ $((${after:-9999999} - before)) -le 49152 ]; then ok "no memory of calls is kept: $figures"; else failed "memory is kept: $figures"; fi
left=$(opened)
if [ "$left" -le $((files + 4)) ]; then ok "no socket and no file of a call is kept: $files, then $left"; else failed "sockets or files are kept: $files, then $left"; fi
stop "$EDGE_PID"
expect "nothing of any call is left" python3 - "$WORK/edge.log" "$count" <<'PY'
import re
import sys

text = re.sub("\x1b\\[[0-9;]*m", "", open(sys.argv[1], encoding="utf-8").read())
line = [line for line in text.splitlines() if "counted so far" in line][-1]
holding = dict(re.findall(r"(\w+): (\d+)", line.split("EdgeHolding")[1].split("}")[0]))
total = int(re.search(r"EdgeCounters { calls: (\d+)", line)[1])
print(f"{total} calls, {holding}")
stock = int(holding.pop("ports_in_stock"))
assert total == int(sys.argv[2]) + 1 and stock > 0 and not any(map(int, holding.values()))
PY
stop "$agent"
finish
