#!/usr/bin/env bash
# Runs the demo twice, first as the README says, and checks both reports; then once more on a
# machine without network and without speech synthesis. Usage: demo.sh DATA (the first store
# stays there).
set -u
data=$1

# play NAME DATA COMMAND…: one whole call within a minute, and the figures in its report.
play() {
  local name=$1 store=$2 report=$OUT/$1.json started=$SECONDS took code
  shift 2
  rm -f "$report"
  (cd "$ROOT" && "$@" demo --report "$report" --data "$store") >"$OUT/demo.log" 2>&1
  code=$?
  if [ "$code" -eq 0 ]; then
    echo "ok $name: exit 0"
  else
    echo "FAILED $name: exit $code"
    tail -n 60 "$OUT/demo.log"
  fi
  took=$((SECONDS - started))
  if [ "$took" -le 60 ]; then echo "ok $name: $took s"; else echo "FAILED $name: $took s, at most 60"; fi
  python3 "$ROOT/tests/interop/check_report.py" "$report" || echo "$name: its report does not hold"
}

play "demo" "$data" cargo run --locked --release --quiet --
play "demo-again" "$OUT/demo-again" "$BINARY"
