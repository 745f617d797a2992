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

# What the wire carries is no audio, and a hold would end what the softphone keeps.
RING=4 CALLER_HEARD=softphone
softphones "<sip:+15555550142@$CARRIER_IP:5061;transport=tls>;regint=0;$secured" "sip:+18005550100@$EDGE_IP:5061" \
  "<sip:dana@$EDGE_IP:5061;transport=tls>;auth_user=dana;auth_pass=$PASSWORD;regint=60;answermode=manual;$secured"
stop "$tap_carrier"
stop "$tap_phone"
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
