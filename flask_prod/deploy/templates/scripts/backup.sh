[% import "_parts/shell.jinja" as shell %]
[% if "backups" in plan.rooms %]
#!/bin/sh
# Backs up the database to BACKUP_URL, removes what BACKUP_KEEP lets go, and proves the backup by restoring it into a
# scratch database. Ends with 1 when there is no whole backup at the end.
#
#   [= plan.folder =]/scripts/backup.sh
set -eu

app=[= shell.word(plan.flask_app) =]
export FLASK_APP="${FLASK_APP:-$app}"
flask prod db backup
flask prod db verify
[% endif %]
