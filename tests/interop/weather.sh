#!/usr/bin/env bash
# A whole warm transfer on a bad line: everything between the carrier and the edge, SIP over
# UDP as well as RTP, is lost, late, doubled or overtaken on its way. No state changes for it,
# no call is lost, and the edge's own stream has no break: what is missing, the line lost.
. "$(dirname "$0")/lib.sh"
set_up
seed=${SEED:-27}

# The carrier's cable is cut, and the weather put between its ends.
ip netns add "$NET-weather"
ip -n "$NET-carrier" link del uplink
ip -n "$NET-edge" link add name to-carrier type veth peer name far netns "$NET-weather"
ip -n "$NET-carrier" link add name uplink type veth peer name near netns "$NET-weather"
ip -n "$NET-edge" address add "$EDGE_IP/32" dev to-carrier
ip -n "$NET-edge" link set dev to-carrier up
ip -n "$NET-edge" route add "$CARRIER_IP/32" dev to-carrier
ip -n "$NET-carrier" address add "$CARRIER_IP/32" dev uplink
ip -n "$NET-carrier" link set dev uplink up
ip -n "$NET-carrier" route add "$EDGE_IP/32" dev uplink
for name in near far; do ip -n "$NET-weather" link set dev "$name" up promisc on; done
start weather weather python3 "$HERE/weather.py" near far "$WORK/weather.json" --loss 20 --jitter 100 --double 30 --seed "$seed"
weather=$STARTED
wait_for 10 grep -q ready "$WORK/weather.log" || failed "there is no weather"

start edge idle python3 "$HERE/idle.py" "$WORK/idle.json"
idle=$STARTED
start agent voice-agent python3 "$HERE/voice_agent.py" "$AGENT_IP" 8765 "$WORK/agent.wav" "$WORK/agent.jsonl" --talk 3 --transfer
agent=$STARTED
start agent crm python3 "$HERE/crm.py" "$AGENT_IP" 8766 "$CRM_SECRET" "$WORK/crm.jsonl"
listens "$AGENT_IP" 8765
listens "$AGENT_IP" 8766
PHONE_LINES="uri = \"sip:dana@$PHONE_IP\"
trusted = true"
start_edge
# Answered once the message is over, so that the caller is put on hold and taken back.
start_human 18 9
start carrier rtp python3 "$HERE/rtp_peer.py" "$CARRIER_IP" 40000 450 "$WORK/caller.wav" "$WORK/caller.json"
rtp=$STARTED
start carrier caller python3 "$HERE/phone.py" calls "$CARRIER_IP" "$EDGE_IP:5060" 40000 "$WORK/caller.jsonl"
caller=$STARTED
wait_for 60 grep -q '"bridged"' "$WORK/desktop.jsonl" || failed "nothing is bridged: $(tail -n 3 "$WORK/desktop.jsonl")"
sleep 7
if grep -q '"BYE"' "$WORK/caller.jsonl" "$WORK/human.jsonl"; then failed "the edge hung up"; else ok "the call stands until the caller hangs up"; fi
kill -TERM "$caller"
wait "$caller" || failed "the caller's BYE is not answered: $(tail -n 1 "$WORK/caller.jsonl")"
wait_for 40 grep -q '"BYE"' "$WORK/human.jsonl" || failed "the human's phone is not told of the caller's BYE"
expect "the record tells of a completed transfer" recorded
for pid in "$rtp" "$HUMAN_RTP" "$agent" "$idle" "$weather"; do stop "$pid"; done

calls=$("$BINARY" audit list --json --data "$WORK/data" | wc -l)
if [ "$calls" -eq 1 ]; then ok "what came twice opened no second call"; else failed "there are $calls calls in the store"; fi
expect "nothing else happened than on a good line" python3 - "$WORK/records.log" <<'PY'
import json
import sys

kinds = [json.loads(line)["type"] for line in open(sys.argv[1]) if line.startswith("{")]
once = ("transfer.decided", "agent.offered", "agent.answered", "agent.accepted", "hold.started", "hold.ended", "bridge.completed", "call.ended")
assert all(kinds.count(kind) == 1 for kind in once), {kind: kinds.count(kind) for kind in once}
odd = [kind for kind in kinds if any(word in kind for word in ("lost", "failed", "fallback", "degraded", "abandoned"))]
assert not odd, odd
print(f"{len(kinds)} records, each step once")
PY
expect "the line lost, doubled and turned round what was on it" python3 - "$WORK/weather.json" "$seed" <<'PY'
import json
import sys

weather = json.load(open(sys.argv[1]))
for name, way in weather.items():
    for kind, c in way.items():
        print(f"{name} {kind} {c['lost']} of {c['came']} lost, {c['doubled']} doubled, {c['overtook']} overtaken", end="; ")
    c = way["rtp"]
    assert c["came"] > 1000 and c["lost"] * 100 > 15 * c["came"] and c["doubled"] and c["overtook"], (name, c)
print(f"seed {sys.argv[2]}")
both = [way["sip"] for way in weather.values()]
assert sum(c["lost"] for c in both) and sum(c["doubled"] for c in both), both
PY
expect "what the caller misses, the line lost" python3 - "$WORK" <<'PY'
import json
import sys

read = lambda name: json.load(open(f"{sys.argv[1]}/{name}.json"))
caller, weather, stall = read("caller"), read("weather")["from_edge"]["rtp"], read("idle")["stall_ms"]
missing = caller["span"] - caller["frames"]
print(f"{caller['frames']} of {caller['span']} frames came, {missing} missing, {weather['lost']} lost by the line, the machine was {stall} ms late")
# One stream and one clock; a machine that was late by five frames excuses a jump.
assert caller["ssrcs"] == 1 and (caller["offsets"] == 1 or stall >= 100), caller
assert missing <= weather["lost"] and caller["frames"] > 1000
PY
expect "the caller heard the voice agent" python3 "$HERE/ears.py" hears "$WORK/caller.wav" 650 2
expect "the caller heard the human" python3 "$HERE/ears.py" hears "$WORK/caller.wav" 1000 5
expect "the human heard the caller" python3 "$HERE/ears.py" hears "$WORK/human.wav" 450 5
expect "the human never heard the voice agent" python3 "$HERE/ears.py" lacks "$WORK/human.wav" 650
expect "the voice agent heard the caller" python3 "$HERE/ears.py" hears "$WORK/agent.wav" 450 2
expect "the voice agent never heard the human" python3 "$HERE/ears.py" lacks "$WORK/agent.wav" 1000
finish
