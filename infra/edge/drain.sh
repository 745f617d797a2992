#!/bin/bash
# Watches for the end of this instance. When its group wants it gone, the edge is told to stop,
# which is: no new call, the running ones go on. The group waits for it as long as this program
# says that it is needed, and not longer than the group's own limit.
set -uo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$HERE/imds.sh"
EVERY=${WB_EVERY:-5}            # seconds between two looks
HEARTBEAT=${WB_HEARTBEAT:-300}  # seconds between two signs that more time is needed; the hook allows 900

[ -n "${WB_GROUP:-}" ] || exit 0
until [ "$(imds meta-data/autoscaling/target-lifecycle-state)" = Terminated ]; do
  sleep "$EVERY"
done
instance=$(imds meta-data/instance-id)
lifecycle() {
  aws autoscaling "$1" --auto-scaling-group-name "$WB_GROUP" --lifecycle-hook-name "$WB_HOOK" \
    --instance-id "$instance" "${@:2}" >/dev/null || echo "warmbridge drain: $1 was refused" >&2
}
echo "warmbridge drain: this instance ends; its calls go on" >&2
systemctl stop --no-block warmbridge.service
since=$SECONDS
while [ "$(systemctl is-active warmbridge.service)" != inactive ] && [ "$(systemctl is-active warmbridge.service)" != failed ]; do
  if [ $((SECONDS - since)) -ge "$HEARTBEAT" ]; then
    lifecycle record-lifecycle-action-heartbeat
    since=$SECONDS
  fi
  sleep "$EVERY"
done
lifecycle complete-lifecycle-action --lifecycle-action-result CONTINUE
echo "warmbridge drain: no call is left" >&2
