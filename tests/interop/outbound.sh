#!/usr/bin/env bash
# A trunk that registers over one TCP connection and is called back on it (RFC 5626), against
# Kamailio as registrar and proxy: no other connection is ever made, a lost one is seen and made
# anew, and the edge takes its registration back on it when it stops.
. "$(dirname "$0")/lib.sh"
set_up

ACCOUNT=+18005550100
TRUNK_PASSWORD=interop-trunk-password
MODULES=$(dirname "$(find /usr/lib /usr/local/lib -name usrloc.so -path '*kamailio*' 2>/dev/null | head -n 1)")

# registrar NAME: Kamailio on TCP towards the edge and UDP towards the caller. It keeps the
# connection that a registration came over, as a carrier does for whoever is behind a NAT.
registrar() {
  cat >"$WORK/kamailio.cfg" <<CFG
debug=1
log_stderror=yes
children=1
tcp_children=1
auto_aliases=no
listen=udp:$CARRIER_IP:5066
listen=tcp:$CARRIER_IP:5066
tcp_crlf_ping=yes
mpath="$MODULES/"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "nathelper.so"
loadmodule "auth.so"
loadmodule "xlog.so"
modparam("usrloc", "db_mode", 0)
modparam("nathelper|registrar", "received_avp", "\$avp(received)")
modparam("auth", "qop", "auth")
request_route {
  if (is_method("OPTIONS") && !has_totag()) { sl_send_reply("200", "OK"); exit; }
  if (is_method("REGISTER")) {
    if (!pv_www_authenticate("\$fd", "$TRUNK_PASSWORD", "0")) { www_challenge("\$fd", "1"); exit; }
    xlog("L_NOTICE", "accepted over \$pr: \$hdr(Contact) for \$hdr(Expires) s\n");
    fix_nated_register();
    save("location");
    exit;
  }
  if (has_totag()) {
    if (loose_route()) { handle_ruri_alias(); t_relay(); exit; }
    if (is_method("ACK")) { if (t_check_trans()) { t_relay(); } exit; }
    sl_send_reply("404", "Not here");
    exit;
  }
  if (is_method("CANCEL")) { if (t_check_trans()) { t_relay(); } exit; }
  if (!is_method("INVITE")) { sl_send_reply("405", "Method Not Allowed"); exit; }
  record_route();
  if (!lookup("location")) { sl_send_reply("404", "Not registered"); exit; }
  t_on_reply("registered");
  t_relay();
}
onreply_route[registered] { add_contact_alias(); }
CFG
  mkdir -p "$WORK/run"
  start carrier "kamailio-$1" kamailio -DD -E -m 64 -f "$WORK/kamailio.cfg" -P "$WORK/run/pid" -Y "$WORK/run" -w "$WORK/run"
  KAMAILIO=$STARTED
}

# registered TIMES: so often has the edge said that it is.
registered() { [ "$(grep -c 'the trunk is registered' "$WORK/edge.log")" -ge "$1" ]; }
# connections: those between the edge and the carrier, as the edge sees them.
connections() { at edge ss -Htn state established | awk -v carrier="$CARRIER_IP" '$4 ~ "^" carrier ":" { print $3, $4 }'; }

TRUNK_LINES="register = \"sip:$ACCOUNT@carrier.example\"
password = \"$TRUNK_PASSWORD\"
proxies = [\"$CARRIER_IP:5066\"]
transport = \"tcp\"
expires_s = 3600
options_s = 10"

start agent voice-agent python3 "$HERE/voice_agent.py" "$AGENT_IP" 8765 "$WORK/agent.wav" "$WORK/agent.jsonl" --talk 3
listens "$AGENT_IP" 8765
registrar first
wait_for 10 at carrier sh -c "ss -Hltn | grep -q 5066" || failed "Kamailio does not listen"
start_edge
if wait_for 10 registered 1; then ok "the edge registers"; else failed "the edge does not register"; fi
expect "over TCP, by a name of its own" grep -oE 'accepted over tcp: .*urn:uuid:[0-9a-f-]{36}>";reg-id=1' "$WORK/kamailio-first.log"

# A call that comes back on that connection.
start carrier rtp python3 "$HERE/rtp_peer.py" "$CARRIER_IP" 40000 450 "$WORK/caller.wav" "$WORK/caller.json"
rtp=$STARTED
start carrier sipp sipp -nostdin -sf "$(carrier_scenario 8000)" -i "$CARRIER_IP" -p 5080 -m 1 -key to "$ACCOUNT" \
  -key rtp_port 40000 -timeout 60 -timeout_error "$CARRIER_IP:5066"
sipp=$STARTED
sleep 4
connections >"$WORK/connections"
expect "there is one connection, and the edge made it" python3 - "$WORK/connections" "$CARRIER_IP:5066" <<'PY'
import sys

lines = [line.split() for line in open(sys.argv[1])]
print(lines)
assert len(lines) == 1 and lines[0][1] == sys.argv[2] and not lines[0][0].endswith(":5060"), lines
PY
if wait "$sipp"; then ok "a call through it ends with its BYE"; else failed "the call: SIPp says $?"; fi
stop "$rtp"
expect "the caller heard the voice agent" python3 "$HERE/ears.py" hears "$WORK/caller.wav" 650 2

# The carrier's machine starts anew.
stop "$KAMAILIO"
if wait_for 5 grep -q 'the connection that the trunk was registered over is lost' "$WORK/edge.log"; then ok "the loss is seen at once"; else failed "the loss is not seen"; fi
registrar second
if wait_for 50 registered 2; then ok "and it registers again by itself"; else failed "it does not register again"; fi
stop "$EDGE_PID"
expect "an edge that stops takes its registration back over it" grep -oE 'accepted over tcp: .* for 0 s' "$WORK/kamailio-second.log"
expect "no password is in the edge's log" sh -c "! grep -n '$TRUNK_PASSWORD' '$WORK/edge.log'"
finish
