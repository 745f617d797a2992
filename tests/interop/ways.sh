#!/usr/bin/env bash
# One whole warm transfer on each of the ways that SIP and RTP may take, all at the same time,
# each in namespaces of its own: TCP; IPv6; a proxy in the middle that stays in the route; a
# softphone behind a NAT; a carrier that holds and resumes during the whisper. Two softphones
# talk, and what each heard is judged by ear.
#
#   ways.sh          all of them
#   ways.sh WAY      one
WAYS="tcp ipv6 proxy nat held"
if [ $# -eq 0 ]; then
  out=$(mktemp -d "${OUT:-/tmp}/ways.XXXXXX")
  trap 'rm -rf "$out"' EXIT
  pids=()
  trap 'kill -TERM "${pids[@]}" 2>/dev/null; wait; exit 130' INT TERM
  for way in $WAYS; do
    bash "$0" "$way" >"$out/$way" 2>&1 &
    pids+=("$!")
  done
  wait
  for way in $WAYS; do sed "s/^\(ok\|FAILED\) /\1 $way: /" "$out/$way"; done
  if grep -hq '^FAILED ' "$out"/*; then exit 1; fi
  exit 0
fi
. "$(dirname "$0")/lib.sh"
set_up
CALLER=+15555550142
DIALLED=+18005550100
PLAIN="audio_codecs=PCMU/8000/1"
caller="<sip:$CALLER@$CARRIER_IP>;regint=0;$PLAIN"
dials="sip:$DIALLED@$EDGE_IP"
human="<sip:dana@$EDGE_IP>;auth_user=dana;auth_pass=$PASSWORD;regint=60;answermode=manual;$PLAIN"

tcp() {
  caller="<sip:$CALLER@$CARRIER_IP;transport=tcp>;regint=0;$PLAIN"
  human="<sip:dana@$EDGE_IP;transport=tcp>;auth_user=dana;auth_pass=$PASSWORD;regint=60;answermode=manual;$PLAIN"
  start_edge
  softphones "$caller" "$dials" "$human"
  expect "both spoke TCP alone" sh -c "! grep -h 'SIP/2.0/UDP' '$WORK'/baresip-*.log && grep -c 'transport=tcp' '$WORK/baresip-carrier.log'"
}

ipv6() {
  local name
  for name in carrier:2 phone:3; do
    ip -n "$NET-edge" address add fd77::1/128 dev "to-${name%:*}" nodad
    ip -n "$NET-${name%:*}" address add "fd77::${name#*:}/128" dev uplink nodad
    ip -n "$NET-edge" route add "fd77::${name#*:}/128" dev "to-${name%:*}"
    ip -n "$NET-${name%:*}" route add fd77::1/128 dev uplink
    # A softphone with both would talk by the old one.
    ip -n "$NET-${name%:*}" address flush dev uplink scope global to 10.77.0.0/16
  done
  SIP_HOST="[fd77::1]" PUBLIC_IP=fd77::1
  TRUNK_LINES='addresses = ["fd77::2/128"]'
  BARESIP_LINES="net_af ipv6"
  start_edge
  softphones "<sip:$CALLER@[fd77::2]>;regint=0;$PLAIN" "sip:$DIALLED@[fd77::1]" \
    "<sip:dana@[fd77::1]>;auth_user=dana;auth_pass=$PASSWORD;regint=60;answermode=manual;$PLAIN" "[fd77::2]" "[fd77::3]"
}

# Kamailio beside the caller: everything of the call goes by it until its end.
proxy() {
  local modules
  modules=$(dirname "$(find /usr/lib /usr/local/lib -name rr.so -path '*kamailio*' 2>/dev/null | head -n 1)")
  mkdir -p "$WORK/run"
  cat >"$WORK/kamailio.cfg" <<CFG
debug=1
log_stderror=yes
children=1
disable_tcp=yes
auto_aliases=no
listen=udp:$CARRIER_IP:5070
mpath="$modules/"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "xlog.so"
request_route {
  if (has_totag()) {
    if (loose_route()) { xlog("L_NOTICE", "routed \$rm\n"); t_relay(); exit; }
    if (is_method("ACK")) { if (t_check_trans()) { t_relay(); } exit; }
    sl_send_reply("404", "Not here");
    exit;
  }
  if (is_method("CANCEL")) { if (t_check_trans()) { t_relay(); } exit; }
  record_route();
  remove_hf("Route");
  t_relay_to_udp("$EDGE_IP", "5060");
}
CFG
  start carrier kamailio kamailio -DD -E -m 64 -f "$WORK/kamailio.cfg" -P "$WORK/run/pid" -Y "$WORK/run" -w "$WORK/run"
  start_edge
  softphones "<sip:$CALLER@$CARRIER_IP>;regint=0;outbound=\"sip:$CARRIER_IP:5070\";$PLAIN" "$dials" "$human"
  expect "the proxy stayed in the route" sh -c "grep -o 'routed BYE' '$WORK/kamailio.log' | head -n 1 && grep -q 'routed INVITE' '$WORK/kamailio.log'"
}

# The phone is at 192.168.77.2, and its packets come from an address that is not its own.
nat() {
  ip netns add "$NET-nat"
  ip -n "$NET-nat" link set dev lo up
  ip -n "$NET-phone" link set dev uplink netns "$NET-nat"
  ip -n "$NET-nat" address add "$PHONE_IP/32" dev uplink
  ip -n "$NET-nat" link set dev uplink up
  ip -n "$NET-nat" route add "$EDGE_IP/32" dev uplink
  ip -n "$NET-nat" link add name inside type veth peer name uplink netns "$NET-phone"
  ip -n "$NET-nat" address add 192.168.77.1/24 dev inside
  ip -n "$NET-nat" link set dev inside up
  ip -n "$NET-phone" address add 192.168.77.2/24 dev uplink
  ip -n "$NET-phone" link set dev uplink up
  ip -n "$NET-phone" route add default via 192.168.77.1
  at nat sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
  at nat nft add table ip nat
  at nat nft 'add chain ip nat out { type nat hook postrouting priority 100 ; }'
  # Every port is another one outside, as behind most routers.
  at nat nft add rule ip nat out oifname uplink ip protocol udp masquerade to :30000-39999 random
  at nat nft add rule ip nat out oifname uplink masquerade
  start_edge
  softphones "$caller" "$dials" "$human" "$CARRIER_IP" 192.168.77.2
}

# The caller's side holds while the human hears the whisper, and comes back.
held() {
  CALLER_DOES=(--hold 19 --resume 22)
  start_edge
  softphones "$caller" "$dials" "$human"
  expect "nothing was sent to a carrier that held" python3 -c "
import json
counts = json.load(open('$WORK/tap.json'))
print(counts)
assert 2500 < counts['longest_gap_ms'] < 4000, counts"
  expect "the carrier held and resumed during the whisper" python3 - "$WORK" <<'PY'
import json
import sys

lines = [json.loads(line) for line in open(f"{sys.argv[1]}/caller.jsonl")]
did = [line["action"][0] for line in lines if line["what"] == "does"]
print(", ".join(did))
assert did == ["dial", "hold", "resume", "hangup"], did
PY
}

case " $WAYS " in *" $1 "*) ;; *) failed "there is no way $1; there are: $WAYS"; exit 1 ;; esac
"$1"
finish
