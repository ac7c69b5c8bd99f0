-- The role and the database of shop: run once by a superuser, who owns neither.
--   psql -v password_file=/run/secrets/DATABASE_PASSWORD -f roles.sql
-- Without the variable the password is read from where containers have it.
\set ON_ERROR_STOP on
\if :{?password_file}
\else
\set password_file /run/secrets/DATABASE_PASSWORD
\endif
\set password `cat :'password_file'`

-- CREATEDB: `flask prod db verify` restores each backup into a database of its own, and drops that.
CREATE ROLE shop LOGIN CREATEDB PASSWORD :'password';
-- Whoever waits longer for a lock is told so, rather than held up with everybody behind: less than
-- DATABASE_STATEMENT_TIMEOUT, and not in postgresql.conf, where pg_dump would have it as well.
ALTER ROLE shop SET lock_timeout = '10s';

CREATE DATABASE shop OWNER shop;
REVOKE ALL ON DATABASE shop FROM PUBLIC;

-- It shows the statements of all databases. In that of shop it would be part of each backup, and only a superuser
-- could restore it.
\connect postgres
CREATE EXTENSION IF NOT EXISTS pg_stat_statements;

\connect shop
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
ALTER SCHEMA public OWNER TO shop;
