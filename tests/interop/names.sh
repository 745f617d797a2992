#!/usr/bin/env bash
# A person at a fixed address whose host is a name: told about while it does not resolve, and
# rung, and given the caller, once it does. The edge has a hosts file of its own, and no name server.
. "$(dirname "$0")/lib.sh"
set_up

start agent voice-agent python3 "$HERE/voice_agent.py" "$AGENT_IP" 8765 "$WORK/agent.wav" "$WORK/agent.jsonl" --talk 1 --transfer
listens "$AGENT_IP" 8765
echo "127.0.0.1 localhost" >"$WORK/hosts"
PHONE_LINES='uri = "sip:dana@desk.example"'
# `ip netns exec` gives each command mounts of its own.
# shellcheck disable=SC2016  # expanded by the inner shell
EDGE_RUN_BY=(sh -c 'mount --bind "$0" /etc/hosts && exec "$@"' "$WORK/hosts")
start_edge
at edge "${EDGE_RUN_BY[@]}" "$BINARY" check --config "$WORK/warmbridge.toml" >"$WORK/check.log" 2>&1
expect "check names the line of the name that does not resolve" grep -E 'line [0-9]+: uri: "desk.example" does not resolve' "$WORK/check.log"
wait_for 15 grep -q 'does not resolve: nobody can be rung there' "$WORK/edge.log"
expect "so does the log" grep -c 'does not resolve: nobody can be rung there' "$WORK/edge.log"

echo "$PHONE_IP desk.example" >>"$WORK/hosts"
kill -HUP "$EDGE_PID"
wait_for 15 grep -q 'the name of a phone resolves' "$WORK/edge.log"
expect "after a reload it resolves" grep -c 'the name of a phone resolves' "$WORK/edge.log"

start phone desktop python3 "$HERE/desktop.py" "$EDGE_IP" 8080 "$PAGE_TOKEN" "$WORK/desktop.jsonl"
tone 1000 60 "$WORK/tone1000.wav"
start_baresip phone "$WORK/phone" "$PHONE_IP" "<sip:dana@$PHONE_IP>;regint=0;answermode=manual;audio_codecs=PCMU/8000/1" "$WORK/tone1000.wav"
# The first key says that a person is there, who then hears the whisper; the second accepts.
start phone person python3 "$HERE/softphone.py" 4444 "$WORK/person.jsonl" --ring 1 --listen 3 --press 1 --again 10
wait_for 5 grep -q connected "$WORK/desktop.jsonl" || failed "the desktop does not connect"
wait_for 5 grep -q ready "$WORK/person.jsonl" || failed "the softphone does not start"

start carrier rtp python3 "$HERE/rtp_peer.py" "$CARRIER_IP" 40000 450 "$WORK/caller.wav" "$WORK/caller.json"
rtp=$STARTED
start carrier sipp sipp -nostdin -sf "$(carrier_scenario 35000)" -i "$CARRIER_IP" -p 5060 -m 1 -key to +18005550100 \
  -key rtp_port 40000 -timeout 90 -timeout_error "$EDGE_IP:5060"
sipp=$STARTED
if wait "$sipp"; then ok "the carrier's call ends with its BYE"; else failed "the carrier's call: SIPp says $?"; fi
stop "$rtp"
expect "the phone behind the name rang" grep -c CALL_INCOMING "$WORK/person.jsonl"
expect "the caller heard the human" python3 "$HERE/ears.py" hears "$WORK/caller.wav" 1000 3
finish
