//! The rows that say who may write, in PostgreSQL: every statement on nodes and on the owners of shards.
//!
//! Locks are taken in one order, nodes before shards and shards by number. Each change of a shard's owner
//! steps its epoch in the same statement.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::query::Query;
use sqlx::{Postgres, Row};

use crate::cluster::identity::Identity;
use crate::cluster::ownership::observer::Expired;
use crate::cluster::ownership::{NodeRow, NodeState, Process, ShardRow};
use crate::journal::StoreError;
use crate::journal::postgres::Place;
use crate::words::clock::{self, Instant};
use crate::words::limits::{LEASE_BACKOFF_MAX, LEASE_BACKOFF_MIN};
use crate::words::{Epoch, Incarnation, NodeId, Revision, Shard};

/// One connection, one statement at a time, each with a time-out: `statement_max`, or three times that for
/// those that may touch every shard. A connection that failed, or did not
/// answer in time, is replaced by the next statement. Dropping a future abandons its connection.
pub struct Truth {
    place: Place,
    connection: Option<PgConnection>,
    statement_max: Duration,
    /// No try before then.
    retry_at: Option<Instant>,
    backoff: Duration,
}

/// What a node says of itself.
#[derive(Clone, Debug)]
pub struct About {
    pub peer_addr: String,
    pub zone: String,
    pub capacity: u32,
    pub version: String,
    pub started_at_ms: u64,
    pub lease: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    pub incarnation: Incarnation,
    /// Those of the life before, if that is known to be dead.
    pub shards: Vec<(Shard, Epoch)>,
}

/// What one poll tells.
#[derive(Clone, Debug)]
pub struct Polled {
    /// All but those that left.
    pub nodes: Vec<NodeRow>,
    /// Changes whenever any shard changes hands.
    pub tally: Tally,
    /// The newest deployment; 0 without one.
    pub revision: Revision,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    epochs: i64,
    halted: i64,
}

/// What fencing did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fencing {
    /// False: the row had changed, or somebody was faster.
    pub is_ours: bool,
    pub freed: usize,
}

/// Whoever holds the lock of the last life's place, or is its process, knows that life to be dead; but not
/// those before it, which may have run elsewhere.
const REGISTER: &str = "
    WITH old AS (SELECT incarnation, process, place FROM node WHERE node_id = $1 FOR UPDATE),
    me AS (
        INSERT INTO node (node_id, incarnation, hb, state, process, place, peer_addr, zone, capacity,
                          version, revision, broken, started_at_ms, lease_ms)
        SELECT $1, 1, 1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12
        FROM (SELECT 1) one LEFT JOIN old ON true
        ON CONFLICT (node_id) DO UPDATE SET
            incarnation = node.incarnation + 1, hb = node.hb + 1, state = excluded.state,
            process = excluded.process, place = excluded.place, peer_addr = excluded.peer_addr,
            zone = excluded.zone, capacity = excluded.capacity, version = excluded.version,
            revision = excluded.revision, broken = excluded.broken,
            started_at_ms = excluded.started_at_ms, lease_ms = excluded.lease_ms
        RETURNING incarnation),
    mine AS (
        UPDATE shard SET owner_inc = me.incarnation, epoch = epoch + 1 FROM me, old
        WHERE owner = $1 AND owner_inc = old.incarnation AND (old.process = $3 OR old.place = $4)
        RETURNING shard_id, epoch)
    SELECT me.incarnation, mine.shard_id, mine.epoch FROM me LEFT JOIN mine ON true";

const RENEW: &str = "
    UPDATE node SET hb = hb + 1, revision = $4, broken = $5
    WHERE node_id = $1 AND incarnation = $2 AND process = $3 AND state IN ('active', 'draining')
    RETURNING state";

const POLL: &str = "
    SELECT tally.epochs, tally.halted, tally.revision, node.*
    FROM (SELECT coalesce(sum(epoch), 0)::bigint AS epochs, count(halted) AS halted,
                 (SELECT coalesce(max(revision), 0) FROM deployment) AS revision FROM shard) tally
    LEFT JOIN (SELECT node_id, incarnation, hb, state, process, peer_addr, zone, capacity, version,
                      revision AS served, broken, started_at_ms, lease_ms
               FROM node WHERE state <> 'gone') node
    ON true";

const SHARDS: &str = "
    SELECT shard_id, owner, owner_inc, epoch, halted IS NOT NULL AS halted FROM shard ORDER BY shard_id";

const NODE: &str = "
    SELECT node_id, incarnation, hb, state, process, peer_addr, zone, capacity, version,
           revision AS served, broken, started_at_ms, lease_ms FROM node WHERE node_id = $1";

/// Older incarnations are freed too: the node registered again before it had taken them up.
const FENCE: &str = "
    WITH dead AS (
        UPDATE node SET state = 'fenced', incarnation = incarnation + 1
        WHERE node_id = $1 AND incarnation = $2 AND hb = $3 AND state IN ('active', 'draining')
        RETURNING node_id),
    held AS (
        SELECT shard_id FROM shard, dead WHERE owner = dead.node_id AND owner_inc <= $2
        ORDER BY shard_id FOR UPDATE OF shard),
    freed AS (
        UPDATE shard SET owner = NULL, owner_inc = NULL, epoch = epoch + 1 FROM held
        WHERE shard.shard_id = held.shard_id RETURNING 1)
    SELECT (SELECT count(*) FROM dead) AS dead, (SELECT count(*) FROM freed) AS freed";

/// The row stays, for whoever registers again: no incarnation may come twice.
const FORGET: &str = "
    UPDATE node SET state = 'gone'
    WHERE node_id = $1 AND incarnation = $2 AND hb = $3 AND state = 'fenced'
      AND NOT EXISTS (SELECT 1 FROM shard WHERE owner = $1)";

/// A claim or a hand-over that committed while its node was being fenced, unseen by the fencing.
const FREE_ORPHANS: &str = "
    WITH orphan AS (
        SELECT shard_id FROM shard, node
        WHERE owner = node_id AND owner_inc <= incarnation AND state IN ('fenced', 'gone')
        ORDER BY shard_id FOR UPDATE OF shard)
    UPDATE shard SET owner = NULL, owner_inc = NULL, epoch = epoch + 1 FROM orphan, node
    WHERE shard.shard_id = orphan.shard_id AND owner = node_id
      AND owner_inc <= incarnation AND state IN ('fenced', 'gone')";

const CLAIM: &str = "
    WITH me AS (
        SELECT node_id, incarnation FROM node
        WHERE node_id = $1 AND incarnation = $2 AND state = 'active' FOR SHARE),
    free AS (
        SELECT shard_id FROM shard, me WHERE shard_id = ANY($3) AND owner IS NULL AND halted IS NULL
        ORDER BY shard_id FOR UPDATE OF shard SKIP LOCKED)
    UPDATE shard SET owner = me.node_id, owner_inc = me.incarnation, epoch = epoch + 1 FROM free, me
    WHERE shard.shard_id = free.shard_id RETURNING shard.shard_id, shard.epoch";

/// Shards of earlier lives of this node, once those cannot hold a lease any more.
const ADOPT: &str = "
    WITH me AS (
        SELECT node_id, incarnation FROM node
        WHERE node_id = $1 AND incarnation = $2 AND state IN ('active', 'draining') FOR SHARE),
    old AS (
        SELECT shard_id FROM shard, me WHERE owner = me.node_id AND owner_inc < me.incarnation
        ORDER BY shard_id FOR UPDATE OF shard)
    UPDATE shard SET owner_inc = me.incarnation, epoch = epoch + 1 FROM old, me
    WHERE shard.shard_id = old.shard_id RETURNING shard.shard_id, shard.epoch";

const HAND_OVER: &str = "
    WITH target AS (
        SELECT node_id, incarnation FROM node
        WHERE node_id = $4 AND incarnation = $5 AND state = 'active' FOR SHARE)
    UPDATE shard SET owner = target.node_id, owner_inc = target.incarnation, epoch = epoch + 1 FROM target
    WHERE shard_id = $1 AND owner = $2 AND epoch = $3 AND halted IS NULL RETURNING epoch";

const RELEASE: &str = "
    UPDATE shard SET owner = NULL, owner_inc = NULL, epoch = epoch + 1
    WHERE shard_id = $1 AND owner = $2 AND epoch = $3 RETURNING epoch";

const OWNED: &str = "
    SELECT shard_id, epoch FROM shard WHERE shard_id = ANY($3) AND owner = $1 AND owner_inc = $2";

const SET_DRAINING: &str = "
    UPDATE node SET state = $2 WHERE node_id = $1 AND state IN ('active', 'draining')";

/// What a node that is gone owns is free at once, whichever of its lives owns it. One that may not say so
/// yet is declared dead by others, a lease after it registered.
const LEAVE: &str = "
    WITH me AS (
        UPDATE node SET state = 'gone'
        WHERE node_id = $1 AND incarnation = $2 AND process = $3 AND state IN ('active', 'draining')
          AND ($4 OR NOT EXISTS (SELECT 1 FROM shard WHERE owner = $1 AND owner_inc < $2))
        RETURNING node_id),
    held AS (
        SELECT shard_id FROM shard, me WHERE owner = me.node_id ORDER BY shard_id FOR UPDATE OF shard)
    UPDATE shard SET owner = NULL, owner_inc = NULL, epoch = epoch + 1 FROM held
    WHERE shard.shard_id = held.shard_id";

impl Truth {
    /// Connects with the first statement. `name` is what the database shows of the connection.
    pub fn new(mut place: Place, name: &str, statement_max: Duration) -> Self {
        place.options = place.options.application_name(name);
        let backoff = LEASE_BACKOFF_MIN;
        Self { place, connection: None, statement_max, retry_at: None, backoff }
    }

    /// Registers a process under its identity, with the next incarnation: no statement of an earlier one
    /// has an effect from then on. The answer counts as a renewal of the lease.
    pub async fn register(
        &mut self,
        identity: &Identity,
        about: &About,
        state: NodeState,
        serving: &(Revision, Option<String>),
    ) -> Result<Registered, StoreError> {
        let query = sqlx::query(REGISTER)
            .bind(identity.node.0)
            .bind(state.name())
            .bind(identity.process.0)
            .bind(identity.place)
            .bind(about.peer_addr.clone())
            .bind(about.zone.clone())
            .bind(about.capacity as i32)
            .bind(about.version.clone())
            .bind(serving.0.0 as i64)
            .bind(serving.1.clone().unwrap_or_default())
            .bind(about.started_at_ms as i64)
            .bind(about.lease.as_millis() as i64);
        let rows = self.many(query).await?;
        let first = rows.first().ok_or_else(|| unavailable("no answer to the registration"))?;
        let mut shards = Vec::new();
        for row in &rows {
            if row.try_get::<Option<i32>, _>("shard_id").map_err(failed)?.is_some() {
                shards.push(shard_epoch(row)?);
            }
        }
        Ok(Registered {
            incarnation: Incarnation(get::<i64>(first, "incarnation")? as u64),
            shards,
        })
    }

    /// None: this process may not renew under this incarnation.
    pub async fn renew(
        &mut self,
        identity: &Identity,
        incarnation: Incarnation,
        serving: &(Revision, Option<String>),
    ) -> Result<Option<NodeState>, StoreError> {
        let query = sqlx::query(RENEW)
            .bind(identity.node.0)
            .bind(incarnation.0 as i64)
            .bind(identity.process.0)
            .bind(serving.0.0 as i64)
            .bind(serving.1.clone().unwrap_or_default());
        self.rows(query).await?.first().map(state).transpose()
    }

    pub async fn poll(&mut self) -> Result<Polled, StoreError> {
        let rows = self.rows(sqlx::query(POLL)).await?;
        let first = rows.first().ok_or_else(|| unavailable("no answer to the poll"))?;
        let tally = Tally { epochs: get(first, "epochs")?, halted: get(first, "halted")? };
        let revision = Revision(get::<i64>(first, "revision")? as u64);
        let mut nodes = Vec::with_capacity(rows.len());
        for row in &rows {
            if row.try_get::<Option<Vec<u8>>, _>("node_id").map_err(failed)?.is_some() {
                nodes.push(node(row)?);
            }
        }
        Ok(Polled { nodes, tally, revision })
    }

    /// Every shard, by number.
    pub async fn shards(&mut self) -> Result<Vec<ShardRow>, StoreError> {
        self.many(sqlx::query(SHARDS)).await?.iter().map(shard).collect()
    }

    pub async fn node(&mut self, id: NodeId) -> Result<Option<NodeRow>, StoreError> {
        let rows = self.rows(sqlx::query(NODE).bind(id.0)).await?;
        rows.first().map(node).transpose()
    }

    /// Declares a node dead and frees its shards, if its row is still as it was seen.
    pub async fn fence(&mut self, expired: &Expired) -> Result<Fencing, StoreError> {
        let query = sqlx::query(FENCE)
            .bind(expired.node.0)
            .bind(expired.incarnation.0 as i64)
            .bind(expired.hb as i64);
        let rows = self.many(query).await?;
        let row = rows.first().ok_or_else(|| unavailable("no answer to the fencing"))?;
        Ok(Fencing {
            is_ours: get::<i64>(row, "dead")? > 0,
            freed: get::<i64>(row, "freed")? as usize,
        })
    }

    /// Takes a fenced node off the list, if its row is still as it was seen and it owns nothing.
    pub async fn forget(&mut self, fenced: &Expired) -> Result<bool, StoreError> {
        let query = sqlx::query(FORGET)
            .bind(fenced.node.0)
            .bind(fenced.incarnation.0 as i64)
            .bind(fenced.hb as i64);
        Ok(self.affected(query).await? > 0)
    }

    /// Frees what fenced nodes own nevertheless.
    pub async fn free_orphans(&mut self) -> Result<(), StoreError> {
        self.many(sqlx::query(FREE_ORPHANS)).await.map(drop)
    }

    /// Takes those of the shards that are free and not halted. Returns what was taken.
    pub async fn claim(
        &mut self,
        me: NodeId,
        incarnation: Incarnation,
        shards: &[Shard],
    ) -> Result<Vec<(Shard, Epoch)>, StoreError> {
        let query = sqlx::query(CLAIM).bind(me.0).bind(incarnation.0 as i64).bind(numbers(shards));
        self.many(query).await?.iter().map(shard_epoch).collect()
    }

    /// Takes up what earlier incarnations of this node own.
    pub async fn adopt(
        &mut self,
        me: NodeId,
        incarnation: Incarnation,
    ) -> Result<Vec<(Shard, Epoch)>, StoreError> {
        let query = sqlx::query(ADOPT).bind(me.0).bind(incarnation.0 as i64);
        self.many(query).await?.iter().map(shard_epoch).collect()
    }

    /// Makes `to` the owner, if `me` is it under `epoch` and `to` is active under that incarnation.
    /// Returns the new epoch; None: nothing was changed.
    pub async fn hand_over(
        &mut self,
        me: NodeId,
        shard: Shard,
        epoch: Epoch,
        to: (NodeId, Incarnation),
    ) -> Result<Option<Epoch>, StoreError> {
        let query = sqlx::query(HAND_OVER)
            .bind(shard.0 as i32)
            .bind(me.0)
            .bind(epoch.0 as i64)
            .bind(to.0.0)
            .bind(to.1.0 as i64);
        self.rows(query).await?.first().map(epoch_of).transpose()
    }

    /// Frees a shard, if `me` owns it under `epoch`. Returns the new epoch; None: nothing was changed.
    pub async fn release(
        &mut self,
        me: NodeId,
        shard: Shard,
        epoch: Epoch,
    ) -> Result<Option<Epoch>, StoreError> {
        let query = sqlx::query(RELEASE).bind(shard.0 as i32).bind(me.0).bind(epoch.0 as i64);
        self.rows(query).await?.first().map(epoch_of).transpose()
    }

    /// Which of the shards this incarnation of `me` owns, and under which epochs.
    pub async fn owned(
        &mut self,
        me: NodeId,
        incarnation: Incarnation,
        shards: &[Shard],
    ) -> Result<Vec<(Shard, Epoch)>, StoreError> {
        let query = sqlx::query(OWNED).bind(me.0).bind(incarnation.0 as i64).bind(numbers(shards));
        self.rows(query).await?.iter().map(shard_epoch).collect()
    }

    /// False: the store knows no such member.
    pub async fn set_draining(&mut self, node: NodeId, is: bool) -> Result<bool, StoreError> {
        let state = if is { NodeState::Draining } else { NodeState::Active };
        let query = sqlx::query(SET_DRAINING).bind(node.0).bind(state.name());
        Ok(self.affected(query).await? > 0)
    }

    /// Frees whatever the node still owns, and marks it as gone. Changes nothing while earlier lives own
    /// shards, unless they are known to be over.
    pub async fn leave(
        &mut self,
        identity: &Identity,
        incarnation: Incarnation,
        earlier_are_over: bool,
    ) -> Result<(), StoreError> {
        let query = sqlx::query(LEAVE)
            .bind(identity.node.0)
            .bind(incarnation.0 as i64)
            .bind(identity.process.0)
            .bind(earlier_are_over);
        self.affected(query).await.map(drop)
    }

    async fn rows(
        &mut self,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, StoreError> {
        self.rows_within(query, self.statement_max).await
    }

    /// Of a statement that may touch every shard.
    async fn many(
        &mut self,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, StoreError> {
        self.rows_within(query, self.statement_max * 3).await
    }

    async fn rows_within(
        &mut self,
        query: Query<'_, Postgres, PgArguments>,
        max: Duration,
    ) -> Result<Vec<PgRow>, StoreError> {
        let mut connection = self.connection().await?;
        let answer = query.fetch_all(&mut connection);
        let answer = tokio::time::timeout(max, answer).await;
        self.settle(connection, answer)
    }

    async fn affected(
        &mut self,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<u64, StoreError> {
        let mut connection = self.connection().await?;
        let answer = query.execute(&mut connection);
        let answer = tokio::time::timeout(self.statement_max * 3, answer).await;
        Ok(self.settle(connection, answer)?.rows_affected())
    }

    /// Taken out while a statement runs, so that one that is abandoned takes its connection along.
    async fn connection(&mut self) -> Result<PgConnection, StoreError> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        if let Some(at) = self.retry_at {
            tokio::time::sleep_until(at).await;
        }
        let connect = self.place.connect();
        match tokio::time::timeout(self.statement_max, connect).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(self.back_off(failed(error))),
            Err(_) => Err(self.back_off(unavailable("it does not answer in time"))),
        }
    }

    fn settle<T>(
        &mut self,
        connection: PgConnection,
        answer: Result<Result<T, sqlx::Error>, tokio::time::error::Elapsed>,
    ) -> Result<T, StoreError> {
        match answer {
            Ok(Ok(answer)) => {
                self.connection = Some(connection);
                self.retry_at = None;
                self.backoff = LEASE_BACKOFF_MIN;
                Ok(answer)
            }
            // Whatever it was, a new connection knows nothing of it.
            Ok(Err(error)) => Err(self.back_off(failed(error))),
            Err(_) => Err(self.back_off(unavailable("it does not answer in time"))),
        }
    }

    fn back_off(&mut self, error: StoreError) -> StoreError {
        self.retry_at = Some(clock::now() + self.backoff);
        self.backoff = (self.backoff * 2).min(LEASE_BACKOFF_MAX);
        error
    }
}

fn numbers(shards: &[Shard]) -> Vec<i32> {
    shards.iter().map(|shard| shard.0 as i32).collect()
}

fn failed(error: sqlx::Error) -> StoreError {
    unavailable(&error.to_string())
}

fn unavailable(reason: &str) -> StoreError {
    StoreError::Unavailable { reason: reason.into() }
}

fn get<'r, T>(row: &'r PgRow, column: &'static str) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>,
{
    row.try_get(column).map_err(failed)
}

fn bytes16(row: &PgRow, column: &'static str) -> Result<[u8; 16], StoreError> {
    let bytes: &[u8] = get(row, column)?;
    bytes.try_into().map_err(|_| unavailable("a row holds an identity that is none"))
}

fn state(row: &PgRow) -> Result<NodeState, StoreError> {
    NodeState::parse(get(row, "state")?).ok_or_else(|| unavailable("a node's state is unknown"))
}

fn node(row: &PgRow) -> Result<NodeRow, StoreError> {
    let broken: Arc<str> = get::<&str>(row, "broken")?.into();
    let lease_ms: Option<i64> = row.try_get("lease_ms").map_err(failed)?;
    Ok(NodeRow {
        id: NodeId(bytes16(row, "node_id")?),
        incarnation: Incarnation(get::<i64>(row, "incarnation")? as u64),
        hb: get::<i64>(row, "hb")? as u64,
        state: state(row)?,
        process: Process(bytes16(row, "process")?),
        peer_addr: get::<&str>(row, "peer_addr")?.parse().ok(),
        zone: get::<&str>(row, "zone")?.into(),
        capacity: get::<i32>(row, "capacity")?.max(0) as u32,
        version: get::<&str>(row, "version")?.into(),
        revision: Revision(get::<i64>(row, "served")? as u64),
        broken: (!broken.is_empty()).then_some(broken),
        started_at_ms: get::<i64>(row, "started_at_ms")? as u64,
        lease: lease_ms.map(|ms| Duration::from_millis(ms.max(0) as u64)),
    })
}

fn shard(row: &PgRow) -> Result<ShardRow, StoreError> {
    let owner: Option<&[u8]> = row.try_get("owner").map_err(failed)?;
    let owner = match owner {
        Some(_) => {
            let by = Incarnation(get::<i64>(row, "owner_inc")? as u64);
            Some((NodeId(bytes16(row, "owner")?), by))
        }
        None => None,
    };
    let (shard, epoch) = shard_epoch(row)?;
    Ok(ShardRow { shard, owner, epoch, is_halted: get(row, "halted")? })
}

fn shard_epoch(row: &PgRow) -> Result<(Shard, Epoch), StoreError> {
    Ok((Shard(get::<i32>(row, "shard_id")? as u32), epoch_of(row)?))
}

fn epoch_of(row: &PgRow) -> Result<Epoch, StoreError> {
    Ok(Epoch(get::<i64>(row, "epoch")? as u64))
}
