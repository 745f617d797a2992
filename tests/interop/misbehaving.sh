#!/usr/bin/env bash
# Phones that misbehave, played by SIPp, each before a caller's eyes and followed by one that
# does not: busy, declined, not answered, picked up in the moment of the CANCEL, hung up in the
# whisper, gone with the ACK. Three calls, two such phones each; the caller hears a person in
# the end, no break before, and the record says what each phone did.
. "$(dirname "$0")/lib.sh"
set_up
start edge idle python3 "$HERE/idle.py" "$WORK/idle.json"
idle=$STARTED

# agent NAME PORT: a phone at a fixed address.
agent() {
  cat <<TOML

[[agent]]
id = "agent_$1"
name = "${1^}"
uri = "sip:$1@$PHONE_IP:$2"
ring_timeout_s = 5
accept_timeout_s = 5
TOML
}
PHONE_LINES="uri = \"sip:dana@$PHONE_IP\""
BAD=(busy declines no_answer late leaves crashes)
write_people() {
  local i
  write_config
  for i in "${!BAD[@]}"; do agent "${BAD[$i]}" $((6001 + i)); done >>"$WORK/warmbridge.toml"
  sed -i "s/^agents = .*/agents = [\"agent_$1\", \"agent_$2\", \"agent_dana\"]/" "$WORK/warmbridge.toml"
}

# The person who takes each of the three calls in the end.
tone 1000 180 "$WORK/tone1000.wav"
start_baresip phone "$WORK/phone" "$PHONE_IP" "<sip:dana@$PHONE_IP>;regint=0;answermode=manual;audio_codecs=PCMU/8000/1" "$WORK/tone1000.wav"
start phone person python3 "$HERE/softphone.py" 4444 "$WORK/person.jsonl" --ring 1 --listen 2 --press 1 --again 4
wait_for 5 grep -q ready "$WORK/person.jsonl" || failed "the softphone does not start"

write_people "${BAD[0]}" "${BAD[1]}"
expect "the edge's configuration is in order" at edge "$BINARY" check --config "$WORK/warmbridge.toml"
start edge edge env WARMBRIDGE_LOG=info "$BINARY" serve --config "$WORK/warmbridge.toml"
EDGE_PID=$STARTED
listens "$EDGE_IP" 8080

# one_call QUIET_MS FIRST SECOND TYPES: these two misbehave; what the record has of them is
# TYPES. The carrier hangs up when nothing was asked of it for QUIET_MS.
one_call() {
  local quiet=$1 first=$2 second=$3 wanted=$4 name i port phones=() agent rtp call
  write_people "$first" "$second"
  kill -HUP "$EDGE_PID"
  for name in "$first" "$second"; do
    for i in "${!BAD[@]}"; do [ "${BAD[$i]}" = "$name" ] && port=$((6001 + i)); done
    start phone "phone-$name" sipp -nostdin -sf "$HERE/sipp/$name.xml" -i "$PHONE_IP" -p "$port" -mp "$((port + 1000))" -m 1 -timeout 75 -timeout_error
    phones+=("$STARTED")
  done
  start agent "voice-agent-$first" python3 "$HERE/voice_agent.py" "$AGENT_IP" 8765 "$WORK/agent.wav" "$WORK/agent-$first.jsonl" --talk 0 --transfer
  agent=$STARTED
  listens "$AGENT_IP" 8765
  start carrier "rtp-$first" python3 "$HERE/rtp_peer.py" "$CARRIER_IP" 40000 450 "$WORK/$first.wav" "$WORK/$first.json"
  rtp=$STARTED
  start carrier "sipp-$first" sipp -nostdin -sf "$(carrier_scenario "$quiet")" -i "$CARRIER_IP" -p 5060 -m 1 -key to +18005550100 \
    -key rtp_port 40000 -timeout 100 -timeout_error "$EDGE_IP:5060"
  if wait "$STARTED"; then ok "$first, then $second: the caller's call ends with the caller's BYE"; else failed "$first, then $second: the caller's call: SIPp says $?"; fi
  for i in 0 1; do
    name=$([ "$i" = 0 ] && echo "$first" || echo "$second")
    if wait "${phones[$i]}"; then ok "$name: the phone got what it must get"; else failed "$name: the phone did not get what it must get: SIPp says $?"; fi
  done
  stop "$rtp"
  stop "$agent"
  closed() { [ "$("$BINARY" audit list --json --data "$WORK/data" | grep -c '"state":"closed"')" -eq "$1" ]; }
  calls=$((calls + 1))
  wait_for 30 closed "$calls" || failed "$first, then $second: the chain does not close"
  # The newest call is the one that was not there before.
  call=$("$BINARY" audit list --json --data "$WORK/data" | python3 -c "import json,sys; print(*(json.loads(line)['chain'] for line in sys.stdin))" | tr ' ' '\n' | grep -v '#late' | grep -vxF -f "$WORK/known" | head -n 1)
  echo "$call" >>"$WORK/known"
  "$BINARY" audit show "$call" --json --data "$WORK/data" >"$WORK/records-$first.log" 2>&1
  expect "$first, then $second: the record says so" python3 - "$WORK/records-$first.log" "$wanted" <<'PY'
import json
import sys

records = [json.loads(line) for line in open(sys.argv[1]) if line.startswith("{")]
kinds = [record["type"] for record in records]
# What is in the clear of a record: its sealed part is not needed here.
tried = []
for record in records:
    body = record["body"] if isinstance(record["body"], dict) else {}
    if record["type"] in ("agent.declined", "agent.no_answer"):
        tried.append(record["type"].split(".")[1] + "".join(f" {body[key]}" for key in ("reason", "status") if body.get(key)))
print(", ".join(tried))
assert tried == sys.argv[2].split(", "), tried
assert kinds.count("leg.opened") == kinds.count("leg.closed") == 5, kinds
assert kinds.count("agent.accepted") == kinds.count("bridge.completed") == 1, kinds
PY
  expect "$first, then $second: the caller heard a person" python3 "$HERE/ears.py" hears "$WORK/$first.wav" 1000 3
}
calls=0
echo none >"$WORK/known"
one_call 20000 busy declines "declined busy 486, declined declined 603"
one_call 20000 no_answer late "no_answer, no_answer"
one_call 32000 leaves crashes "declined lost, declined never_accepted"
stop "$idle"
for name in busy no_answer leaves; do
  expect "$name: the caller's stream has no break" python3 "$HERE/unbroken.py" "$WORK/$name.json" "$WORK/idle.json"
done
expect "every audit chain verifies" "$BINARY" audit verify --data "$WORK/data"
expect "the edge is idle again" sh -c "! grep -E 'panic|ERROR' '$WORK/edge.log'"
finish
