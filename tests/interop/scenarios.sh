#!/usr/bin/env bash
# Plays every scenario of the demo: each exits with 0, which it does only when its outcome and
# all its checks hold, and all eight together take less than four minutes.
set -u
started=$SECONDS
for name in happy no-answer declined voicemail caller-hangs-up voice-agent-dies crm-down functions-down; do
  began=$SECONDS
  (cd "$ROOT" && "$BINARY" demo --scenario "$name" --data "$OUT/scenario-$name") >"$OUT/scenario.log" 2>&1
  code=$?
  if [ "$code" -eq 0 ]; then
    echo "ok $name: exit 0 after $((SECONDS - began)) s"
  else
    echo "FAILED $name: exit $code"
    tail -n 60 "$OUT/scenario.log"
  fi
done
took=$((SECONDS - started))
if [ "$took" -le 240 ]; then echo "ok all scenarios: $took s"; else echo "FAILED all scenarios: $took s, at most 240"; fi
