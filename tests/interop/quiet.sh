#!/usr/bin/env bash
# The demo on a machine that has no network and no speech synthesis. One line a check.
set -u
OUT=${OUT:-$(mktemp -d)}
BINARY=${BINARY:-$PWD/target/release/warmbridge}
export BINARY
# No network but loopback, and an empty PATH: nothing to synthesise with, nothing to call out to.
quiet=$OUT/demo-quiet
if unshare -rn true 2>/dev/null; then
  # shellcheck disable=SC2016  # expanded by the inner shell
  unshare -rn sh -c 'ip link set lo up && PATH=/nowhere exec "$BINARY" demo --data "$0"' "$quiet" >"$OUT/quiet.log" 2>&1
  code=$?
  if [ "$code" -eq 0 ]; then
    echo "ok demo without network and speech synthesis: exit 0"
  else
    echo "FAILED demo without network and speech synthesis: exit $code"
    tail -n 40 "$OUT/quiet.log"
  fi
else
  echo "FAILED demo without network: this machine gives no network namespaces"
fi
