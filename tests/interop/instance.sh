#!/usr/bin/env bash
# The edge's instance without an instance: boot.sh and drain.sh of infra/edge against a metadata
# service that asks for its token, and programs that write down how they were called; and the
# edge itself before a service manager.
set -u
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=${ROOT:-$(cd "$HERE/../.." && pwd)}
BINARY=${BINARY:-$ROOT/target/release/warmbridge}
WORK=$(mktemp -d "${OUT:-/tmp}/instance.XXXXXX")
FAILURES=0
trap 'kill "$SERVICE" 2>/dev/null; rm -rf "$WORK"' EXIT
check() {
  local what=$1
  shift
  if "$@" >"$WORK/said" 2>&1; then echo "ok instance: $what"; else
    FAILURES=$((FAILURES + 1))
    echo "FAILED instance: $what"
    tail -n 15 "$WORK/said"
  fi
}

# The metadata service: version 2 alone. The state is in a file.
echo InService >"$WORK/state"
python3 - "$WORK" <<'PY' &
import http.server, sys
work = sys.argv[1]
class Metadata(http.server.BaseHTTPRequestHandler):
    def answer(self, text):
        self.send_response(200 if text else 401); self.end_headers(); self.wfile.write(text.encode())
    def do_PUT(self):
        self.answer("token" if self.headers.get("X-aws-ec2-metadata-token-ttl-seconds") else "")
    def do_GET(self):
        if self.path == "/edge.zip":
            self.send_response(200); self.end_headers(); self.wfile.write(open(work + "/edge.zip", "rb").read()); return
        known = {"instance-id": "i-0123", "local-ipv4": "10.66.1.7",
                 "target-lifecycle-state": open(work + "/state").read().strip()}
        self.answer(known.get(self.path.rsplit("/", 1)[1], "") if self.headers.get("X-aws-ec2-metadata-token") == "token" else "")
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Metadata)
open(work + "/port.new", "w").write(str(server.server_port))
import os; os.rename(work + "/port.new", work + "/port")
server.serve_forever()
PY
SERVICE=$!
for _ in $(seq 100); do [ -f "$WORK/port" ] && break; sleep 0.05; done
export WB_IMDS=http://127.0.0.1:$(cat "$WORK/port") no_proxy='*'

# What an instance has and this machine has not, or must not run.
mkdir -p "$WORK/bin" "$WORK/disks" "$WORK/units" "$WORK/bucket"
for program in systemctl mount mkfs.ext4 useradd chown mountpoint blkid aws; do
  cat >"$WORK/bin/$program" <<'FAKE'
#!/bin/bash
name=$(basename "$0")
echo "$name $*" >>"$WORK/calls"
case "$name $1 ${2:-}" in
  mountpoint*) exit 1 ;;
  blkid*) exit "$(cat "$WORK/blkid" 2>/dev/null || echo 2)" ;;
  "systemctl is-active"*) if [ -f "$WORK/calls-left" ]; then echo deactivating; else echo inactive; fi ;;
  "aws s3 sync") cp -r "$WORK/bucket/." "$WB_ETC/" ;;
  "aws lambda get-layer-version-by-arn") [ -f "$WORK/layer" ] && cat "$WORK/layer" ;;
  "aws ec2 attach-volume") [ -f "$WORK/taken" ] && exit 255; touch "$WORK/disks/nvme-Amazon_Elastic_Block_Store_vol0abc" ;;
esac
exit 0
FAKE
  chmod +x "$WORK/bin/$program"
done
export WORK PATH=$WORK/bin:$PATH
export WB_EDGE=edge-1 WB_CONFIG=s3://media/edge/edge-1 WB_ALLOCATION=eipalloc-1 WB_ADDRESS=198.51.100.7
export WB_VOLUME=vol-0abc WB_GROUP=stack-edge-1 WB_HOOK=drain WB_STACK=stack WB_RESOURCE=Edge1Group AWS_DEFAULT_REGION=us-east-1
export WB_FSTAB=$WORK/fstab WB_ETC=$WORK/etc WB_DATA=$WORK/data WB_UNITS=$WORK/units WB_DISKS=$WORK/disks WB_TRIES=1 WB_EVERY=0.1 WB_HEARTBEAT=0
boot() { bash "$ROOT/infra/edge/boot.sh"; }
not() { ! "$@"; }
called() { grep -q -- "$1" "$WORK/calls"; }
before() { [ "$(grep -n -m 1 -- "$1" "$WORK/calls" | cut -d: -f1)" -lt "$(grep -n -m 1 -- "$2" "$WORK/calls" | cut -d: -f1)" ]; }
clean() { rm -rf "$WORK/calls" "$WORK/etc" "$WORK/data" "$WORK"/disks/* "$WORK/fstab"; touch "$WORK/fstab"; }

clean; touch "$WORK/taken"
check "while a predecessor has the slot's disk, nothing is taken from it" not boot
check "its address stays with its calls" not called associate-address
check "but an instance that is to go already is let go" called "systemctl enable --now warmbridge-drain.service"
rm "$WORK/taken"; clean
check "without a configuration nothing starts" not boot
check "and no edge is enabled" not called "systemctl enable --now warmbridge.service"
printf '[edge]\nid = "edge-2"\npublic_ip = "@PUBLIC_IP@"\n' >"$WORK/bucket/warmbridge.toml"; clean
check "the configuration of another edge is refused" not boot
printf '[edge]\nid = "edge-1"\npublic_ip = "@PUBLIC_IP@"\n' >"$WORK/bucket/warmbridge.toml"; clean
check "an instance becomes the edge of its slot" boot
check "the disk first, then the address" before attach-volume associate-address
check "a disk that holds nothing is formatted" called mkfs.ext4
check "carriers see the slot's address" grep -q 'public_ip = "198.51.100.7"' "$WORK/etc/warmbridge.toml"
check "the service starts, and the stack is told" before "enable --now warmbridge.service" signal-resource
check "after a restart the disk is there before the edge" grep -q "vol0abc $WORK/data ext4 .*nofail" "$WORK/fstab"
check "which does not start without it" grep -q "^RequiresMountsFor=/var/lib/warmbridge$" "$WORK/units/warmbridge.service"
check "to become it again changes nothing" sh -c "bash '$ROOT/infra/edge/boot.sh' && [ \"\$(wc -l <'$WORK/fstab')\" = 1 ]"
clean; echo 0 >"$WORK/blkid"
check "a disk with a spool is mounted" boot
check "and not formatted" not called mkfs.ext4
clean; echo 8 >"$WORK/blkid"
check "a disk that cannot be read is refused" not boot
check "and not formatted either" not called mkfs.ext4
rm "$WORK/blkid"
check "both units are there" test -f "$WORK/units/warmbridge.service" -a -f "$WORK/units/warmbridge-drain.service"
if command -v systemd-analyze >/dev/null; then
  mkdir -p "$WORK/root/opt/warmbridge"
  check "systemd accepts the unit" sh -c "systemd-analyze verify '$WORK/units/warmbridge.service' 2>&1 | grep -v 'not executable\|No such file' | grep -q . && exit 1 || exit 0"
fi

# What the template gives an instance to begin with: the layer, checked, then boot.sh.
python3 - "$WORK/edge.zip" "$WORK/booted" <<'PY'
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w") as layer:
    layer.writestr("warmbridge", "program")
    layer.writestr("boot.sh", f"#!/bin/bash\ntouch {sys.argv[2]}\n")
PY
digest() { openssl dgst -sha256 -binary "$WORK/edge.zip" | base64; }
for slot in 1 2; do
  awk -v slot="Edge${slot}Template:" '$1 == slot { on = 1 } on && /#!\/bin\/bash/ { text = 1 } text && /- Allocation:/ { exit } text' \
    "$ROOT/infra/template.yaml" | sed "s/^ \{14\}//; s#/run/#$WORK/#g; s#/opt/warmbridge#$WORK/opt#g; s/sleep [0-9]*/sleep 0.1/g; s/\\\${\([A-Za-z:]*\)}/a-value/g" >"$WORK/user-data-$slot"
  check "slot $slot: what an instance begins with names its slot" grep -q "WB_EDGE=edge-$slot .*/edge/edge-$slot" "$WORK/user-data-$slot"
  rm -rf "$WORK/layer" "$WORK/booted" "$WORK/opt"
  timeout 20 bash "$WORK/user-data-$slot" >"$WORK/user-data.log" 2>&1 &
  BEGUN=$!
  sleep 0.5
  check "slot $slot: while its role is unknown it tries again" kill -0 "$BEGUN"
  printf '%s\t%s\n' "$WB_IMDS/edge.zip" "AAAA$(digest | cut -c5-)" >"$WORK/layer"
  sleep 0.5
  check "slot $slot: a program of another digest is not unpacked" not test -e "$WORK/opt/boot.sh"
  printf '%s\t%s\n' "$WB_IMDS/edge.zip" "$(digest)" >"$WORK/layer.new" && mv "$WORK/layer.new" "$WORK/layer"
  wait "$BEGUN"
  check "slot $slot: the right one boots" test -f "$WORK/booted" -a -x "$WORK/opt/warmbridge"
done

: >"$WORK/calls"; touch "$WORK/calls-left"
bash "$ROOT/infra/edge/drain.sh" >"$WORK/drain.log" 2>&1 &
DRAIN=$!
sleep 0.5
check "an instance in service is left alone" not called systemctl
echo Terminated >"$WORK/state"
for _ in $(seq 50); do called record-lifecycle-action-heartbeat && break; sleep 0.1; done
check "an instance that is to go stops taking calls" called "stop --no-block warmbridge.service"
check "while calls are left it asks for more time" called "record-lifecycle-action-heartbeat .*--instance-id i-0123"
check "and is not let go" not called complete-lifecycle-action
rm "$WORK/calls-left"
wait "$DRAIN"
check "when none is left it lets the instance go" called "complete-lifecycle-action .*--lifecycle-action-result CONTINUE"

# The program itself: ready, alive, stopping.
cat >"$WORK/manager.py" <<'PY'
import os, signal, socket, subprocess, sys
binary, work = sys.argv[1:]
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.bind(work + "/notify")
manager.settimeout(10)
config = work + "/edge.toml"
open(config, "w").write(f'''
[edge]
id = "edge-1"
tenant = "t_test"
sip_udp = "127.0.0.1:0"
http = "127.0.0.1:0"
public_ip = "127.0.0.1"
public_url = "https://edge.example"
data_dir = "{work}/edge-data"
drain_max_s = 1200
allow_loopback = true
[voice_agent]
url = "ws://127.0.0.1:9/media"
[[trunk]]
name = "carrier"
addresses = ["127.0.0.2/32"]
[[agent]]
id = "agent_ana"
name = "Ana"
user = "ana"
password = "a-long-password"
[[queue]]
id = "queue_nurse"
label = "Nurse"
spoken = "dest.nurse"
agents = ["agent_ana"]
[policy]
file = "policy.toml"
''')
env = dict(os.environ, NOTIFY_SOCKET=work + "/notify", WATCHDOG_USEC="1000000")
edge = subprocess.Popen([binary, "serve", "--config", config], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
try:
    assert manager.recv(512) == b"READY=1"
    assert manager.recv(512) == b"WATCHDOG=1" and manager.recv(512) == b"WATCHDOG=1"
    edge.send_signal(signal.SIGTERM)
    told = []
    while not told or not told[-1].startswith(b"WATCHDOG_USEC"):
        told.append(manager.recv(512))
    assert any(each == b"STOPPING=1\nEXTEND_TIMEOUT_USEC=1205000000" for each in told), told
    assert edge.wait(timeout=20) == 0
except BaseException:
    edge.kill()
    print(edge.stdout.read().decode()[-2000:])
    raise
PY
cp "$ROOT/handoff/policies/default.toml" "$WORK/policy.toml"
check "a service manager hears ready, alive and stopping" python3 "$WORK/manager.py" "$BINARY" "$WORK"
[ "$FAILURES" -eq 0 ]
