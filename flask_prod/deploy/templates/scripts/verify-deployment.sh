[% import "_parts/shell.jinja" as shell %]
#!/bin/sh
# Is what was deployed what was meant, and does it do what it should? Ends with 1 when something is wrong. To be run
# where HEALTH_TOKEN and METRICS_TOKEN are known[= ", and the way to the queues: --no-jobs without it" if plan.uses_jobs =].
#
#   [= plan.folder =]/scripts/verify-deployment.sh VERSION [URL] [OPTION of `flask prod deploy verify`]...
set -eu

[ $# -ge 1 ] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 64; }
app=[= shell.word(plan.flask_app) =]
export FLASK_APP="${FLASK_APP:-$app}"
version=$1 url=https://[= plan.host =]
shift
case ${1:-} in
  http://* | https://*) url=$1; shift ;;
esac
exec flask prod deploy verify "$url" --version "$version" "$@"
