-- Records whole, as JSON (model/codec.py), beside the columns under a constraint. crc32 is that of the record's bytes.
-- References are checked at COMMIT, so that the order of changes in one commit does not matter.
-- No rowids: a record is found in one tree, and no index of ids can disagree with it.

BEGIN IMMEDIATE;

CREATE TABLE networks (
  id TEXT NOT NULL PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  record BLOB NOT NULL,
  crc32 INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE sandboxes (
  id TEXT NOT NULL PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  record BLOB NOT NULL,
  crc32 INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE endpoints (
  id TEXT NOT NULL PRIMARY KEY,
  network TEXT NOT NULL REFERENCES networks (id) DEFERRABLE INITIALLY DEFERRED,
  sandbox TEXT REFERENCES sandboxes (id) DEFERRABLE INITIALLY DEFERRED,
  record BLOB NOT NULL,
  crc32 INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE containers (
  id TEXT NOT NULL PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  sandbox TEXT NOT NULL REFERENCES sandboxes (id) DEFERRABLE INITIALLY DEFERRED,
  record BLOB NOT NULL,
  crc32 INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE leases (
  network TEXT NOT NULL,
  address TEXT NOT NULL,
  endpoint TEXT NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
  PRIMARY KEY (network, address)
) STRICT, WITHOUT ROWID;

-- Each foreign key has the index with which SQLite looks for referrers; it would else read the whole table at a delete.
CREATE INDEX endpoints_by_network ON endpoints (network);
CREATE INDEX endpoints_by_sandbox ON endpoints (sandbox);
CREATE INDEX containers_by_sandbox ON containers (sandbox);
CREATE INDEX leases_by_endpoint ON leases (endpoint);

CREATE TABLE meta (
  key TEXT NOT NULL PRIMARY KEY,
  value TEXT NOT NULL,
  crc32 INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One row. `digest` is the sum of every record's crc32: a row that is lost, or comes back, shows.
CREATE TABLE revision (
  id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
  revision INTEGER NOT NULL,
  digest INTEGER NOT NULL,
  crc32 INTEGER NOT NULL
) STRICT;
INSERT INTO revision VALUES (1, 0, 0, 1752639628);

PRAGMA application_id = 1936482670;
PRAGMA user_version = 1;

COMMIT;
