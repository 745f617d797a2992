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
