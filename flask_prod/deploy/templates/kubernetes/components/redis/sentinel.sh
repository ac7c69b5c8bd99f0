[% if "redis" in plan.rooms %]
#!/bin/sh
# shellcheck disable=SC1091,SC2154  # the password is of common.sh, which lies beside
# Starts the sentinel of this pod. Who it is, and which other sentinels there are, it keeps on the disk: a majority is
# counted of all that were ever known. Servers it is told anew, since the primary may be another than when it ended.
. "$(dirname "$0")/common.sh"

primary=$(find_primary)
tries=0
until getent ahosts "$primary" > /dev/null; do # a sentinel ends at once when it cannot find its primary
  tries=$((tries + 1))
  [ $tries -lt 60 ] || { echo "$primary has no address." >&2; exit 1; }
  sleep 1
done
known=$(grep -E '^sentinel (myid|known-sentinel|current-epoch|config-epoch|leader-epoch)' /data/sentinel.conf 2>/dev/null || true)
{
  echo "sentinel monitor [= plan.name =] $primary 6379 2"
  cat "$(dirname "$0")/sentinel.conf"
  echo "sentinel announce-ip $ME"
  echo "sentinel auth-pass [= plan.name =] \"$password\""
  echo "sentinel sentinel-pass \"$password\""
  echo "requirepass \"$password\""
  for host in $HOSTS; do
    [ "$host" = "$primary" ] || echo "sentinel known-replica [= plan.name =] $host 6379"
  done
  echo "$known"
} > /data/sentinel.new
mv /data/sentinel.new /data/sentinel.conf
exec valkey-sentinel /data/sentinel.conf "$@"
[% endif %]
