#!/usr/bin/env bash
# Takes the recordings of a demo's call out of its store: every leg, as recorded; and a changed
# piece, and a destroyed key, must show. Usage: recording.sh DATA
set -u
data=$1
call=$(sqlite3 "file:$data/warmbridge.db?mode=ro" "SELECT call FROM audit_keys LIMIT 1" 2>/dev/null)
copy=$OUT/recorded

# export NAME CODE WORDS: an export from the copy ends with the code and says the words.
export_of() {
  local name=$1 wanted=$2 words=$3 said code
  said=$("$BINARY" recording export "$call" --data "$copy" --out "$copy/wav" 2>&1)
  code=$?
  if [ "$code" -eq "$wanted" ] && grep -qE "$words" <<<"$said"; then
    echo "ok recording: $name: $(grep -m 1 -E "$words" <<<"$said")"
  else
    echo "FAILED recording: $name: exit $code, wanted $wanted and /$words/:"
    head -n 10 <<<"$said"
  fi
}

rm -rf "$copy"
cp -r "$data" "$copy" || exit 1
for role in caller voice_agent human_agent; do
  export_of "the leg of the $role" 0 "$role .* as recorded"
done
if grep -rlaE 'RIFF' "$copy/recordings" >/dev/null; then
  echo "FAILED recording: audio in the clear below recordings"
else
  echo "ok recording: nothing in the clear below recordings"
fi
last=$(ls "$copy/recordings/$call"/leg-0-*.sealed | tail -n 1)
rm "$last"
export_of "a piece taken away" 1 "caller .*NOT as recorded"
sqlite3 "$copy/warmbridge.db" "UPDATE audit_keys SET wrapped = NULL, state = 'destroyed' WHERE call = '$call'"
export_of "a destroyed key" 1 "destroyed"

# The call as a vCon, and the trail as rows: what may leave leaves, and nothing else.
check() {
  local what=$1
  shift
  if "$@" >"$OUT/said" 2>&1; then echo "ok recording: $what"; else echo "FAILED recording: $what"; head -n 10 "$OUT/said"; fi
}
rm -rf "$copy"
cp -r "$data" "$copy" || exit 1
"$BINARY" audit export "$call" --vcon --data "$copy" >"$OUT/whole.json"
"$BINARY" audit export "$call" --vcon --redact pii --data "$copy" >"$OUT/redacted.json"
"$BINARY" audit feed --data "$copy" >"$OUT/feed.jsonl"
middle=$(sed -n 20p "$OUT/feed.jsonl" | grep -o '"cursor":[0-9]*' | grep -o '[0-9]*')
"$BINARY" audit feed --data "$copy" --from "$middle" >"$OUT/later.jsonl"
vcon() {
  python3 - "$OUT/whole.json" "$OUT/redacted.json" <<'PY'
import json, sys
whole, redacted = (json.load(open(path)) for path in sys.argv[1:])
kinds = [dialog["type"] for dialog in whole["dialog"]]
assert kinds.count("transfer") == 1 and "recording" in kinds, kinds
transfer = next(dialog for dialog in whole["dialog"] if dialog["type"] == "transfer")
assert {"transferee", "transferor", "transfer_target", "original", "target_dialog"} <= set(transfer), transfer
assert "lisinopril" in json.dumps(whole), "the transcript"
assert "lisinopril" not in json.dumps(redacted) and "Ortiz" not in json.dumps(redacted), "redacted"
assert [len(whole[part]) for part in ("parties", "dialog")] == [len(redacted[part]) for part in ("parties", "dialog")]
PY
}
# Made, and judged, by OpenSSL, where there is one.
signed() {
  openssl genpkey -algorithm ed25519 -out "$OUT/signer.pem" &&
    openssl req -x509 -new -key "$OUT/signer.pem" -days 2 -subj "/CN=test" >>"$OUT/signer.pem" &&
    "$BINARY" audit export "$call" --vcon --sign "$OUT/signer.pem" --data "$copy" >"$OUT/signed.json" || return 1
  python3 - "$OUT/signed.json" "$OUT" <<'PY' || return 1
import base64, json, sys
signed, out = json.load(open(sys.argv[1])), sys.argv[2]
decoded = lambda text: base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
(one,) = signed["signatures"]
vcon = json.loads(decoded(signed["payload"]))
assert one["header"]["uuid"] == vcon["uuid"] and "lisinopril" in json.dumps(vcon)
assert json.loads(decoded(one["protected"])) == {"alg": "EdDSA"}
open(f"{out}/signer.der", "wb").write(base64.b64decode(one["header"]["x5c"][0]))
open(f"{out}/signature", "wb").write(decoded(one["signature"]))
open(f"{out}/input", "w").write(one["protected"] + "." + signed["payload"])
open(f"{out}/resigned", "w").write(one["protected"] + "." + signed["payload"].swapcase())
PY
  openssl x509 -inform DER -in "$OUT/signer.der" -noout -pubkey >"$OUT/signer.pub" &&
    openssl pkeyutl -verify -rawin -pubin -inkey "$OUT/signer.pub" -sigfile "$OUT/signature" -in "$OUT/input" &&
    ! openssl pkeyutl -verify -rawin -pubin -inkey "$OUT/signer.pub" -sigfile "$OUT/signature" -in "$OUT/resigned"
}
rows() {
  python3 - "$OUT/feed.jsonl" "$OUT/later.jsonl" <<'PY'
import json, sys
rows, later = ([json.loads(line) for line in open(path)] for path in sys.argv[1:])
assert len(rows) >= 40 and later == rows[20:], (len(rows), len(later))
text = json.dumps(rows)
assert not any(word in text for word in ("Dana", "Ortiz", "lisinopril", "+1555")), "a personal column"
assert all(not isinstance(value, (dict, list)) for row in rows for value in row.values()), "flat"
PY
}
SIGNED=0
if command -v openssl >/dev/null; then
  SIGNED=1
  check "a signed vCon holds by its own certificate, and a changed one does not" signed
fi
recorded() { sqlite3 "$copy/warmbridge.db" "SELECT count(*) FROM queue WHERE name = 'audit.fifo'" | grep -qx $((2 + SIGNED)); }
check "the call is a vCon with its transfer, and a redacted one keeps its indices" vcon
check "each export waits for its place in the trail" recorded
check "rows for a warehouse are flat, without personal columns, and go on from any cursor" rows
