#!/bin/bash
# Makes an instance the edge of its slot: takes the slot's address and disk, fetches its
# configuration, starts the service. Run by the instance's user data, again and again until it
# is through; every step may be repeated. What it needs is in the environment:
#   WB_EDGE        the edge's id, which names its command queue
#   WB_CONFIG      s3://BUCKET/edge/ID, where warmbridge.toml and what it names lies
#   WB_ALLOCATION  the slot's Elastic IP (allocation id); none where it is empty
#   WB_ADDRESS     the same, as carriers know it; this machine's own where it is empty
#   WB_VOLUME      the slot's disk; none where it is empty
#   WB_GROUP       the Auto Scaling group, for the drain
#   WB_HOOK        its lifecycle hook
#   WB_STACK       the stack, and WB_RESOURCE the group's name in it: told when the edge runs
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$HERE/imds.sh"
ETC=${WB_ETC:-/etc/warmbridge}
DATA=${WB_DATA:-/var/lib/warmbridge}
UNITS=${WB_UNITS:-/etc/systemd/system}
FSTAB=${WB_FSTAB:-/etc/fstab}

say() { echo "warmbridge boot: $*" >&2; }

instance=$(imds meta-data/instance-id)

mkdir -p "$DATA" "$ETC"
cat >"$ETC/slot.env" <<ENV
WB_GROUP=${WB_GROUP:-}
WB_HOOK=${WB_HOOK:-}
AWS_DEFAULT_REGION=${AWS_DEFAULT_REGION:-}
AWS_REGION=${AWS_DEFAULT_REGION:-}
ENV
cp "$HERE/warmbridge.service" "$HERE/warmbridge-drain.service" "$UNITS/"
systemctl daemon-reload
# Before anything that may have to wait: an instance that never becomes the edge has no call
# that anybody should wait for.
systemctl enable --now warmbridge-drain.service

# Whoever has the slot's disk is the slot: a predecessor that drains has it until its last call
# has ended, and only then may the address move, which carries the media of its calls.
if [ -n "${WB_VOLUME:-}" ] && ! mountpoint -q "$DATA"; then
  aws ec2 attach-volume --volume-id "$WB_VOLUME" --instance-id "$instance" --device /dev/sdf >/dev/null ||
    say "the disk is here already, or still with a predecessor"
  disk=${WB_DISKS:-/dev/disk/by-id}/nvme-Amazon_Elastic_Block_Store_${WB_VOLUME/-/}
  for _ in $(seq "${WB_TRIES:-60}"); do
    [ -e "$disk" ] && break
    sleep 1
  done
  [ -e "$disk" ] || { say "the slot's disk does not appear"; exit 1; }
  # What the slot has spooled is on it: it is formatted only when it is known to hold nothing.
  held=0
  blkid -p "$disk" >/dev/null || held=$?
  case $held in
    0) ;;
    2) mkfs.ext4 -q "$disk" ;;
    *) say "what the slot's disk holds cannot be told"; exit 1 ;;
  esac
  mount -o noatime "$disk" "$DATA"
  # After a restart of this machine it is there before the edge, which does not start without it.
  grep -qF "$disk $DATA " "$FSTAB" || echo "$disk $DATA ext4 noatime,nofail 0 2" >>"$FSTAB"
fi

if [ -n "${WB_ALLOCATION:-}" ]; then
  aws ec2 associate-address --allocation-id "$WB_ALLOCATION" --instance-id "$instance" --allow-reassociation >/dev/null
  say "the slot's address is taken"
fi
address=${WB_ADDRESS:-$(imds meta-data/local-ipv4)}

aws s3 sync --only-show-errors --delete --exclude slot.env "$WB_CONFIG" "$ETC"
[ -f "$ETC/warmbridge.toml" ] || { say "no warmbridge.toml in $WB_CONFIG"; exit 1; }
sed -i "s/@PUBLIC_IP@/$address/g" "$ETC/warmbridge.toml"
grep -q "^id *= *\"$WB_EDGE\"" "$ETC/warmbridge.toml" || { say "the configuration is not that of $WB_EDGE"; exit 1; }

id warmbridge >/dev/null 2>&1 || useradd --system --home-dir "$DATA" --shell /usr/sbin/nologin warmbridge
chown -R warmbridge: "$DATA" "$ETC"
chmod -R go= "$ETC"
systemctl enable --now warmbridge.service
if [ -n "${WB_STACK:-}" ]; then
  aws cloudformation signal-resource --stack-name "$WB_STACK" --logical-resource-id "$WB_RESOURCE" \
    --unique-id "$instance" --status SUCCESS || say "nobody waits for this instance"
fi
say "$WB_EDGE runs at $address"
