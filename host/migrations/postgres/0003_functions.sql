-- What functions need beside their journals: effects, timers, positions in the feed of all events, views. Rows are
-- written by the statement that appends, under the fence of their shard.

-- Effects that are not delivered yet. Ids rise with time.
CREATE TABLE outbox (
    shard_id INT NOT NULL,
    effect   BYTEA NOT NULL,
    journal  BYTEA NOT NULL,
    id       BYTEA NOT NULL,
    call     BYTEA NOT NULL,
    tries    INT NOT NULL,
    due_ms   BIGINT NOT NULL,
    error    BYTEA NOT NULL,
    parked   BOOLEAN NOT NULL,
    PRIMARY KEY (shard_id, effect)
);

CREATE INDEX outbox_parked ON outbox (effect) WHERE parked;

CREATE TABLE timer (
    shard_id INT NOT NULL,
    journal  BYTEA NOT NULL,
    id       BYTEA NOT NULL,
    name     BYTEA NOT NULL,
    due_ms   BIGINT NOT NULL,
    every_ms BIGINT,
    method   BYTEA NOT NULL,
    payload  BYTEA NOT NULL,
    token    BYTEA NOT NULL,
    tries    INT NOT NULL,
    error    BYTEA NOT NULL,
    PRIMARY KEY (shard_id, journal, id, name)
);

CREATE INDEX timer_due ON timer (shard_id, due_ms);

-- Events of the entity before this number may be missing: their owner does not need them any more.
CREATE TABLE forgotten (
    shard_id INT NOT NULL,
    journal  BYTEA NOT NULL,
    id       BYTEA NOT NULL,
    before   BIGINT NOT NULL,
    PRIMARY KEY (shard_id, journal, id)
);

-- Groups of consumers: everything below `off` is consumed, but for what the laggards have yet to consume.
CREATE TABLE consumed (
    grp      BYTEA NOT NULL,
    shard_id INT NOT NULL,
    off      BIGINT NOT NULL,
    PRIMARY KEY (grp, shard_id)
);

CREATE TABLE laggard (
    grp      BYTEA NOT NULL,
    shard_id INT NOT NULL,
    journal  BYTEA NOT NULL,
    id       BYTEA NOT NULL,
    seq      BIGINT NOT NULL,
    tries    INT NOT NULL,
    due_ms   BIGINT NOT NULL,
    error    BYTEA NOT NULL,
    parked   BOOLEAN NOT NULL,
    PRIMARY KEY (grp, shard_id, journal, id)
);

-- Each making of a view has a name of its own.
CREATE TABLE view_row (
    view BYTEA NOT NULL,
    key  BYTEA NOT NULL,
    type BYTEA NOT NULL,
    data BYTEA NOT NULL,
    PRIMARY KEY (view, key)
);

-- Values as bytes that are ordered like the values.
CREATE TABLE view_value (
    view  BYTEA NOT NULL,
    key   BYTEA NOT NULL,
    field BYTEA NOT NULL,
    value BYTEA NOT NULL,
    PRIMARY KEY (view, key, field)
);

CREATE INDEX view_order ON view_value (view, field, value, key);
