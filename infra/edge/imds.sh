# The instance's own metadata, by version 2 of the service: a token first, and one hop only.
# To be sourced. WB_IMDS is another address, for tests.
imds() {
  local base=${WB_IMDS:-http://169.254.169.254} token
  token=$(curl -sSf -m 2 -X PUT "$base/latest/api/token" -H "X-aws-ec2-metadata-token-ttl-seconds: 60") || return 1
  curl -sf -m 2 -H "X-aws-ec2-metadata-token: $token" "$base/latest/$1"
}
