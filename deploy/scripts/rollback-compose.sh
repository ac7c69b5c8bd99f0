#!/bin/sh
# Back to an earlier image of the stack on this machine; the result is verified. Ends with 1 when that is refused or has
# not gone well.
#
#   deploy/scripts/rollback-compose.sh TAG
#
# The older code is asked first whether it can serve with the database as it is now: what a migration since has merely
# added is no obstacle. FORCE=yes goes on against its word.
set -eu

[ $# -eq 1 ] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 64; }
tag=$1
cd "$(dirname "$0")/../compose"
# What the shell says wins over .env, which is changed when all has gone well.
export TAG="$tag"

if ! docker compose run --rm --no-deps web flask prod db fits; then
  [ "${FORCE:-}" = yes ] || { echo "$tag does not fit this database; nothing was done. See FORCE above." >&2; exit 1; }
fi

# Nothing else: an older `migrate` would not know the newer database, and keep all from starting.
docker compose up --detach --wait --no-deps web worker
docker compose exec -T web flask prod deploy verify http://127.0.0.1:8000 --host shop.example.com --version "$tag"
sed -i "s/^TAG=.*/TAG=$tag/" .env
