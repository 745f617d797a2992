#!/usr/bin/env bash
# One warm transfer with TLS and SRTP on every leg: baresip is the caller on the trunk and the
# human agent's softphone, and both insist on encryption. Who hears whom is judged by ear, and
# so is what somebody on the wire hears.
. "$(dirname "$0")/lib.sh"
set_up

# An authority, and a certificate for the edge's address.
at edge sh -c "cd '$WORK' && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=interop-ca \\
  -keyout ca.key -out ca.pem && openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=edge -keyout edge.key -out edge.csr &&
  printf 'subjectAltName=IP:%s' '$EDGE_IP' >san && openssl x509 -req -in edge.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san -out edge.pem" \
  >"$WORK/openssl.log" 2>&1 || failed "no certificate could be made"
EDGE_LINES="sip_tls = \"$EDGE_IP:5061\"
tls_cert_file = \"$WORK/edge.pem\"
tls_key_file = \"$WORK/edge.key\"
tls_ca_file = \"$WORK/ca.pem\""
BARESIP_LINES="sip_cafile $WORK/ca.pem
sip_verify_server yes
module srtp.so"
secured="mediaenc=srtp-mand;audio_codecs=PCMU/8000/1"

start agent voice-agent python3 "$HERE/voice_agent.py" "$AGENT_IP" 8765 "$WORK/agent.wav" "$WORK/agent.jsonl" --talk 3 --transfer
agent=$STARTED
start agent crm python3 "$HERE/crm.py" "$AGENT_IP" 8766 "$CRM_SECRET" "$WORK/crm.jsonl"
listens "$AGENT_IP" 8765
listens "$AGENT_IP" 8766
start_edge
listens "$EDGE_IP" 5061
expect "a TLS peer is shown the edge's certificate" at carrier openssl s_client -connect "$EDGE_IP:5061" -CAfile "$WORK/ca.pem" \
  -verify_return_error -verify_ip "$EDGE_IP" -brief
expect "TLS 1.1 is not spoken" sh -c "! ip netns exec '$NET-carrier' openssl s_client -connect '$EDGE_IP:5061' -tls1_1 -brief"

start edge tap-carrier python3 "$HERE/wiretap.py" to-carrier "$WORK/tap-carrier.wav" "$WORK/tap-carrier.json"
tap_carrier=$STARTED
start edge tap-phone python3 "$HERE/wiretap.py" to-phone "$WORK/tap-phone.wav" "$WORK/tap-phone.json"
tap_phone=$STARTED
wait_for 5 grep -q ready "$WORK/tap-phone.log"

start phone desktop python3 "$HERE/desktop.py" "$EDGE_IP" 8080 "$PAGE_TOKEN" "$WORK/desktop.jsonl"
tone 1000 120 "$WORK/tone1000.wav"
start_baresip phone "$WORK/phone" "$PHONE_IP" \
  "<sip:dana@$EDGE_IP:5061;transport=tls>;auth_user=dana;auth_pass=$PASSWORD;regint=60;answermode=manual;$secured" "$WORK/tone1000.wav"
phone=$BARESIP_PID
start phone person python3 "$HERE/softphone.py" 4444 "$WORK/person.jsonl" --ring 4 --listen 8 --press 1
if wait_for 15 grep -q '200 OK' "$WORK/baresip-phone.log"; then ok "baresip registers over TLS"; else failed "baresip does not register over TLS"; fi

tone 450 120 "$WORK/tone450.wav"
start_baresip carrier "$WORK/carrier" "$CARRIER_IP" "<sip:+15555550142@$CARRIER_IP:5061;transport=tls>;regint=0;$secured" "$WORK/tone450.wav"
caller=$BARESIP_PID
start carrier dialler python3 "$HERE/softphone.py" 4444 "$WORK/caller.jsonl" --dial "sip:+18005550100@$EDGE_IP:5061" --talk 35
if wait_for 60 grep -q CALL_CLOSED "$WORK/caller.jsonl"; then ok "the caller hangs up"; else failed "the call does not end"; fi
expect "the record tells of a completed transfer" recorded
for pid in "$caller" "$phone" "$tap_carrier" "$tap_phone" "$agent"; do stop "$pid"; done

heard() { ls "$WORK/$1"/*-dec.wav 2>/dev/null | head -n 1; }
at_caller=$(heard carrier) at_human=$(heard phone)
expect "the caller heard the voice agent" python3 "$HERE/ears.py" hears "${at_caller:-none}" 650 2
expect "the caller heard the human" python3 "$HERE/ears.py" hears "${at_caller:-none}" 1000 3
expect "the human heard the caller" python3 "$HERE/ears.py" hears "${at_human:-none}" 450 3
expect "the human never heard the voice agent" python3 "$HERE/ears.py" lacks "${at_human:-none}" 650
expect "the voice agent heard the caller" python3 "$HERE/ears.py" hears "$WORK/agent.wav" 450 2
for place in carrier phone; do
  expect "packets passed between the edge and the $place, and no SIP could be read" python3 -c "
import json
counts = json.load(open('$WORK/tap-$place.json'))
print(counts)
assert counts['packets'] > 500 and counts['readable'] == 0, counts"
  for hz in 450 650 1000; do
    expect "$hz Hz is not heard on the wire of the $place" python3 "$HERE/ears.py" lacks "$WORK/tap-$place.wav" "$hz"
  done
done
expect "no key is in the edge's log" sh -c "! grep -n 'inline:' '$WORK/edge.log'"
finish
