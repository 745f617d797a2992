#!/usr/bin/env bash
# Ten calls, and a flood of junk beside them: 10,000 packets a second from two strangers, to SIP
# and to the media ports. Each frame of the callers is numbered and goes through the edge to a
# voice agent and back; how many come back in the flood is set beside how many do before it.
#
#   tests/interop/flood.sh [SECONDS]     the flood's length; 6 where nothing is said
. "$(dirname "$0")/lib.sh"
LASTS=${1:-6}
CALLS=10
RATE=10000
set_up
start edge idle python3 "$HERE/idle.py" "$WORK/idle.json"
idle=$STARTED
start agent voice-agent python3 "$HERE/echo_agent.py" "$AGENT_IP" 8765 "$WORK/agent.jsonl"
agent=$STARTED
listens "$AGENT_IP" 8765
start_edge

callers=()
peers=()
for number in $(seq $CALLS); do
  audio=$((40000 + 2 * number))
  start carrier "rtp-$number" python3 "$HERE/rtp_peer.py" "$CARRIER_IP" "$audio" 450 "$WORK/caller-$number.wav" "$WORK/caller-$number.json" --number
  peers+=("$STARTED")
  start carrier "caller-$number" python3 "$HERE/phone.py" calls "$CARRIER_IP:$((5100 + number))" "$EDGE_IP:5060" "$audio" "$WORK/caller-$number.jsonl"
  callers+=("$STARTED")
done
up() { [ "$(grep -c '"start"' "$WORK/agent.jsonl")" -eq "$CALLS" ]; }
wait_for 30 up || failed "only $(grep -c '"start"' "$WORK/agent.jsonl") of $CALLS calls come up"
# The disclosure is said before anybody is heard.
sleep 9
quiet_from=$(date +%s%3N)
sleep "$LASTS"
quiet_to=$(date +%s%3N)

memory() { awk '/VmRSS/ { print $2 }' "/proc/$EDGE_PID/status"; }
before=$(memory)
seed=${SEED:-$(date +%s)}
start agent flood-1 python3 "$HERE/flood.py" "$EDGE_IP" 5060 20000 20198 "$seed" $((RATE / 2)) "$LASTS" "$WORK/flood-1.json"
one=$STARTED
start phone flood-2 python3 "$HERE/flood.py" "$EDGE_IP" 5060 20000 20198 "$((seed + 1))" $((RATE / 2)) "$LASTS" "$WORK/flood-2.json"
two=$STARTED
most=$before
while kill -0 "$one" 2>/dev/null || kill -0 "$two" 2>/dev/null; do
  now=$(memory)
  [ "${now:-0}" -gt "$most" ] && most=$now
  sleep 0.5
done
wait "$one" && wait "$two" || failed "the flood (seed $seed): exit $?"
# What the agent said during the disclosure is still before what it says now.
sleep 6
after=$(memory)
if kill -0 "$EDGE_PID" 2>/dev/null; then ok "the process lives (seed $seed)"; else failed "the process is gone (seed $seed)"; fi
lost=$(grep -l '"BYE"' "$WORK"/caller-*.jsonl | wc -l)
if [ "$lost" -eq 0 ]; then ok "all $CALLS calls go on"; else failed "$lost calls were hung up on"; fi
figures="$((before / 1024)) MB before, at most $((most / 1024)) MB, $((${after:-0} / 1024)) MB after"
if [ $((most - before)) -le 65536 ]; then ok "its memory is bounded: $figures"; else failed "its memory grew: $figures"; fi
for pid in "${callers[@]}"; do stop "$pid"; done
for pid in "${peers[@]}"; do stop "$pid"; done
stop "$idle"
stop "$agent"

expect "the callers' frames go both ways, in the flood as before it" python3 - "$WORK" "$quiet_from" "$quiet_to" "$CALLS" "$LASTS" <<'PY'
import json
import sys

work, calls = sys.argv[1], int(sys.argv[4])
quiet = tuple(map(int, sys.argv[2:4]))
floods = [json.load(open(f"{work}/flood-{number}.json")) for number in (1, 2)]
flood = max(f["began_ms"] for f in floods), min(f["ended_ms"] for f in floods)
sent, seconds = sum(f["sent"] for f in floods), int(sys.argv[5])


def shares(window):
    """Of all callers together: frames said in it, and those that came back."""
    said = back = 0
    for number in range(1, calls + 1):
        read = json.load(open(f"{work}/caller-{number}.json"))
        own = {n & 0xFFFF for n, at in enumerate(read["sent"]) if window[0] <= at < window[1]}
        heard = {n for at, n in read["told"] if at >= window[0]}
        said, back = said + len(own), back + len(own & heard)
    return said, back


before, during = shares(quiet), shares(flood)
loss = lambda of: 1 - of[1] / max(of[0], 1)
extra = 100 * (loss(during) - loss(before))
# What the machine itself was late, it was to all ten.
stall = json.load(open(f"{work}/idle.json"))["stall_ms"]
excused = 100 * calls * (stall // 20) / max(during[0], 1)
print(f"{sent / seconds:.0f} packets a second; lost {100 * loss(before):.2f} % of {before[0]} before, "
      f"{100 * loss(during):.2f} % of {during[0]} in it, {extra:.2f} % more; the machine was {stall} ms late")
assert before[0] > 45 * calls * seconds and during[0] > 40 * calls * seconds, "callers were silent"
assert loss(before) < 0.05 and extra <= 1 + excused
PY
stop "$EDGE_PID"
expect "what was dropped was counted" python3 - "$WORK/edge.log" <<'PY'
import re
import sys

text = re.sub("\x1b\\[[0-9;]*m", "", open(sys.argv[1], encoding="utf-8").read())
line = [line for line in text.splitlines() if "counted so far" in line][-1]
counts = {name: int(count) for name, count in re.findall(r'"?([a-z_0-9]+)"?: (\d+)', line)}
calls = int(re.search(r"EdgeCounters { calls: (\d+)", line)[1])
dropped = sum(count for name, count in re.findall(r'"([a-z_0-9]+)": (\d+)', line) for count in [int(count)])
print(f"{dropped} at SIP, {counts['foreign'] + counts['malformed']} at RTP, {calls} calls")
assert dropped > 1000 and counts["foreign"] + counts["malformed"] > 100 and calls == 10
PY
finish
