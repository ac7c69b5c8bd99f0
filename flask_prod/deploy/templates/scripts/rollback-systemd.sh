#!/bin/sh
# Back to the release that served before on this machine, or to another one; the result is verified. Ends with 1 when
# that is refused or has not gone well. As root.
#
#   [= plan.folder =]/scripts/rollback-systemd.sh [VERSION]
[% if plan.prepare %]
#
# The older code is asked first whether it can serve with the database as it is now: what a migration since has merely
# added is no obstacle. FORCE=yes goes on against its word.
[% endif %]
set -eu

base=${BASE:-/opt/[= plan.name =]}
version=${1:-$(basename "$(readlink "$base/previous" || true)")}
[ -n "$version" ] || { echo "No release has served before this one: name one of $base/releases." >&2; exit 1; }
[ -x "$base/releases/$version/.venv/bin/flask" ] || { echo "There is no release in $base/releases/$version." >&2; exit 1; }

[% if plan.prepare %]
if ! RELEASE=$version [= plan.name =]-flask prod db fits; then
  [ "${FORCE:-}" = yes ] || { echo "$version does not fit this database; nothing was done. See FORCE above." >&2; exit 1; }
fi

[% endif %]
before=$(readlink "$base/current")
ln -sfn "releases/$version" "$base/current.new"
mv -T "$base/current.new" "$base/current"
ln -sfn "$before" "$base/previous"
systemctl restart [= plan.name =]-web.service[= " " ~ plan.name ~ "-worker.service" if plan.uses_jobs =]
[= plan.name =]-flask prod deploy verify http://127.0.0.1:[= plan.port =] --host [= plan.host =] --version "$version" --wait 60s
