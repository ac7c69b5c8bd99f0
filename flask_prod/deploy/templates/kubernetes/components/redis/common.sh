[% if "redis" in plan.rooms %]
# shellcheck shell=sh
# What all scripts need. ME is the name of this pod, HOSTS those of all three, in order.
set -eu
umask 077
password=$(cat /run/redis/password)
export REDISCLI_AUTH="$password"

# Prints who the sentinels say is the primary; nothing when none of them answers.
ask_sentinels() {
  for host in $HOSTS; do
    found=$(timeout 2 valkey-cli -h "$host" -p 26379 sentinel get-master-addr-by-name [= plan.name =] 2>/dev/null | head -n 1) || found=''
    case $found in '' | *' '*) ;; *) echo "$found"; return ;; esac
  done
}

# Prints the primary: as the sentinels say; where all of them begin, as the one beside us remembers; at the very first
# start, the first of the three.
find_primary() {
  found=$(ask_sentinels)
  if [ -z "$found" ] && [ -f /data/sentinel.conf ]; then
    found=$(sed -n 's/^sentinel monitor [= plan.name =] \([^ ]*\) .*/\1/p' /data/sentinel.conf)
  fi
  echo "${found:-${HOSTS%% *}}"
}
[% endif %]
