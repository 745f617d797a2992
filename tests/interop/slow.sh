#!/usr/bin/env bash
# Slow peers on every listener, and CRMs that do not behave, beside a call that goes through a
# whole transfer: its audio goes on unbroken, the transfer is completed, others are served,
# and what the slow ones held is given back.
. "$(dirname "$0")/lib.sh"
set_up
start edge idle python3 "$HERE/idle.py" "$WORK/idle.json"
idle=$STARTED

start agent voice-agent python3 "$HERE/voice_agent.py" "$AGENT_IP" 8765 "$WORK/agent.wav" "$WORK/agent.jsonl" --talk 6 --transfer
agent=$STARTED
start agent crm python3 "$HERE/crm.py" "$AGENT_IP" 8766 "$CRM_SECRET" "$WORK/crm.jsonl"
start agent bad-crm python3 "$HERE/bad_crm.py" "$AGENT_IP" 8770 "$WORK/bad-crm.txt"
for port in 8765 8766 8770 8774; do listens "$AGENT_IP" "$port"; done
PHONE_LINES="uri = \"sip:dana@$PHONE_IP\"
trusted = true"
SLOW_TOKEN=interop-slow-page-token-0123456789
WALL_TOKEN=interop-wallboard-token-0123456789
MORE_LINES="[[operator]]
id = \"wall\"
role = \"monitor\"
token = \"$WALL_TOKEN\"

[[agent]]
id = \"agent_eli\"
name = \"Eli\"
uri = \"sip:eli@10.77.0.99\"
desktop_token = \"$SLOW_TOKEN\""
for at in 0 1 2 3 4; do
  MORE_LINES+="

[[webhook]]
id = \"bad_$at\"
url = \"http://$AGENT_IP:$((8770 + at))/\"
secret = \"$CRM_SECRET\"
allow_private = [\"$AGENT_IP/32\"]"
done
# As a shell would start it: fewer open files than there will be idle connections.
EDGE_RUN_BY=(prlimit --nofile=512:16384)
start_edge
start_human 10
start carrier rtp python3 "$HERE/rtp_peer.py" "$CARRIER_IP" 40000 450 "$WORK/caller.wav" "$WORK/caller.json"
rtp=$STARTED
start carrier caller python3 "$HERE/phone.py" calls "$CARRIER_IP" "$EDGE_IP:5060" 40000 "$WORK/caller.jsonl"
caller=$STARTED
wait_for 30 grep -q '"mark"' "$WORK/agent.jsonl" || failed "the call does not come up"

fds() { find "/proc/$EDGE_PID/fd" -mindepth 1 | wc -l; }
memory() { awk '/VmRSS/ { print int($2 / 1024) }' "/proc/$EDGE_PID/status"; }
fds_before=$(fds) memory_before=$(memory)
start agent slow python3 "$HERE/slow.py" "$EDGE_IP" 38 "$SLOW_TOKEN" "$WALL_TOKEN" "$EDGE_PID" "$WORK/slow.json"
slow=$STARTED
sleep 5

# While they hold what they can, somebody else is served, at SIP's and at HTTP's listener.
served() {
  at carrier python3 - "$EDGE_IP" "$CARRIER_IP" <<'PY'
import socket
import sys
import urllib.request

edge, own = sys.argv[1:]
page = urllib.request.urlopen(f"http://{edge}:8080/desktop/", timeout=20).status
with socket.create_connection((edge, 5060), 20) as tcp:
    tcp.sendall(
        f"OPTIONS sip:{edge} SIP/2.0\r\nVia: SIP/2.0/TCP {own}:5060;branch=z9hG4bKserved\r\nMax-Forwards: 70\r\n"
        f"From: <sip:x@{own}>;tag=s\r\nTo: <sip:{edge}>\r\nCall-ID: served\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n".encode()
    )
    tcp.settimeout(20)
    answer = tcp.recv(4096)
assert page == 200 and answer.startswith(b"SIP/2.0 200"), (page, answer[:80])
PY
}
expect "others are served beside them" served
wait_for 60 grep -q '"bridged"' "$WORK/desktop.jsonl" || failed "nothing is bridged: $(tail -n 3 "$WORK/desktop.jsonl")"
wait "$slow" || failed "the slow peers: exit $?"
expect "others are served after them" served

expect "the edge ended what was slow" python3 - "$WORK/slow.json" <<'PY'
import json
import sys

log = json.load(open(sys.argv[1]))
print("; ".join(f"{name}: {c['ended']} of {c['opened']}" for name, c in log["counts"].items()))
# Events that nobody reads are too few to fill a buffer, and nothing is wrong with them.
assert len(log["counts"]) == 12
for name, c in log["counts"].items():
    assert c["opened"] and (c["ended"] == c["opened"] or "events" in name), (name, c)
PY
settled() { [ "$(fds)" -le $((fds_before + 16)) ]; }
wait_for 10 settled
most=$(python3 -c "import json; m = json.load(open('$WORK/slow.json'))['most']; print(m['fds'], m['rss_kb'] // 1024)")
said="$fds_before before, ${most% *} at most, $(fds) after"
if settled && [ "${most% *}" -le 2500 ]; then ok "its descriptors: $said"; else failed "its descriptors: $said"; fi
said="$memory_before MB before, ${most#* } MB at most, $(memory) MB after"
if [ "${most#* }" -le $((memory_before + 96)) ]; then ok "its memory: $said"; else failed "its memory: $said"; fi

if grep -q '"BYE"' "$WORK/caller.jsonl"; then failed "the edge hung up"; else ok "the call stands until the caller hangs up"; fi
kill -TERM "$caller"
wait "$caller" || failed "the caller's BYE is not answered"
for pid in "$rtp" "$HUMAN_RTP" "$agent" "$idle"; do stop "$pid"; done
expect "the caller's stream has no break" python3 "$HERE/unbroken.py" "$WORK/caller.json" "$WORK/idle.json"
expect "the caller heard the voice agent" python3 "$HERE/ears.py" hears "$WORK/caller.wav" 650 5
expect "the caller heard the human" python3 "$HERE/ears.py" hears "$WORK/caller.wav" 1000 5
expect "the human heard the caller" python3 "$HERE/ears.py" hears "$WORK/human.wav" 450 5

# The chain stays open while webhooks are tried again, so it is read as it is.
"$BINARY" audit list --json --data "$WORK/data" >"$WORK/list.log"
call=$(main_chain <"$WORK/list.log")
"$BINARY" audit show "$call" --json --data "$WORK/data" >"$WORK/records.log" 2>&1
expect "the transfer is completed beside five bad CRMs" python3 "$HERE/records.py" "$WORK/records.log"
expect "the good CRM had its webhooks" python3 - "$WORK" <<'PY'
import collections
import json
import sys

work = sys.argv[1]
hooks = [json.loads(line) for line in open(f"{work}/crm.jsonl")]
kinds = {hook["type"].split(".")[-2] for hook in hooks}
assert all(hook["verified"] for hook in hooks) and {"offered", "accepted", "bridged"} <= kinds, hooks
tried = collections.Counter(open(f"{work}/bad-crm.txt").read().split())
print(f"{len(hooks)}; the others were tried: {', '.join(f'{mode} {count}' for mode, count in sorted(tried.items()))}")
assert set(tried) == {"stalls", "drips", "huge", "redirects", "resets"} and sum(tried.values()) < 200, tried
records = [json.loads(line) for line in open(f"{work}/records.log") if line.startswith("{")]
delivered = {r["body"].get("destination") for r in records if r["type"] == "webhook.delivered"}
assert delivered <= {"crm", "bad_2"}, delivered
PY
if kill -0 "$EDGE_PID" && ! grep -qE 'panicked|ERROR' "$WORK/edge.log"; then
  ok "the edge lives, and its log tells of no fault"
else
  failed "the edge: $(grep -E -m 1 'panicked|ERROR' "$WORK/edge.log")"
fi
finish
