#!/bin/sh
# Makes the secrets of the stack in secrets/, once: what is there stays as it is. Values come from
# `flask prod secret generate`; run this where flask-prod is installed, or set FLASK="docker run --rm IMAGE flask".
#
# The files can be read by all, as each container has its own user; the folder by nobody but you.
set -eu
cd "$(dirname "$0")"
umask 022
mkdir -p secrets/tls secrets/redis
chmod 700 secrets

missing() {
    [ ! -e "secrets/$1" ]
}

put() {  # put NAME VALUE
    printf '%s\n' "$2" >"secrets/$1.new"
    mv "secrets/$1.new" "secrets/$1"
    echo "made secrets/$1"
}

made() {  # made NAME...
    for name; do
        if missing "$name"; then
            put "$name" "$(${FLASK:-flask} prod secret generate "$name")"
        fi
    done
}

[% set addresses = ["DATABASE_URL", "REDIS_URL", "BACKUP_URL"] %]
[% set given = ["SENTRY_DSN"] %]
made [= plan.secrets | reject("in", addresses + given) | join(" ") =] GRAFANA_PASSWORD
[% if "database" in plan.rooms %]

made POSTGRES_PASSWORD DATABASE_PASSWORD
if missing DATABASE_URL; then
    put DATABASE_URL "postgresql://[= plan.database =]:$(cat secrets/DATABASE_PASSWORD)@database:5432/[= plan.database =]"
fi
[% endif %]
[% if "BACKUP_URL" in plan.secrets %]

# A volume of this machine. What must outlive the machine goes to a bucket: s3://...
if missing BACKUP_URL; then
    put BACKUP_URL /backups
fi
[% endif %]
[% if "redis" in plan.rooms %]

# The service has all keys below its own names[= " and those of RQ" if plan.uses_jobs =], and no command that an administrator needs.
made REDIS_PASSWORD
if missing REDIS_URL; then
    put REDIS_URL "redis://[= plan.name =]:$(cat secrets/REDIS_PASSWORD)@redis:6379/0"
fi
if missing redis/users.acl; then
    hash=$(printf %s "$(cat secrets/REDIS_PASSWORD)" | sha256sum | cut -d ' ' -f 1)
    put redis/users.acl "user default off
user probe on nopass +ping
user [= plan.name =] on #$hash [= plan.redis_rules =]"
fi
[% endif %]

# What only you know: write it into these files. Empty means none.
for name in [= (plan.secrets | select("in", given) | list + ["ALERTMANAGER_PAGER", "ALERTMANAGER_TICKETS"]) | join(" ") =]; do
    if missing "$name"; then
        : >"secrets/$name"
        echo "left empty: secrets/$name"
    fi
done

# To try it with. Put your own in the same place: fullchain.pem and privkey.pem.
if missing tls/fullchain.pem; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \
        -subj "/CN=[= plan.host =]" -addext "subjectAltName=[% for host in plan.hosts %]DNS:[= host =][= "," if not loop.last =][% endfor %]" \
        -keyout secrets/tls/privkey.pem -out secrets/tls/fullchain.pem 2>/dev/null
    chmod 644 secrets/tls/privkey.pem
    echo "made secrets/tls, signed by itself: good for 30 days and for trying"
fi
