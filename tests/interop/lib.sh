#!/usr/bin/env bash
# A small telephone network in namespaces of its own: an edge with one address, and around it
# a carrier, a phone and a voice agent, each of which reaches the edge and nothing else.
# Sourced by the scripts beside it. Everything it starts is ended by its process id, and the
# namespaces go with the script, however that ends.
set -u
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=${ROOT:-$(cd "$HERE/../.." && pwd)}
BINARY=${BINARY:-$ROOT/target/release/warmbridge}
PATH=$PATH:/usr/sbin:/sbin
export PYTHONPATH=$HERE PYTHONDONTWRITEBYTECODE=1

# Without root the same works inside a user namespace, where this user is root.
if [ "$(id -u)" -ne 0 ]; then
  if [ -z "${WARMBRIDGE_UNSHARED:-}" ] && unshare -rnm true 2>/dev/null; then
    WARMBRIDGE_UNSHARED=1 exec unshare -rnm bash "$0" "$@"
  fi
  echo "FAILED $(basename "$0"): needs root, or user namespaces"
  exit 1
fi
if [ -n "${WARMBRIDGE_UNSHARED:-}" ]; then mount -t tmpfs tmpfs /run; fi

EDGE_IP=10.77.0.1
CARRIER_IP=10.77.0.2
PHONE_IP=10.77.0.3
AGENT_IP=10.77.0.4
NET=wb$$
WORK=$(mktemp -d "${OUT:-/tmp}/interop.XXXXXX")
PIDS=()
FAILURES=0

ok() { echo "ok $*"; }
failed() {
  FAILURES=$((FAILURES + 1))
  echo "FAILED $*"
}
# expect WHAT COMMAND…: one check.
expect() {
  local what=$1 said
  shift
  if said=$("$@" 2>&1); then ok "$what${said:+: $(head -n 1 <<<"$said")}"; else failed "$what: $said"; fi
}

# ended PID: waits a little for a process to go by itself after it was told to.
ended() {
  local i
  for i in $(seq 40); do
    kill -0 "$1" 2>/dev/null || return 0
    sleep 0.1
  done
  return 1
}

tear_down() {
  local pid name
  trap - EXIT
  for pid in "${PIDS[@]}"; do kill -TERM "$pid" 2>/dev/null; done
  for pid in "${PIDS[@]}"; do ended "$pid" || kill -KILL "$pid" 2>/dev/null; done
  for name in edge carrier phone agent weather nat; do ip netns del "$NET-$name" 2>/dev/null; done
  if [ "$FAILURES" -gt 0 ] && [ -n "${KEEP:-}" ]; then echo "kept: $WORK"; else rm -rf "$WORK"; fi
}
trap tear_down EXIT
trap 'exit 130' INT TERM

# Point to point links: the edge has one address on all of them and a route to each peer.
set_up() {
  local name address
  mkdir -p /run/netns
  ip netns add "$NET-edge" || { failed "network namespaces cannot be made here"; exit 1; }
  ip -n "$NET-edge" link set dev lo up
  for name in carrier phone agent; do
    case $name in
      carrier) address=$CARRIER_IP ;;
      phone) address=$PHONE_IP ;;
      agent) address=$AGENT_IP ;;
    esac
    ip netns add "$NET-$name"
    ip -n "$NET-edge" link add name "to-$name" type veth peer name uplink netns "$NET-$name"
    ip -n "$NET-edge" address add "$EDGE_IP/32" dev "to-$name"
    ip -n "$NET-edge" link set dev "to-$name" up
    ip -n "$NET-edge" route add "$address/32" dev "to-$name"
    ip -n "$NET-$name" link set dev lo up
    ip -n "$NET-$name" address add "$address/32" dev uplink
    ip -n "$NET-$name" link set dev uplink up
    ip -n "$NET-$name" route add "$EDGE_IP/32" dev uplink
  done
}

# at PLACE COMMAND…: runs it there.
at() {
  local place=$1
  shift
  ip netns exec "$NET-$place" "$@"
}

# start PLACE NAME COMMAND…: runs it there in the background; its output is WORK/NAME.log and
# its process id is in $STARTED.
start() {
  local place=$1 name=$2
  shift 2
  ip netns exec "$NET-$place" "$@" >"$WORK/$name.log" 2>&1 </dev/null &
  STARTED=$!
  PIDS+=("$STARTED")
}

# stop PID: ends one process and waits for it, so that what it writes at its end is there.
stop() {
  kill -TERM "$1" 2>/dev/null
  ended "$1" || kill -KILL "$1" 2>/dev/null
}

# wait_for SECONDS COMMAND…: until it succeeds.
wait_for() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || return 1
    sleep 0.2
  done
}

# listens IP PORT: until somebody takes a connection there, seen from the edge.
listens() {
  wait_for 15 at edge python3 -c "import socket; socket.create_connection(('$1', $2), 1)" || failed "nobody listens at $1:$2"
}

show_logs() {
  local log
  for log in "$WORK"/*.log; do
    echo "--- $(basename "$log")"
    # A softphone draws its clock in one endless line.
    tail -n "${1:-25}" "$log" | cut -c -400
  done
}

# tone HZ SECONDS FILE
tone() { python3 "$HERE/ears.py" tone "$1" "$2" "$3"; }

# carrier_scenario QUIET_MS: the carrier's scenario with this quiet time, as a file; SIPp takes
# no variable there.
carrier_scenario() {
  sed "s/timeout=\"25000\"/timeout=\"$1\"/" "$HERE/sipp/carrier.xml" >"$WORK/carrier.xml"
  echo "$WORK/carrier.xml"
}

# The edge's configuration: one carrier, one voice agent, one nurse with a softphone, one CRM.
PASSWORD=interop-softphone-password
PAGE_TOKEN=interop-desktop-token-0123456789
CRM_SECRET=whsec_aW50ZXJvcC1zaWduaW5nLXNlY3JldC0wMTIzNDU2Nzg5
# Where the edge speaks SIP and RTP: the same as HTTP, where a script wants nothing else.
SIP_HOST=$EDGE_IP
PUBLIC_IP=$EDGE_IP
# What the trunk is known by.
TRUNK_LINES="addresses = [\"$CARRIER_IP/32\"]"
# Tables that a script adds at the end, and keys of the edge's own.
MORE_LINES=
EDGE_LINES=
# The softphone, baresip 1.0, knows MD5 digests alone.
PHONE_LINES="user = \"dana\"
password = \"$PASSWORD\"
allow_md5 = true"
# The last of the ports for audio.
RTP_LAST=20198
# Who is in the queue.
QUEUE_AGENTS='"agent_dana"'
# A command that the edge is run by, where a script wants one.
EDGE_RUN_BY=()
write_config() {
  cp "$ROOT/handoff/policies/default.toml" "$WORK/policy.toml"
  cat >"$WORK/warmbridge.toml" <<TOML
[edge]
id = "edge_interop"
tenant = "t_interop"
sip_udp = "$SIP_HOST:5060"
sip_tcp = "$SIP_HOST:5060"
http = "$EDGE_IP:8080"
public_ip = "$PUBLIC_IP"
public_url = "https://handoff.example"
rtp_ports = [20000, $RTP_LAST]
data_dir = "$WORK/data"
$EDGE_LINES

[[trunk]]
name = "carrier"
$TRUNK_LINES

[voice_agent]
url = "ws://$AGENT_IP:8765/media"

[[agent]]
id = "agent_dana"
name = "Dana"
$PHONE_LINES
desktop_token = "$PAGE_TOKEN"
ring_timeout_s = 20

[[queue]]
id = "nurse_line"
label = "Nurse line"
spoken = "dest.nurse"
agents = [$QUEUE_AGENTS]
fallback = ["voice_agent"]

[policy]
file = "policy.toml"

[[webhook]]
id = "crm"
url = "http://$AGENT_IP:8766/warmbridge"
secret = "$CRM_SECRET"
mode = "full"
allow_private = ["$AGENT_IP/32"]
grants = ["pii", "phi"]
$MORE_LINES
TOML
}

# start_edge: checks the configuration, serves it, and waits until the page answers.
start_edge() {
  write_config
  expect "the edge's configuration is in order" at edge "${EDGE_RUN_BY[@]}" "$BINARY" check --config "$WORK/warmbridge.toml"
  start edge edge "${EDGE_RUN_BY[@]}" env WARMBRIDGE_LOG="${WARMBRIDGE_LOG:-info}" "$BINARY" serve --config "$WORK/warmbridge.toml"
  EDGE_PID=$STARTED
  listens "$EDGE_IP" 8080
  if [ "$FAILURES" -gt 0 ]; then
    show_logs
    exit 1
  fi
}

# Further lines of a softphone's configuration.
BARESIP_LINES=
# start_baresip PLACE DIR LISTEN ACCOUNT WAV: a softphone under control of port 4444.
start_baresip() {
  local place=$1 dir=$2 listen=$3 account=$4 wav=$5
  mkdir -p "$dir"
  cat >"$dir/config" <<CONF
poll_method epoll
sip_listen $listen:${BARESIP_PORT:-5060}
audio_player aubridge,nil
audio_source aufile,$wav
audio_alert aubridge,alert
auplay_srate 8000
ausrc_srate 8000
ausrc_channels 1
auplay_channels 1
net_interface uplink
rtp_ports 12000-12098
call_local_timeout 60
ctrl_tcp_listen 127.0.0.1:4444
snd_path $dir
module_path /usr/lib/baresip/modules
module g711.so
module aufile.so
module aubridge.so
module sndfile.so
module_tmp uuid.so
module_tmp account.so
module_app menu.so
module_app ctrl_tcp.so
$BARESIP_LINES
CONF
  echo "$account" >"$dir/accounts"
  : >"$dir/contacts"
  start "$place" "baresip-$place" baresip -f "$dir"
  BARESIP_PID=$STARTED
}

# certificates: an authority, ca.pem, and a certificate of it for the edge's address.
certificates() {
  at edge sh -c "cd '$WORK' && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=interop-ca \\
    -keyout ca.key -out ca.pem" >"$WORK/openssl.log" 2>&1 || failed "no authority could be made"
  certificate edge "IP:$EDGE_IP"
}

# certificate NAME SAN: a certificate of the authority for this name or address.
certificate() {
  at edge sh -c "cd '$WORK' && openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=$1' -keyout '$1.key' -out '$1.csr' &&
    printf 'subjectAltName=%s' '$2' >san && openssl x509 -req -in '$1.csr' -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san -out '$1.pem'" \
    >>"$WORK/openssl.log" 2>&1 || failed "no certificate could be made for $1"
}

# start_human ACCEPT_AFTER [RING]: the human agent behind a fixed address: a page that takes the
# call so many seconds after it is shown, and a phone that is answered after so many seconds of
# ringing and speaks 1000 Hz.
start_human() {
  start phone desktop python3 "$HERE/desktop.py" "$EDGE_IP" 8080 "$PAGE_TOKEN" "$WORK/desktop.jsonl" "$1"
  start phone human-rtp python3 "$HERE/rtp_peer.py" "$PHONE_IP" 41000 1000 "$WORK/human.wav" "$WORK/human.json" --number
  HUMAN_RTP=$STARTED
  start phone human python3 "$HERE/phone.py" answers "$PHONE_IP" "$EDGE_IP:5060" 41000 "$WORK/human.jsonl" "${2:-1}"
  wait_for 10 grep -q connected "$WORK/desktop.jsonl" || failed "the desktop does not connect"
  wait_for 10 grep -q ready "$WORK/human.jsonl" || failed "the human's phone does not start"
}

# start_softphone ACCOUNT LISTENS: the human agent at a baresip, who presses 1 after the whisper.
start_softphone() {
  start agent desktop python3 "$HERE/desktop.py" "$EDGE_IP" 8080 "$PAGE_TOKEN" "$WORK/desktop.jsonl"
  tone 1000 120 "$WORK/tone1000.wav"
  start_baresip phone "$WORK/phone" "$2" "$1" "$WORK/tone1000.wav"
  HUMAN_PIDS=("$BARESIP_PID")
  start phone person python3 "$HERE/softphone.py" 4444 "$WORK/person.jsonl" --ring "$RING" --listen 8 --press 1
  if wait_for 15 grep -q '200 OK' "$WORK/baresip-phone.log"; then ok "the human's softphone registers"; else failed "the human's softphone does not register"; fi
}

# start_browser URL CA_FILE: the human agent at a phone as a browser has one, who takes the call on
# the page 8 s after the answer.
start_browser() {
  start agent desktop python3 "$HERE/desktop.py" "$EDGE_IP" 8080 "$PAGE_TOKEN" "$WORK/desktop.jsonl" "$((RING + 8))"
  start phone human-rtp python3 "$HERE/rtp_peer.py" "$PHONE_IP" 41000 1000 "$WORK/human.wav" "$WORK/human.json"
  HUMAN_PIDS=("$STARTED")
  start phone browser python3 "$HERE/ws_phone.py" "$1" "$2" "$PHONE_IP" dana "$PASSWORD" 41000 "$WORK/browser.jsonl" "$RING" 60
  HUMAN_PIDS+=("$STARTED")
  if wait_for 10 grep -q registered "$WORK/browser.jsonl"; then ok "the human's browser registers"; else failed "the human's browser does not register"; fi
}

# softphones CALLER DIALS HUMAN [CALLER_LISTENS HUMAN_LISTENS]: one whole warm transfer between two
# softphones with these accounts: the caller says 450 Hz and dials DIALS, the human 1000 Hz, takes
# RING seconds to answer (after 9 the caller is on hold), hears the whisper for 8 s and presses 1.
# A human whose account is a URL of a WebSocket is at a browser, which trusts CA_FILE.
# Further words for the caller's program are in CALLER_DOES. What both heard is judged by ear: of
# the caller on its wire, because baresip keeps nothing of what it hears after a hold, or at the
# softphone where CALLER_HEARD says so.
RING=9
CA_FILE=-
CALLER_DOES=()
CALLER_HEARD=wire
softphones() {
  local caller=$1 dials=$2 human=$3 agent tap at_caller=$WORK/tap.wav at_human=$WORK/human.wav
  start edge tap python3 "$HERE/wiretap.py" to-carrier "$WORK/tap.wav" "$WORK/tap.json" "$PUBLIC_IP"
  tap=$STARTED
  start agent voice-agent python3 "$HERE/voice_agent.py" "$AGENT_IP" 8765 "$WORK/agent.wav" "$WORK/agent.jsonl" --talk 3 --transfer
  agent=$STARTED
  start agent crm python3 "$HERE/crm.py" "$AGENT_IP" 8766 "$CRM_SECRET" "$WORK/crm.jsonl"
  listens "$AGENT_IP" 8765
  listens "$AGENT_IP" 8766
  case $human in
    ws*) start_browser "$human" "$CA_FILE" ;;
    *) start_softphone "$human" "${5:-$PHONE_IP}" ;;
  esac
  tone 450 120 "$WORK/tone450.wav"
  start_baresip carrier "$WORK/carrier" "${4:-$CARRIER_IP}" "$caller" "$WORK/tone450.wav"
  caller=$BARESIP_PID
  start carrier dialler python3 "$HERE/softphone.py" 4444 "$WORK/caller.jsonl" --dial "$dials" --talk 40 "${CALLER_DOES[@]}"
  if wait_for 60 grep -q CALL_CLOSED "$WORK/caller.jsonl"; then ok "the caller hangs up"; else failed "the call does not end"; fi
  expect "the record tells of a completed transfer" recorded
  stop "$caller"
  for human in "${HUMAN_PIDS[@]}"; do stop "$human"; done
  stop "$agent"
  stop "$tap"
  [ "$CALLER_HEARD" = wire ] || at_caller=$(heard_by carrier)
  [ -e "$at_human" ] || at_human=$(heard_by phone)
  expect "the caller heard the voice agent" python3 "$HERE/ears.py" hears "$at_caller" 650 2
  expect "the caller heard the human" python3 "$HERE/ears.py" hears "$at_caller" 1000 3
  expect "the human heard the caller" python3 "$HERE/ears.py" hears "$at_human" 450 3
  expect "the human never heard the voice agent" python3 "$HERE/ears.py" lacks "$at_human" 650
  expect "the voice agent heard the caller" python3 "$HERE/ears.py" hears "$WORK/agent.wav" 450 2
}

# heard_by PLACE: what the softphone there heard; it begins a file anew after each hold.
heard_by() {
  python3 - "$WORK/$1" <<'PY'
import pathlib
import sys

import ears

parts = sorted(pathlib.Path(sys.argv[1]).glob("*-dec.wav"))
whole = f"{sys.argv[1]}/heard.wav"
ears.write(whole, [sample for part in parts for sample in ears.read(str(part))])
print(whole)
PY
}

# main_chain: the call itself in a list of chains; what came late has a chain beside it.
main_chain() { python3 -c "import json, sys; print(next(c for c in (json.loads(line)['chain'] for line in sys.stdin) if '#' not in c))"; }

# recorded: the one call of the store is closed, whole, and a completed transfer.
recorded() {
  local data=$WORK/data call
  wait_for 30 sh -c "'$BINARY' audit list --json --data '$data' | grep -q '\"state\":\"closed\"'" || { echo "the chain does not close"; return 1; }
  call=$("$BINARY" audit list --json --data "$data" | main_chain) || return 1
  "$BINARY" audit verify "$call" --data "$data" >"$WORK/verify.log" 2>&1 || { cat "$WORK/verify.log"; return 1; }
  "$BINARY" audit show "$call" --json --data "$data" >"$WORK/records.log" 2>&1
  python3 "$HERE/records.py" "$WORK/records.log"
}

finish() {
  [ "$FAILURES" -eq 0 ] && exit 0
  show_logs
  exit 1
}
