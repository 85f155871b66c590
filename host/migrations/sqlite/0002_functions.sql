-- What functions need beside their journals: effects, timers, the feed of all events and who reads it, views.

-- Effects that are not delivered yet. `call` ends with its checksum. Ids rise with time.
CREATE TABLE outbox (
    id     BLOB PRIMARY KEY,
    shard  INTEGER NOT NULL,
    entity INTEGER NOT NULL,
    call   BLOB NOT NULL,
    tries  INTEGER NOT NULL,
    due_ms INTEGER NOT NULL,
    error  TEXT NOT NULL,
    parked INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX outbox_parked ON outbox (id) WHERE parked;

CREATE TABLE timer (
    entity   INTEGER NOT NULL,
    name     TEXT NOT NULL,
    shard    INTEGER NOT NULL,
    due_ms   INTEGER NOT NULL,
    every_ms INTEGER,
    method   TEXT NOT NULL,
    payload  BLOB NOT NULL,
    token    BLOB NOT NULL,
    tries    INTEGER NOT NULL,
    error    TEXT NOT NULL,
    PRIMARY KEY (entity, name)
) WITHOUT ROWID;

-- All that is kept in memory of a timer until it is due.
CREATE INDEX timer_due ON timer (due_ms, shard, token);

-- Events of the entity before this number may be missing: their owner does not need them any more.
CREATE TABLE forgotten (
    entity INTEGER PRIMARY KEY,
    before INTEGER NOT NULL
);

-- The order in which packed events were stored; that of the others is in `journal`.
CREATE TABLE feed (
    off    INTEGER PRIMARY KEY,
    entity INTEGER NOT NULL,
    seq    INTEGER NOT NULL
);

-- Offsets were forgotten when events were packed. Those that are packed come first, by entity; what is not
-- packed keeps its order after them.
UPDATE journal SET off = -off;

WITH RECURSIVE
tail AS MATERIALIZED (
    SELECT entity, min(seq) AS seq_first FROM journal GROUP BY entity
),
packed (entity, seq, seq_last) AS (
    SELECT entity, seq_first, seq_last FROM segment
    UNION ALL
    SELECT entity, seq + 1, seq_last FROM packed WHERE seq < seq_last
)
INSERT INTO feed (off, entity, seq)
SELECT row_number() OVER (ORDER BY p.entity, p.seq), p.entity, p.seq
FROM packed p LEFT JOIN tail t ON t.entity = p.entity
WHERE t.entity IS NULL OR p.seq < t.seq_first;

UPDATE journal SET off = (SELECT count(*) FROM feed) - off;

-- Groups of consumers: everything below `off` is consumed, but for what the laggards have yet to consume.
CREATE TABLE position (
    grp  TEXT NOT NULL,
    part INTEGER NOT NULL,
    off  INTEGER NOT NULL,
    PRIMARY KEY (grp, part)
) WITHOUT ROWID;

CREATE TABLE laggard (
    grp     TEXT NOT NULL,
    part    INTEGER NOT NULL,
    journal TEXT NOT NULL,
    id      BLOB NOT NULL,
    seq     INTEGER NOT NULL,
    tries   INTEGER NOT NULL,
    due_ms  INTEGER NOT NULL,
    error   TEXT NOT NULL,
    parked  INTEGER NOT NULL,
    PRIMARY KEY (grp, part, journal, id)
) WITHOUT ROWID;

-- Each making of a view has a name of its own.
CREATE TABLE view_row (
    view TEXT NOT NULL,
    key  TEXT NOT NULL,
    type TEXT NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (view, key)
) WITHOUT ROWID;

-- Values as bytes that are ordered like the values.
CREATE TABLE view_value (
    view  TEXT NOT NULL,
    key   TEXT NOT NULL,
    field TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (view, key, field)
) WITHOUT ROWID;

CREATE INDEX view_order ON view_value (view, field, value, key);
