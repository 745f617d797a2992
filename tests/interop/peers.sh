#!/usr/bin/env bash
# The tools judge the edge, so they are judged first, against each other and without it.
. "$(dirname "$0")/lib.sh"
set_up

# Ears: what is there is heard, what is not there is not.
tone 1000 4 "$WORK/human.wav"
tone 450 4 "$WORK/caller.wav"
expect "ears hear 1000 Hz" python3 "$HERE/ears.py" hears "$WORK/human.wav" 1000 3.5
expect "ears do not hear 1400 Hz in it" python3 "$HERE/ears.py" lacks "$WORK/human.wav" 1400
if python3 "$HERE/ears.py" lacks "$WORK/human.wav" 1000 >/dev/null; then failed "ears deny what is there"; else ok "ears do not deny 1000 Hz"; fi
espeak-ng -w "$WORK/said22.wav" "Dana Ortiz asks about her medication. She has confirmed her name." 2>/dev/null
python3 - "$WORK" <<'PY'
import sys
import wave

import ears

work = sys.argv[1]
with wave.open(f"{work}/said22.wav") as file:
    rate = file.getframerate()
    data = memoryview(file.readframes(file.getnframes())).cast("h")
said = [data[int(at * rate / ears.RATE)] for at in range(int(len(data) * ears.RATE / rate) - 1)]
ears.write(f"{work}/said.wav", said)
bed = ears.sine(850, len(said) + 8000, level=2000)
ears.write(f"{work}/bed.wav", bed)
ears.write(f"{work}/leak.wav", [x + (said[at - 4321] // 2 if 0 <= at - 4321 < len(said) else 0) for at, x in enumerate(bed)])
PY
expect "speech that is not there is not found" python3 "$HERE/ears.py" strange "$WORK/said.wav" 0 4 "$WORK/bed.wav"
if python3 "$HERE/ears.py" strange "$WORK/said.wav" 0 4 "$WORK/leak.wav" >/dev/null; then
  failed "speech below music is not found"
else
  ok "speech that leaks below music is found"
fi

# RTP peers hear each other, gapless and on one stream.
start carrier rtp-a python3 "$HERE/rtp_peer.py" "$CARRIER_IP" 40000 450 "$WORK/a.wav" "$WORK/a.json" --to "$EDGE_IP:40000"
a=$STARTED
start edge rtp-b python3 "$HERE/rtp_peer.py" "$EDGE_IP" 40000 1000 "$WORK/b.wav" "$WORK/b.json"
b=$STARTED
sleep 3
stop "$a"
stop "$b"
expect "one RTP peer hears the other" python3 "$HERE/ears.py" hears "$WORK/a.wav" 1000 2
expect "and is heard" python3 "$HERE/ears.py" hears "$WORK/b.wav" 450 2
expect "their streams have no break" python3 -c "
import json, sys
for name in 'ab':
    c = json.load(open('$WORK/' + name + '.json'))
    assert c['seq_breaks'] == c['timestamp_breaks'] == 0 and c['ssrcs'] == 1 and c['packets'] > 100, c"

# The carrier's scenario calls a baresip, whose person answers; it hangs up after its quiet time.
tone 1000 60 "$WORK/tone1000.wav"
start_baresip phone "$WORK/phone" "$PHONE_IP" "<sip:dana@$PHONE_IP>;regint=0;answermode=manual;audio_codecs=PCMU/8000/1" "$WORK/tone1000.wav"
ip -n "$NET-phone" route add "$CARRIER_IP/32" via "$EDGE_IP" dev uplink onlink
ip -n "$NET-carrier" route add "$PHONE_IP/32" via "$EDGE_IP" dev uplink onlink
at edge sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
start phone person python3 "$HERE/softphone.py" 4444 "$WORK/person.jsonl" --ring 1 --listen 2 --press 1
start carrier rtp python3 "$HERE/rtp_peer.py" "$CARRIER_IP" 40002 450 "$WORK/carrier.wav" "$WORK/carrier.json"
rtp=$STARTED
wait_for 5 grep -q ready "$WORK/person.jsonl"
start carrier sipp sipp -nostdin -sf "$(carrier_scenario 5000)" -i "$CARRIER_IP" -p 5060 -m 1 -key to dana -key rtp_port 40002 \
  -timeout 30 -timeout_error "$PHONE_IP:5060"
sipp=$STARTED
if wait "$sipp"; then ok "sipp calls baresip and hangs up"; else failed "sipp calls baresip: exit $?"; fi
stop "$rtp"
stop "$BARESIP_PID"
expect "the carrier hears the softphone's tone" python3 "$HERE/ears.py" hears "$WORK/carrier.wav" 1000 2
expect "baresip keeps what it heard" sh -c "ls '$WORK'/phone/*-dec.wav"
expect "the softphone heard the carrier's tone" sh -c "python3 '$HERE/ears.py' hears '$WORK'/phone/*-dec.wav 450 2"

# The voice agent and a client of its dialect.
start agent voice-agent python3 "$HERE/voice_agent.py" "$AGENT_IP" 8765 "$WORK/agent.wav" "$WORK/agent.jsonl" --talk 1 --transfer
agent=$STARTED
listens "$AGENT_IP" 8765
expect "the voice agent speaks, waits for its mark and asks for a person" at edge python3 "$HERE/edge_client.py" "$AGENT_IP" 8765
stop "$agent"
expect "the voice agent hears 450 Hz" python3 "$HERE/ears.py" hears "$WORK/agent.wav" 450 2

# The CRM believes what is signed and nothing else.
start agent crm python3 "$HERE/crm.py" "$AGENT_IP" 8766 "$CRM_SECRET" "$WORK/crm.jsonl"
listens "$AGENT_IP" 8766
expect "the CRM checks signatures" at edge python3 - "$AGENT_IP" "$CRM_SECRET" <<'PY'
import base64
import hashlib
import hmac
import sys
import time
import urllib.error
import urllib.request

ip, secret = sys.argv[1:]
body, stamp = b'{"type":"t"}', str(int(time.time()))


def post(signature):
    fields = {"webhook-id": "m1", "webhook-timestamp": stamp, "webhook-signature": signature}
    try:
        return urllib.request.urlopen(urllib.request.Request(f"http://{ip}:8766/", body, fields), timeout=5).status
    except urllib.error.HTTPError as error:
        return error.code


key = base64.b64decode(secret.removeprefix("whsec_"))
mac = hmac.new(key, f"m1.{stamp}.".encode() + body, hashlib.sha256).digest()
assert post("v1," + base64.b64encode(mac).decode()) == 200
assert post("v1," + base64.b64encode(mac[::-1]).decode()) == 401
assert post("") == 401
PY
finish
