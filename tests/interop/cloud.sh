#!/usr/bin/env bash
# The cloud half, for real and without an account: the template itself, deployed by the SAM
# command line into an emulator that runs the function binaries; then whole transfers of the
# edge through them, and everything that may go wrong between the two.
#
# The emulator runs what is uploaded to it and believes every key: it is bound to 127.0.0.1
# inside a network namespace that has nothing else. Tools are fetched before that.
#
#   tests/interop/cloud.sh            everything
set -u
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
cd "$ROOT" || exit 1
TOOLS=$ROOT/.tools
export PATH=$TOOLS/sam/bin:$PATH:/usr/sbin:/sbin PYTHONDONTWRITEBYTECODE=1 SAM_CLI_TELEMETRY=0
export PROFILE=cloud FEATURES=aws,functions/contract
BINARIES=${CARGO_TARGET_DIR:-$ROOT/target}/$PROFILE
# The edge's layer takes the program that is built here anyway.
export BUILD=true EDGE_BINARY=$BINARIES/warmbridge

# provide NAME PACKAGE…: a Python environment of its own, because the two pin one library
# differently.
provide() {
  local name=$1
  shift
  [ -f "$TOOLS/$name/complete" ] && return 0
  rm -rf "${TOOLS:?}/$name"
  python3 -m venv "$TOOLS/$name" && "$TOOLS/$name/bin/pip" install --quiet --disable-pip-version-check "$@" &&
    touch "$TOOLS/$name/complete"
}

if [ -z "${WARMBRIDGE_CLOUD:-}" ]; then
  provide sam aws-sam-cli==1.170.0 cfn-lint==1.58.0 cargo-lambda==1.9.2 ziglang==0.17.1 ||
    { echo "FAILED cloud: the tools of .tools/sam cannot be installed"; exit 1; }
  provide cloud ministack==1.5.33 aws-sam-translator==1.115.0 boto3==1.43.106 cryptography==50.0.2 ||
    { echo "FAILED cloud: the tools of .tools/cloud cannot be installed"; exit 1; }
  cargo build --profile "$PROFILE" --locked --features "$FEATURES" -p functions -p edge-media ||
    { echo "FAILED cloud: the build with --features aws"; exit 1; }
  cargo test --quiet --profile "$PROFILE" --locked --features "$FEATURES" -p functions -p edge-media --lib -- aws polly >"${OUT:-/tmp}/adapters.log" 2>&1 &&
    echo "ok cloud: the adapters' own tests: $(grep -c '^test result: ok' "${OUT:-/tmp}/adapters.log") suites" ||
    { echo "FAILED cloud: the adapters' own tests"; tail -n 30 "${OUT:-/tmp}/adapters.log"; exit 1; }
  # Without root the same works inside a user namespace, where this user is root.
  user=()
  [ "$(id -u)" -eq 0 ] || user=(-r)
  WARMBRIDGE_CLOUD=1 exec unshare -n "${user[@]}" bash "$0" "$@"
fi

WORK=$(mktemp -d "${OUT:-/tmp}/cloud.XXXXXX")
EMULATOR=
tear_down() {
  trap - EXIT
  [ -n "$EMULATOR" ] && kill "$EMULATOR" 2>/dev/null && wait "$EMULATOR" 2>/dev/null
  if [ -n "${KEEP:-}" ]; then echo "kept: $WORK"; else rm -rf "$WORK"; fi
}
trap tear_down EXIT
trap 'exit 143' TERM INT

FAILURES=0
# expect WHAT COMMAND…: one check.
expect() {
  local what=$1
  shift
  if "$@" >"$WORK/said" 2>&1; then
    echo "ok cloud: $what"
  else
    FAILURES=$((FAILURES + 1))
    echo "FAILED cloud: $what (exit $?)"
    tail -n 40 "$WORK/said"
  fi
}

ip link set lo up
# The parties of the demo have loopback addresses of their own.
export AWS_ENDPOINT_URL=http://127.0.0.1:4566 AWS_ACCESS_KEY_ID=000000000000 AWS_SECRET_ACCESS_KEY=test
export AWS_DEFAULT_REGION=us-east-1 AWS_REGION=us-east-1 AWS_EC2_METADATA_DISABLED=true CARGO_NET_OFFLINE=true
export MINISTACK_HOST=127.0.0.1 GATEWAY_PORT=4566 BIND_HOST=127.0.0.1
"$TOOLS/cloud/bin/ministack" >"$WORK/emulator.log" 2>&1 &
EMULATOR=$!
for _ in $(seq 100); do
  curl -sf --noproxy '*' "$AWS_ENDPOINT_URL/_ministack/health" >/dev/null && break
  sleep 0.2
done

# For this machine's processor and from one cargo build: cargo-lambda cross-compiles each
# function by itself, which takes minutes and is done by a deployment.
case $(uname -m) in aarch64) arch=arm64 ;; *) arch=x86_64 ;; esac
sed 's/BuildMethod: rust-cargolambda/BuildMethod: makefile/; /BuildProperties:/d; s#CodeUri: \.\./#CodeUri: '"$ROOT"'/#; s#ContentUri: edge/#ContentUri: '"$ROOT"'/infra/edge/#' \
  infra/template.yaml >"$WORK/template.yaml"
deploy() {
  sam deploy --template-file "$WORK/build/template.yaml" --config-file "$ROOT/samconfig.toml" --config-env local \
    --parameter-overrides "Stage=local Arch=$arch CloseAfterSeconds=5 DeployEdge=true RetentionClasses=tsr,hipaa"
}
nothing_to_do() { deploy >"$WORK/second" 2>&1 && grep -q "No changes to deploy" "$WORK/second"; }

expect "sam validate --lint" sam validate --lint --template-file infra/template.yaml
expect "cfn-lint" cfn-lint infra/template.yaml
expect "every role names single resources, every queue has its dead letters" \
  "$TOOLS/sam/bin/python" "$HERE/template.py" infra/template.yaml
expect "sam build" sam build --template-file "$WORK/template.yaml" --build-in-source --build-dir "$WORK/build"
expect "sam deploy" deploy
expect "a second sam deploy changes nothing" nothing_to_do
[ "$FAILURES" -eq 0 ] || exit 1

# Without `exec`: the emulator goes with this script.
"$TOOLS/cloud/bin/python" "$HERE/cloud_drive.py" "$BINARIES" "$WORK"
code=$?
[ "$code" -eq 0 ] || { FAILURES=$((FAILURES + 1)); grep -iE "traceback|error" "$WORK/emulator.log" | tail -n 20; }
[ "$FAILURES" -eq 0 ]
