#!/usr/bin/env bash
# Edits copies of a demo's store as somebody with access to the disk would, and asks for the
# verdict each time. Usage: tamper.sh DATA
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
