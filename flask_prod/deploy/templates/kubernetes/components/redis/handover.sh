[% if "redis" in plan.rooms %]
#!/bin/sh
# Before this server stops: lets a replica become the primary, so that nobody waits until the sentinels miss it.
# `coordinated` (Valkey 9.0) holds writes up until the replica has them all; without it there are two primaries for seconds.
# shellcheck disable=SC1091  # which lies beside
. "$(dirname "$0")/common.sh"

is_primary() {
  [ "$(timeout 2 valkey-cli -h "$ME" role | head -n 1)" = master ]
}

is_primary || exit 0
for host in $HOSTS; do
  said=$(timeout 2 valkey-cli -h "$host" -p 26379 sentinel failover [= plan.name =] coordinated 2>/dev/null) || continue
  [ "$said" != OK ] || break
done
tries=0
while is_primary && [ $tries -lt 20 ]; do
  tries=$((tries + 1))
  sleep 1
done
[% endif %]
