#!/usr/bin/env bash
# Edits copies of a demo's store as somebody with access to the disk would, and asks for the
# verdict each time, by the chains alone and against signed checkpoints. Usage: tamper.sh DATA
set -u
data=$1

# verdict NAME CODES WORDS [SQL]: verify on a copy after the edit exits with one of the codes
# and says the words, asked for the one call and for the whole store.
verdict() {
  local name=$1 codes=$2 words=$3 sql=${4:-} copy=$OUT/tampered said code of
  rm -rf "$copy"
  mkdir -p "$copy"
  cp "$data"/warmbridge.db* "$copy"/ || { echo "FAILED tamper: no store in $data"; return; }
  [ -f "$data/store.key" ] && cp "$data/store.key" "$copy"/
  find "$data" -maxdepth 1 -type f ! -name 'warmbridge.db*' ! -name '*.wav' -exec cp {} "$copy"/ \;
  if [ -n "$sql" ]; then
    local changed
    changed=$(sqlite3 "$copy/warmbridge.db" "$sql; SELECT changes();" 2>&1)
    if [ "$changed" != 1 ]; then echo "FAILED tamper: $name: the edit changed $changed rows"; return; fi
  fi
  for of in "$call" ""; do
    said=$("$BINARY" audit verify ${of:+"$of"} --data "$copy" 2>&1)
    code=$?
    if [[ " $codes " == *" $code "* ]] && grep -qE "$words" <<<"$said"; then
      echo "ok tamper: $name, ${of:-the store}: exit $code: $(grep -m 1 -E "$words" <<<"$said")"
    else
      echo "FAILED tamper: $name, ${of:-the store}: exit $code, wanted one of $codes and /$words/:"
      head -n 10 <<<"$said"
    fi
  done
}

# The only chain with a call in it; a demo makes one call.
call=$(sqlite3 "file:$data/warmbridge.db?mode=ro" "SELECT call FROM audit_keys LIMIT 1" 2>/dev/null)
records=$(sqlite3 "file:$data/warmbridge.db?mode=ro" "SELECT count(*) FROM audit" 2>/dev/null)
if [ -z "$call" ] || [ "${records:-0}" -lt 15 ]; then
  echo "FAILED tamper: the demo's store in $data holds no call with 15 records ($records)"
  exit 1
fi
chain=$(sqlite3 "file:$data/warmbridge.db?mode=ro" "SELECT chain FROM audit GROUP BY chain ORDER BY count(*) DESC LIMIT 1")
at() { echo "chain='$chain' AND seq=$1"; }
last=$(sqlite3 "file:$data/warmbridge.db?mode=ro" "SELECT max(seq) FROM audit WHERE chain='$chain'")
first=$(sqlite3 "file:$data/warmbridge.db?mode=ro" "SELECT min(seq) FROM audit WHERE chain='$chain'")
middle=$((last / 2))

# The last line of every verdict counts the records, so the words ask for a number.
verdict "untouched" "0" "^verified: "
# One byte in the middle of one record: its length stays, so nothing else gives it away.
verdict "one byte of record $middle" "1" "record $middle\b" \
  "UPDATE audit SET cj = CAST(substr(cj,1,length(cj)/2-1) || CASE substr(cj,length(cj)/2,1) WHEN x'58' THEN x'59' ELSE x'58' END || substr(cj,length(cj)/2+1) AS BLOB) WHERE $(at "$middle")"
verdict "record $middle deleted" "1 2" "record $middle\b" "DELETE FROM audit WHERE $(at "$middle")"
verdict "last record deleted" "1 2" "record ($last|$((last - 1)))\b" "DELETE FROM audit WHERE $(at "$last")"
verdict "first record deleted" "1 2" "record $first\b" "DELETE FROM audit WHERE chain='$chain' AND seq=$first"
# Genuine bytes in another record's place.
verdict "a record in the place of another" "1" "record $middle\b" \
  "UPDATE audit SET cj = (SELECT cj FROM audit WHERE $(at $((middle + 1)))) WHERE $(at "$middle")"

# forged NAME WHAT WORDS: a forgery that leaves whole chains behind verifies by itself, and is
# found against the checkpoints, which the demo makes beside its data.
notes=$data.checkpoints
forged() {
  local name=$1 what=$2 words=$3 copy=$OUT/forged said code
  rm -rf "$copy"
  mkdir -p "$copy"
  find "$data" -maxdepth 1 -type f ! -name '*.wav' -exec cp {} "$copy"/ \;
  if [ "$what" != nothing ]; then
    python3 "$ROOT/tests/interop/rewrite.py" "$copy/warmbridge.db" "$what" || { echo "FAILED tamper: $name: no forgery"; return; }
    said=$("$BINARY" audit verify --data "$copy" 2>&1)
    code=$?
    if [ "$code" -eq 0 ] && grep -q "no checkpoints are configured" <<<"$said"; then
      echo "ok tamper: $name is whole by itself, and verify says what it could not see"
    else
      echo "FAILED tamper: $name is no good forgery: exit $code"; head -n 5 <<<"$said"
    fi
  fi
  said=$("$BINARY" audit verify --data "$copy" --checkpoints "$notes" 2>&1)
  code=$?
  if [[ $code == $([ "$what" = nothing ] && echo 0 || echo 1) ]] && grep -qE "$words" <<<"$said"; then
    echo "ok tamper: $name, against checkpoints: exit $code: $(grep -m 1 -E "$words" <<<"$said")"
  else
    echo "FAILED tamper: $name, against checkpoints: exit $code, wanted /$words/"; head -n 10 <<<"$said"
  fi
}
forged "the demo's store" nothing "^note: checked against checkpoints of [1-9]"
forged "a rewritten suffix" record "the chain was rewritten"
forged "a removed call" call "the chain was deleted"

# An erased call: its chain verifies, its texts are gone, a hold keeps them.
erased=$OUT/erased
rm -rf "$erased"
mkdir -p "$erased"
find "$data" -maxdepth 1 -type f ! -name '*.wav' -exec cp {} "$erased"/ \;
audit() { "$BINARY" audit "$@" --data "$erased" 2>&1; }
texts() { audit show "$call" | grep -c '“'; }
before=$(texts)
audit hold place "$call" --basis "case 7" >/dev/null
if said=$(audit erase "$call" --basis "GDPR 17"); then
  echo "FAILED tamper: a held call was erased"
else
  echo "ok tamper: a held call is not erased: $said"
fi
audit hold release "$call" --basis "case 7 is closed" >/dev/null
said=$(audit erase "$call" --basis "GDPR 17")
code=$?
if [ "$code" -eq 0 ] && [ "$before" -gt 0 ] && [ "$(texts)" -eq 0 ] && audit show "$call" | grep -q 'erasure.executed'; then
  echo "ok tamper: of $before texts none is readable after the erasure, which is recorded"
else
  echo "FAILED tamper: erase: exit $code: $said; $before texts before, $(texts) after"
fi
said=$(audit verify "$call" --checkpoints "$notes")
code=$?
if [ "$code" -eq 0 ] && grep -q "erased" <<<"$said"; then
  echo "ok tamper: an erased call verifies: $(grep -m 1 erased <<<"$said")"
else
  echo "FAILED tamper: an erased call: exit $code"; head -n 10 <<<"$said"
fi

# Seven years later: a held call stays, a call whose time is up goes and the trail says so, and
# the same deletion without that record is found.
old=$OUT/old
rm -rf "$old" "$old.checkpoints"
mkdir -p "$old"
find "$data" -maxdepth 1 -type f ! -name '*.wav' -exec cp {} "$old"/ \;
cp -r "$data/recordings" "$old"/ 2>/dev/null
audit() { "$BINARY" audit "$@" --data "$old" 2>&1; }
retained() {
  local name=$1 codes=$2 words=$3 said code
  shift 3
  said=$(audit "$@")
  code=$?
  if [[ " $codes " == *" $code "* ]] && grep -qE "$words" <<<"$said"; then
    echo "ok tamper: $name: $(grep -m 1 -E "$words" <<<"$said")"
  else
    echo "FAILED tamper: $name: exit $code, wanted one of $codes and /$words/"; head -n 10 <<<"$said"
  fi
}
retained "a call of today is within its time" 0 "no call is past its time" retention --class hipaa --class tsr --apply
python3 "$ROOT/tests/interop/rewrite.py" "$old/warmbridge.db" age || echo "FAILED tamper: the call cannot be dated back"
retained "a call of seven years ago is whole" 0 "^verified: " verify "$call"
audit checkpoint --checkpoints "$old.checkpoints" >/dev/null
retained "its time is up, and a dry run says so" 0 "$call .*would be deleted" retention --class hipaa --class tsr
audit hold place "$call" --basis "case 7" >/dev/null
retained "a held call stays when its time is up" 0 "$call .*a legal hold stands" retention --class hipaa --apply
retained "it is still there" 0 "^verified: " verify "$call" --checkpoints "$old.checkpoints"
audit hold release "$call" --basis "case 7 is closed" >/dev/null
retained "a call whose time is up goes" 0 "$call .* deleted$" retention --class hipaa --class tsr --apply
retained "the store verifies without it" 0 "^note: checked against checkpoints of [1-9]" verify --checkpoints "$old.checkpoints"
retained "asked for the call, verify says where it went" 0 "was deleted at .*its time was up" verify "$call" --checkpoints "$old.checkpoints"
left=$(for table in audit audit_head audit_idem; do sqlite3 "$old/warmbridge.db" "SELECT count(*) FROM $table WHERE chain LIKE '$call%'"; done
  for table in audit_keys payloads transcripts queue webhooks; do sqlite3 "$old/warmbridge.db" "SELECT count(*) FROM $table WHERE call = '$call'"; done)
if [ "$(sort -u <<<"$left")" = 0 ] && [ ! -e "$old/recordings/$call" ]; then
  echo "ok tamper: no row and no recording of it is left"
else
  echo "FAILED tamper: rows of the call are left: $left"
fi
sqlite3 "$old/warmbridge.db" "DELETE FROM audit WHERE chain = '#tenant'; DELETE FROM audit_head WHERE chain = '#tenant'"
retained "a call that is gone without the record of it is missing" 1 "the chain was deleted" verify --checkpoints "$old.checkpoints"

# unreadable NAME FOLDER: what cannot be read is neither verified nor tampered with.
unreadable() {
  local code
  "$BINARY" audit verify --data "$2" >/dev/null 2>&1
  code=$?
  if [ "$code" -eq 4 ]; then echo "ok tamper: $1: exit 4"; else echo "FAILED tamper: $1: exit $code, wanted 4"; fi
}
mkdir -p "$OUT/empty" "$OUT/noise"
head -c 8192 /dev/urandom >"$OUT/noise/warmbridge.db"
unreadable "no store" "$OUT/empty"
unreadable "not a database" "$OUT/noise"
