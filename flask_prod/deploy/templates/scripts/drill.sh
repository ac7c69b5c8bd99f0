[% import "_parts/shell.jinja" as shell %]
[% if "backups" in plan.rooms %]
#!/bin/sh
# Rehearses the way back and destroys nothing: the last backup goes into a scratch database, is compared, measured and
# dropped. One line goes to drills.log, for the table of drills. Ends with 1 when the backup is not whole, too old, or
# takes too long to come back.
#
#   [= plan.folder =]/scripts/drill.sh [OPTION of `flask prod deploy drill`]...
set -eu

app=[= shell.word(plan.flask_app) =]
export FLASK_APP="${FLASK_APP:-$app}"
code=0
said=$(flask prod deploy drill --rpo "${RPO:-26h}" "$@") || code=$?
echo "$said"
printf '%s | %s | exit %s\n' "$(date -u +%FT%TZ)" "$(echo "$said" | tail -n 1)" "$code" >>"${LOG:-drills.log}"
exit "$code"
[% endif %]
