#!/usr/bin/env bash
# Edits copies of a demo's store as somebody with access to the disk would, and asks for the
# verdict each time. Usage: tamper.sh DATA
set -u
data=$1

# verdict NAME CODES WORDS [SQL]: verify on a copy after the edit exits with one of the codes
# and says the words.
verdict() {
  local name=$1 codes=$2 words=$3 sql=${4:-} copy=$OUT/tampered said code
  rm -rf "$copy"
  mkdir -p "$copy"
  cp "$data"/warmbridge.db* "$copy"/ || { echo "FAILED tamper: no store in $data"; return; }
  # The store's key lies beside it.
  find "$data" -maxdepth 1 -type f ! -name 'warmbridge.db*' ! -name '*.wav' -exec cp {} "$copy"/ \;
  if [ -n "$sql" ]; then
    local changed
    changed=$(sqlite3 "$copy/warmbridge.db" "$sql; SELECT changes();" 2>&1)
    if [ "$changed" != 1 ]; then echo "FAILED tamper: $name: the edit changed $changed rows"; return; fi
  fi
  said=$("$BINARY" audit verify "$call" --data "$copy" 2>&1)
  code=$?
  if [[ " $codes " == *" $code "* ]] && grep -qiE "$words" <<<"$said"; then
    echo "ok tamper: $name: exit $code: $(head -n 1 <<<"$said")"
  else
    echo "FAILED tamper: $name: exit $code, wanted one of $codes and /$words/:"
    head -n 10 <<<"$said"
  fi
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
middle=$((last / 2))

verdict "untouched" "0" "verified"
# One byte in the middle of one record: its length stays, so nothing else gives it away.
verdict "one byte of record $middle" "1" "record $middle" \
  "UPDATE audit SET cj = CAST(substr(cj,1,length(cj)/2-1) || char((unicode(substr(CAST(cj AS TEXT),length(cj)/2,1)) + 1) % 64 + 48) || substr(cj,length(cj)/2+1) AS BLOB) WHERE $(at "$middle")"
verdict "record $middle deleted" "1 2" "record" "DELETE FROM audit WHERE $(at "$middle")"
verdict "last record deleted" "1 2" "record|missing|cut" "DELETE FROM audit WHERE $(at "$last")"
verdict "first record deleted" "1 2" "record|missing" "DELETE FROM audit WHERE chain='$chain' AND seq=(SELECT min(seq) FROM audit WHERE chain='$chain')"
# Genuine bytes in another record's place.
verdict "record $middle replaced by its neighbour" "1" "record" \
  "UPDATE audit SET cj = (SELECT cj FROM audit WHERE $(at $((middle + 1)))) WHERE $(at "$middle")"

mkdir -p "$OUT/empty"
"$BINARY" audit verify --data "$OUT/empty" >/dev/null 2>&1
code=$?
if [ "$code" -eq 4 ]; then echo "ok tamper: no store: exit 4"; else echo "FAILED tamper: no store: exit $code, wanted 4"; fi
