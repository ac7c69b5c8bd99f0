#!/bin/sh
# Watches a service from outside for a while, as people reach it. Ends with 1 when it is not well three times in a row,
# or does not become VERSION within PATIENCE (120 seconds); what called it can then roll back.
#
#   [= plan.folder =]/scripts/watch.sh https://[= plan.host =] VERSION [SECONDS]
#
# HEALTH_TOKEN lets it ask for the version and for the state of every check; without one it only hears a word.
# PROMETHEUS_URL, if set, is asked for firing alerts of severity critical.
set -eu

[ $# -ge 2 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 64; }
url=$1 version=$2 seconds=${3:-600}
every=${POLL_SECONDS:-15}

ask() { # PATH; by a file of options, since arguments can be read by everybody on the machine
  printf 'header = "Authorization: Bearer %s"\n' "${HEALTH_TOKEN:-}" |
    curl --config - --fail --silent --show-error --max-time 5 "$url$1" 2>&1
}

trouble() { # says what is not well, nothing if all is
  said=$(ask "[= plan.health =]/ready") || { echo "not ready: $said"; return; }
  said=$(ask "[= plan.health =]") || { echo "not healthy: $said"; return; }
  if [ -n "${PROMETHEUS_URL:-}" ]; then
    curl --fail --silent --show-error --max-time 5 --get "$PROMETHEUS_URL/api/v1/query" \
      --data-urlencode 'query=ALERTS{alertstate="firing",severity="critical",job=~"[= plan.name =].*"}' 2>&1 |
      grep -o '"alertname":"[^"]*"' || true
  fi
}

waited=0
while [ -n "${HEALTH_TOKEN:-}" ]; do
  said=$(ask "[= plan.health =]") || said=
  served=$(echo "$said" | sed -n 's/.*"version": *"\([^"]*\)".*/\1/p')
  [ "$served" != "$version" ] || break
  case $said in
    healthy | degraded) echo "A proxy keeps the token to itself: which version serves is not told."; break ;;
  esac
  [ "$waited" -lt "${PATIENCE:-120}" ] || { echo "${served:-Nothing} serves, not $version." >&2; exit 1; }
  waited=$((waited + every))
  sleep "$every"
done

rounds=$((seconds / every)) bad=0
while [ "$rounds" -gt 0 ]; do
  said=$(trouble)
  if [ -n "$said" ]; then
    bad=$((bad + 1))
    echo "$(date -u +%T) $said"
  else
    bad=0
  fi
  [ "$bad" -lt 3 ] || { echo "Not well three times in a row: this release should not stay." >&2; exit 1; }
  rounds=$((rounds - 1))
  sleep "$every"
done
echo "All well for $seconds seconds."
