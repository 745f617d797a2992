#!/usr/bin/env bash
# Files and options that an operator got wrong: each is refused with a line that names the fault.
set -u
good=$ROOT/warmbridge.example.toml
work=$OUT/bad-config
mkdir -p "$work/secrets"

# Every secret that the example names, so that only the planted fault is left.
for name in registered.password failover.password voice-agent.auth voice-agent.signal ana.sip ana.desktop ben.desktop wallboard.token; do
  echo "a-secret-of-the-test-$name" >"$work/secrets/$name"
done
echo "whsec_$(head -c 32 /dev/zero | base64)" >"$work/secrets/crm.webhook"
head -c 32 /dev/zero | base64 >"$work/secrets/tag.key"
cp "$ROOT/handoff/policies/default.toml" "$work/policy.toml"

# refused NAME WORDS COMMAND…: exit 1 and the words on stdout.
refused() {
  local name=$1 words=$2 said code
  shift 2
  said=$(timeout 10 "$@" 2>/dev/null)
  code=$?
  if [ "$code" -eq 1 ] && grep -qE "$words" <<<"$said"; then
    echo "ok $name: $(head -n 1 <<<"$said")"
  else
    echo "FAILED $name: exit $code, wanted 1 and /$words/:"
    head -n 5 <<<"$said"
  fi
}
accepted() {
  local name=$1 said
  shift
  if said=$(timeout 10 "$@" 2>&1); then echo "ok $name"; else echo "FAILED $name:"; head -n 10 <<<"$said"; fi
}

config() { sed "$1" "$good" >"$work/warmbridge.toml"; }
check=("$BINARY" check --config "$work/warmbridge.toml")

config ''
accepted "the example, as it is" "${check[@]}"
config 's/^id = "agent_ben"/id = "agent_ana"/'
refused "two agents of one name" 'line [0-9]+: .*agent_ana' "${check[@]}"
config 's/^tenant = /tenent = /'
refused "a misspelt key of [edge]" 'line [0-9]+: .*tenent' "${check[@]}"
config 's/^agents = \["agent_ana", "agent_ben"\]/agents = ["agent_anna"]/'
refused "a queue of nobody" 'line [0-9]+: .*agent_anna' "${check[@]}"
config 's/^hold_signalling = .*/hold_signalling = "reinvite"/; s/^cancel_while_waiting = .*/cancel_while_waiting = true/'
refused "cancelling that nobody would hear" 'cancel_while_waiting|hold_signalling' "${check[@]}"
config 's/^allow_loopback = false/allow_loopback = true/'
refused "loopback beside a listener for everyone" 'allow_loopback' "${check[@]}"
refused "no file" 'nowhere.toml' "$BINARY" check --config "$work/nowhere.toml"
config 's/^id = "agent_ben"/id = "agent_ana"/'
refused "serve refuses what check refuses" 'line [0-9]+: .*agent_ana' "$BINARY" serve --config "$work/warmbridge.toml"

accepted "the built-in policy" "$BINARY" policy check "$work/policy.toml"
sed 's/^consecutive = /consecutve = /' "$ROOT/handoff/policies/default.toml" >"$work/policy.toml"
line=$(grep -n '^consecutve' "$work/policy.toml" | cut -d: -f1)
refused "a misspelt key of the policy" "line $line.*consecutve|consecutve.*line $line" "$BINARY" policy check "$work/policy.toml"
config ''
refused "a configuration whose policy does not load" 'consecutve' "${check[@]}"

# The scenarios themselves are played by scenarios.sh.
timeout 10 "$BINARY" demo --scenario nonsense >/dev/null 2>&1
code=$?
if [ "$code" -eq 2 ]; then echo "ok a scenario that does not exist: exit 2"; else echo "FAILED a scenario that does not exist: exit $code, wanted 2"; fi
