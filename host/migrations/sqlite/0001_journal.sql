-- The journal of a node. Everything that is hot is appended in commit order; what is looked up by
-- entity is packed behind the hot path.
--
-- How later parts join, without rewriting what is here: shards with epochs get `shard(no, epoch, ..)`
-- and a column `entity.shard`, checked in the transaction that appends; the outbox and timers get
-- tables of their own, keyed by (entity, ..), written in the same transaction.

-- Addresses. A row comes with the first write of an entity. Ids are bytes, ordered as such.
CREATE TABLE entity (
    no      INTEGER PRIMARY KEY,
    journal TEXT NOT NULL,
    id      BLOB NOT NULL,
    UNIQUE (journal, id)
);

CREATE TABLE message_type (
    no   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);

-- Events in commit order, until they are packed. No further index: it would cost more than the sync.
-- `data` ends with its checksum.
CREATE TABLE journal (
    off    INTEGER PRIMARY KEY,
    entity INTEGER NOT NULL,
    seq    INTEGER NOT NULL,
    at_ms  INTEGER NOT NULL,
    type   INTEGER NOT NULL,
    data   BLOB NOT NULL
);

-- Packed events: those of one entity from seq_first to seq_last, without a gap.
CREATE TABLE segment (
    entity    INTEGER NOT NULL,
    seq_first INTEGER NOT NULL,
    seq_last  INTEGER NOT NULL,
    data      BLOB NOT NULL,
    PRIMARY KEY (entity, seq_first)
) WITHOUT ROWID;

CREATE TABLE snapshot (
    entity INTEGER NOT NULL,
    seq    INTEGER NOT NULL,
    type   INTEGER NOT NULL,
    data   BLOB NOT NULL,
    PRIMARY KEY (entity, seq)
);

-- The newest two of an entity stay.
CREATE TRIGGER snapshot_prune AFTER INSERT ON snapshot BEGIN
    DELETE FROM snapshot
    WHERE entity = NEW.entity
      AND seq < (SELECT seq FROM snapshot WHERE entity = NEW.entity ORDER BY seq DESC LIMIT 1 OFFSET 1);
END;

CREATE TABLE receipt (
    entity        INTEGER NOT NULL,
    key           TEXT NOT NULL,
    request_hash  BLOB NOT NULL,
    reply         BLOB NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    PRIMARY KEY (entity, key)
) WITHOUT ROWID;

CREATE INDEX receipt_expiry ON receipt (expires_at_ms);

CREATE TABLE module (
    digest         BLOB PRIMARY KEY,
    name           TEXT NOT NULL,
    bytes          INTEGER NOT NULL,
    uploaded_at_ms INTEGER NOT NULL,
    data           BLOB NOT NULL
);

-- `modules` is the digests, 32 bytes each.
CREATE TABLE deployment (
    revision      INTEGER PRIMARY KEY,
    modules       BLOB NOT NULL,
    created_at_ms INTEGER NOT NULL,
    note          TEXT NOT NULL
);
