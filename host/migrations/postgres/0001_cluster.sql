-- Who may write. SWIM is a hint; these rows are the truth.

-- One row: what never changes in the life of a cluster.
CREATE TABLE cluster (
    one           BOOLEAN PRIMARY KEY CHECK (one),
    -- Random, 16 bytes. Packets of another cluster are not understood.
    cluster_id    BYTEA NOT NULL,
    shards        INT NOT NULL,
    -- Derived from the cluster key, so that a node with another one is refused.
    key_check     BYTEA,
    created_at_ms BIGINT NOT NULL
);

CREATE TABLE node (
    node_id       BYTEA PRIMARY KEY,
    -- One more with each registration, and one more when others declare the node dead.
    incarnation   BIGINT NOT NULL,
    -- Counts renewals of the lease. Nobody compares clocks: who sees it unchanged for the length of a
    -- lease, on its own clock, may fence the node.
    hb            BIGINT NOT NULL,
    state         TEXT NOT NULL CHECK (state IN ('active', 'draining', 'fenced', 'gone')),
    -- Random for each process: tells two processes with one identity apart.
    process       BYTEA NOT NULL,
    -- Which directory of which boot of which machine holds the node's data: a successor that holds its
    -- lock knows that the predecessor is dead.
    place         BYTEA NOT NULL,
    peer_addr     TEXT NOT NULL,
    zone          TEXT NOT NULL,
    capacity      INT NOT NULL,
    version       TEXT NOT NULL,
    -- The revision that the node serves, and why it cannot serve all of it; empty if it can.
    revision      BIGINT NOT NULL,
    broken        TEXT NOT NULL,
    started_at_ms BIGINT NOT NULL
);

-- Every append updates its shards' rows in place.
CREATE TABLE shard (
    shard_id  INT PRIMARY KEY,
    owner     BYTEA,
    owner_inc BIGINT,
    -- The fencing token. Every change of owner steps it.
    epoch     BIGINT NOT NULL,
    -- The offset of the next event of the shard: offsets have no gap.
    next_off  BIGINT NOT NULL,
    -- Why nobody may own it until an operator has looked: acknowledged events are missing.
    halted    TEXT
) WITH (fillfactor = 40);
