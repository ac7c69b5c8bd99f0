#!/bin/sh
# Lets a release serve that lies in /opt/[= plan.name =]/releases/VERSION on this machine: [= "migrates, " if plan.prepare =]turns the link, restarts, and
# verifies; one that is not well is taken back at once. Ends with 1 when the new release does not serve. As root.
#
#   [= plan.folder =]/scripts/release-systemd.sh VERSION
set -eu

[ $# -eq 1 ] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 64; }
version=$1 base=${BASE:-/opt/[= plan.name =]}
[ -x "$base/releases/$version/.venv/bin/flask" ] || { echo "There is no release in $base/releases/$version." >&2; exit 1; }

[% if plan.prepare %]
# By the new code, while the old one serves. Where it fails nothing else has changed.
systemctl start "[= plan.name =]-migrate@$version.service"

[% endif %]
turn() { # to a folder; in one step, so that nothing ever finds no link
  ln -sfn "$1" "$base/current.new"
  mv -T "$base/current.new" "$base/current"
  # Connections wait in [= plan.name =]-web.socket meanwhile.
  systemctl restart [= plan.name =]-web.service[= " " ~ plan.name ~ "-worker.service" if plan.uses_jobs =]
}

before=$(readlink "$base/current" || true)
turn "releases/$version"
if [= plan.name =]-flask prod deploy verify http://127.0.0.1:[= plan.port =] --host [= plan.host =] --version "$version" --wait 60s; then
  [ -z "$before" ] || [ "$before" = "releases/$version" ] || ln -sfn "$before" "$base/previous"
  echo "$version serves."
  exit 0
fi
echo "$version is not well." >&2
if [ -n "$before" ] && [ "$before" != "releases/$version" ]; then
  turn "$before"
  echo "$before serves again." >&2
fi
exit 1
