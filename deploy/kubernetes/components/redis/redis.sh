#!/bin/sh
# shellcheck disable=SC1091,SC2154  # the password is of common.sh, which lies beside
# Starts the server of this pod, as the primary or as a replica of whoever is.
. "$(dirname "$0")/common.sh"

primary=$(find_primary)
{
  cat "$(dirname "$0")/redis.conf"
  echo "replica-announce-ip $ME"
  echo "requirepass \"$password\""
  echo "masterauth \"$password\""
  [ "$primary" = "$ME" ] || echo "replicaof $primary 6379"
} > /tmp/redis.conf
exec valkey-server /tmp/redis.conf "$@"
