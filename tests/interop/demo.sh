#!/usr/bin/env bash
# Runs the demo as the README says, checks its report, then once more on a machine without
# network and without speech synthesis. Usage: demo.sh DATA (the store stays there).
set -u
data=$1
report=$OUT/report.json
started=$SECONDS
if (cd "$ROOT" && cargo run --locked --release --quiet -- demo --report "$report" --data "$data") >"$OUT/demo.log" 2>&1; then
  echo "ok demo: exit 0"
else
  echo "FAILED demo: exit $?"
  tail -n 60 "$OUT/demo.log"
fi
took=$((SECONDS - started))
if [ "$took" -le 60 ]; then echo "ok demo: $took s"; else echo "FAILED demo: $took s, at most 60"; fi
python3 "$ROOT/tests/interop/check_report.py" "$report"

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
