#!/bin/bash
# Run once, when the data directory is made. Neither role can read the other's database.
(
  set -euo pipefail
  for name in registry trainer; do
    variable="${name^^}_PASSWORD" file="${name^^}_PASSWORD_FILE"
    password="${!variable:-$(cat "${!file}")}"
    psql --username postgres --set ON_ERROR_STOP=1 --set name="$name" --set password="$password" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE CONNECT ON DATABASE :"name" FROM PUBLIC;
SQL
  done
)
