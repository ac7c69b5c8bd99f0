[% import "_parts/shell.jinja" as shell %]
[% if "backups" in plan.rooms %]
#!/bin/sh
# The database is lost: brings the last backup back into the new, empty one at DATABASE_URL, and tells how long it took
# (RTO), how much is lost (RPO), and what Redis still knows of that. Stop web[= " and workers" if plan.uses_jobs =] first; start them afterwards.
#
#   [= plan.folder =]/scripts/recover.sh [OPTION of `flask prod deploy recover`]...
#
# [= plan.folder =]/scripts/drill.sh rehearses it; flask-prod's docs/deploy/drills.md tells what comes back and what does not.
set -eu

app=[= shell.word(plan.flask_app) =]
export FLASK_APP="${FLASK_APP:-$app}"
exec flask prod deploy recover --report "${REPORT:-lost-jobs.json}" "$@"
[% endif %]
