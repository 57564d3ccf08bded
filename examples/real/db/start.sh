#!/bin/sh
# The first start makes the database cluster; then this process becomes PostgreSQL.
set -eu
bin=$(find /usr/lib/postgresql -maxdepth 2 -name bin | sort -V | tail -n 1)

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    umask 077
    printf '%s\n' "$PASSWORD" >/tmp/password
    "$bin/initdb" --username=guestbook --pwfile=/tmp/password --auth=scram-sha-256 \
        --encoding=UTF8 --locale=C.UTF-8 --no-sync --no-instructions
    rm /tmp/password
    # Whoever is on our network may try the password; the network's other members are the whole world here.
    echo 'host all all samenet scram-sha-256' >>"$PGDATA/pg_hba.conf"
    # Single-user mode: one statement a line.
    echo 'CREATE DATABASE guestbook' | "$bin/postgres" --single postgres >/dev/null
    "$bin/postgres" --single guestbook </db/schema.sql >/dev/null
fi

exec "$bin/postgres" -c listen_addresses='*' -c unix_socket_directories=/tmp
