#!/usr/bin/env bash
# A carrier trunk that the edge finds by NAPTR and SRV and registers with, against Kamailio as
# registrar and proxy: MD5, then, after Kamailio was gone for a while, SHA-256; what `warmbridge
# trunk` says in each state; and a call from Kamailio to the registered contact.
. "$(dirname "$0")/lib.sh"
set_up

ACCOUNT=+18005550100
TRUNK_PASSWORD=interop-trunk-password
OPERATOR=interop-operator-token-0123456789
MODULES=$(dirname "$(find /usr/lib /usr/local/lib -name usrloc.so -path '*kamailio*' 2>/dev/null | head -n 1)")

# registrar ALGORITHM: Kamailio with this digest, which keeps nothing on disk and grants 20 s.
registrar() {
  cat >"$WORK/kamailio.cfg" <<CFG
debug=1
log_stderror=yes
children=1
tcp_children=1
disable_tcp=yes
auto_aliases=no
listen=udp:$CARRIER_IP:5066
mpath="$MODULES/"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "auth.so"
loadmodule "xlog.so"
modparam("usrloc", "db_mode", 0)
modparam("registrar", "min_expires", 20)
modparam("registrar", "max_expires", 20)
modparam("auth", "qop", "auth")
modparam("auth", "algorithm", "$1")
request_route {
  if (is_method("OPTIONS") && !has_totag()) { sl_send_reply("200", "OK"); exit; }
  if (is_method("REGISTER")) {
    if (!pv_www_authenticate("\$fd", "$TRUNK_PASSWORD", "0")) { www_challenge("\$fd", "1"); exit; }
    xlog("L_NOTICE", "accepted: \$hdr(Authorization)\n");
    save("location");
    exit;
  }
  if (has_totag()) {
    if (loose_route()) { t_relay(); exit; }
    if (is_method("ACK")) { if (t_check_trans()) { t_relay(); } exit; }
    sl_send_reply("404", "Not here");
    exit;
  }
  if (is_method("CANCEL")) { if (t_check_trans()) { t_relay(); } exit; }
  if (!is_method("INVITE")) { sl_send_reply("405", "Method Not Allowed"); exit; }
  record_route();
  if (!lookup("location")) { sl_send_reply("404", "Not registered"); exit; }
  t_relay();
}
CFG
  mkdir -p "$WORK/run"
  start carrier "kamailio-$1" kamailio -DD -E -m 64 -f "$WORK/kamailio.cfg" -P "$WORK/run/pid" -Y "$WORK/run" -w "$WORK/run"
  KAMAILIO=$STARTED
}

# trunk WHAT…: the command, beside the edge.
trunk() { at edge "${EDGE_RUN_BY[@]}" "$BINARY" trunk --config "$WORK/warmbridge.toml" "$@"; }
# shows STATE TEXT: what `trunk show` prints has this in it; it is shown once.
shows() {
  local what=$1 text=$2
  if wait_for "${3:-15}" sh -c "ip netns exec '$NET-edge' '$BINARY' trunk --config '$WORK/warmbridge.toml' show carrier | grep -qE '$text'"; then
    ok "$what"
    trunk show carrier | sed 's/^/  /'
  else
    failed "$what: $(trunk show carrier 2>&1)"
  fi
}

TRUNK_LINES="register = \"sip:$ACCOUNT@carrier.example\"
password = \"$TRUNK_PASSWORD\"
expires_s = 60
options_s = 10"
MORE_LINES="[[operator]]
id = \"ops\"
role = \"monitor\"
token = \"$OPERATOR\""

# The edge has a name server of its own, and no other.
echo "nameserver 127.0.0.1" >"$WORK/resolv.conf"
# `ip netns exec` gives each command mounts of its own.
# shellcheck disable=SC2016  # expanded by the inner shell
EDGE_RUN_BY=(sh -c 'mount --bind "$0" /etc/resolv.conf && exec "$@"' "$WORK/resolv.conf")
start edge dns python3 "$HERE/dns.py" 127.0.0.1 carrier.example "$CARRIER_IP" 5066
wait_for 5 grep -q ready "$WORK/dns.log" || failed "there is no name server"

start agent voice-agent python3 "$HERE/voice_agent.py" "$AGENT_IP" 8765 "$WORK/agent.wav" "$WORK/agent.jsonl" --talk 3
listens "$AGENT_IP" 8765
registrar MD5
start_edge
shows "the edge registers with MD5" 'registration +registered'
expect "it was found by NAPTR, SRV and an address" sh -c "grep -q '^carrier.example 35' '$WORK/dns.log' && grep -q '^_sip._udp.trunks.carrier.example 33' '$WORK/dns.log' && grep -c '^sbc.carrier.example 1' '$WORK/dns.log'"
expect "the list has it" sh -c "ip netns exec '$NET-edge' '$BINARY' trunk --config '$WORK/warmbridge.toml' list | grep -E 'carrier +registered, [0-9]+ s left +options up +$CARRIER_IP:5066'"
expect "Kamailio accepted MD5" grep -o 'algorithm=MD5' "$WORK/kamailio-MD5.log"
expect "a test of the trunk passes and registers nothing" trunk test carrier

# A wrong password is told in words, by a test that leaves the running edge alone.
sed "s/$TRUNK_PASSWORD/another-password/" "$WORK/warmbridge.toml" >"$WORK/wrong.toml"
at edge "${EDGE_RUN_BY[@]}" "$BINARY" trunk --config "$WORK/wrong.toml" test carrier >"$WORK/wrong.log" 2>&1
expect "a test with a wrong password says what to do" grep -E "does not accept the user name and password" "$WORK/wrong.log"

# The registrar is gone: first OPTIONS and the refresh fail, then the registration is over.
stop "$KAMAILIO"
shows "the loss is seen" 'registration +not registered' 60
shows "and OPTIONS says so" 'options +down' 60
expect "the advice is in the answer" sh -c "ip netns exec '$NET-edge' '$BINARY' trunk --config '$WORK/warmbridge.toml' show carrier | grep -E 'what to do +the server does not answer'"
registrar SHA-256
shows "it comes back by itself" 'registration +registered' 45
expect "Kamailio accepted SHA-256" grep -o 'algorithm=SHA-256' "$WORK/kamailio-SHA-256.log"

# A call from Kamailio to the registered contact.
start carrier rtp python3 "$HERE/rtp_peer.py" "$CARRIER_IP" 40000 450 "$WORK/caller.wav" "$WORK/caller.json"
rtp=$STARTED
start carrier sipp sipp -nostdin -sf "$(carrier_scenario 8000)" -i "$CARRIER_IP" -p 5080 -m 1 -key to "$ACCOUNT" \
  -key rtp_port 40000 -timeout 60 -timeout_error "$CARRIER_IP:5066"
sipp=$STARTED
if wait "$sipp"; then ok "a call through Kamailio ends with its BYE"; else failed "the call through Kamailio: SIPp says $?"; fi
stop "$rtp"
expect "the caller heard the voice agent" python3 "$HERE/ears.py" hears "$WORK/caller.wav" 650 2
expect "the call is in the trail" sh -c "'$BINARY' audit list --json --data '$WORK/data' | grep -c chain"
expect "no password is in the edge's log" sh -c "! grep -nE '$TRUNK_PASSWORD|$OPERATOR' '$WORK/edge.log'"
finish
