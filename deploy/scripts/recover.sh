#!/bin/sh
# The database is lost: brings the last backup back into the new, empty one at DATABASE_URL, and tells how long it took
# (RTO), how much is lost (RPO), and what Redis still knows of that. Stop web and workers first; start them afterwards.
#
#   deploy/scripts/recover.sh [OPTION of `flask prod deploy recover`]...
#
# deploy/scripts/drill.sh rehearses it; flask-prod's docs/deploy/drills.md tells what comes back and what does not.
set -eu

app='sample_app'
export FLASK_APP="${FLASK_APP:-$app}"
exec flask prod deploy recover --report "${REPORT:-lost-jobs.json}" "$@"
