[% import "_parts/shell.jinja" as shell %]
#!/bin/sh
# May this release be deployed? To be run by the release itself, with the settings and secrets that it will have: in a
# container of its image, or by [= plan.name =]-flask on a machine with systemd. Ends with 1 when it may not.
#
#   [= plan.folder =]/scripts/before-deployment.sh [IMAGE] [OPTION of `flask prod deploy ready`]...
#
# COSIGN says whose signature the image must have: COSIGN="--key cosign.pub". RUNNING_CONFIG is a file of
# `flask prod config --json` of the release that serves now: what changes is told.
set -eu

app=[= shell.word(plan.flask_app) =]
export FLASK_APP="${FLASK_APP:-$app}"
image=
case ${1:-} in
  "" | -*) ;;
  *) image=$1; shift ;;
esac
exec flask prod deploy ready ${image:+"--image=$image"} ${COSIGN:+"--cosign=$COSIGN"} \
  ${RUNNING_CONFIG:+"--config-before=$RUNNING_CONFIG"} "$@"
