-- The journal of a cluster, and what is written with it. Names, ids and keys are bytes: any text is kept,
-- and the order is bytewise whatever the database's collation.
--
-- How later parts join: outbox(shard_id, off, i, target, payload) and
-- timer(shard_id, journal, id, timer_id, ..), written by the statement that appends.

CREATE TABLE journal (
    shard_id INT NOT NULL,
    journal  BYTEA NOT NULL,
    id       BYTEA NOT NULL,
    seq      BIGINT NOT NULL,
    -- The place among the events of the shard, without a gap.
    off      BIGINT NOT NULL,
    -- Under which the event was written: tells a writer whose commit had no answer what became of it.
    epoch    BIGINT NOT NULL,
    at_ms    BIGINT NOT NULL,
    type     BYTEA NOT NULL,
    data     BYTEA NOT NULL,
    PRIMARY KEY (shard_id, journal, id, seq),
    UNIQUE (shard_id, off)
);

-- A row comes with the first event of an entity.
CREATE TABLE entity (
    journal  BYTEA NOT NULL,
    id       BYTEA NOT NULL,
    shard_id INT NOT NULL,
    PRIMARY KEY (journal, id)
);

-- The newest two of an entity count; older ones are deleted behind the hot path.
CREATE TABLE snapshot (
    shard_id INT NOT NULL,
    journal  BYTEA NOT NULL,
    id       BYTEA NOT NULL,
    seq      BIGINT NOT NULL,
    type     BYTEA NOT NULL,
    data     BYTEA NOT NULL,
    PRIMARY KEY (shard_id, journal, id, seq)
);

CREATE TABLE receipt (
    shard_id      INT NOT NULL,
    journal       BYTEA NOT NULL,
    id            BYTEA NOT NULL,
    key           BYTEA NOT NULL,
    request_hash  BYTEA NOT NULL,
    reply         BYTEA NOT NULL,
    expires_at_ms BIGINT NOT NULL,
    PRIMARY KEY (shard_id, journal, id, key)
);

CREATE INDEX receipt_expiry ON receipt (expires_at_ms);

CREATE TABLE module (
    digest         BYTEA PRIMARY KEY,
    name           TEXT NOT NULL,
    bytes          BIGINT NOT NULL,
    uploaded_at_ms BIGINT NOT NULL,
    data           BYTEA NOT NULL
);

-- `modules` is the digests, 32 bytes each.
CREATE TABLE deployment (
    revision      BIGINT PRIMARY KEY,
    modules       BYTEA NOT NULL,
    created_at_ms BIGINT NOT NULL,
    note          TEXT NOT NULL
);
