//! The task of one group on this node: reads the partitions whose shards are held here.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{self, JoinError, JoinSet};

use crate::consumer::orders::Order;
use crate::consumer::partition::{Position, Reader, Step};
use crate::consumer::subscription::Subscription;
use crate::entity::Caller;
use crate::journal::{Fence, GroupPosition, Journal, Laggard, Partition, StoreError};
use crate::registry::Start;
use crate::words::telemetry::{GroupLabels, Metrics};
use crate::words::{Address, Epoch, Shard, clock, limits};

/// Where the feed begins.
const FIRST: u64 = 1;

pub fn by_partition(positions: Vec<GroupPosition>) -> HashMap<Partition, u64> {
    positions.into_iter().map(|position| (position.partition, position.off)).collect()
}

pub struct Group {
    pub subscription: watch::Receiver<Subscription>,
    pub caller: Arc<dyn Caller>,
    pub journal: Journal,
    pub metrics: Metrics,
    /// What operators decide.
    pub orders: mpsc::Receiver<Order>,
}

/// What a node without a cluster has instead of shards.
const ONLY: (Partition, Shard) = (Partition(0), Shard(0));

/// Positions: those that rest, and those that a step is working on.
#[derive(Default)]
struct Positions {
    resting: HashMap<Partition, Position>,
    /// Tasks: they hold connections, and go on while the group waits for one.
    working: JoinSet<(Position, Next)>,
    at_work: HashMap<Partition, task::Id>,
}

impl Group {
    pub async fn run(mut self) {
        let mut positions = Positions::default();
        let mut news = self.journal.feed_news().watch();
        loop {
            news.mark_unchanged();
            if let Err(error) = self.follow(&mut positions).await {
                let group = &*self.subscription.borrow().group.clone();
                tracing::warn!(group, %error, "the positions of a group cannot be read yet");
                tokio::time::sleep(limits::CONSUMER_RETRY_AFTER).await;
                continue;
            }
            self.begin_steps(&mut positions);
            self.gauge(&positions);
            let wait = wait(&positions.resting);
            tokio::select! {
                Some(ended) = positions.working.join_next() => positions.end_step(ended),
                changed = news.changed() => if changed.is_err() { return },
                changed = self.subscription.changed() => if changed.is_err() { return },
                order = self.orders.recv() => {
                    let Some(order) = order else { return };
                    while let Some(ended) = positions.working.join_next().await {
                        positions.end_step(ended);
                    }
                    self.obey(&mut positions.resting, order).await;
                }
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    pub fn reader(&self) -> Reader {
        let subscription = self.subscription.borrow().clone();
        Reader {
            subscription,
            caller: self.caller.clone(),
            journal: self.journal.clone(),
            metrics: self.metrics.consumers.clone(),
        }
    }

    /// Takes up partitions that have come, and leaves those that have gone.
    async fn follow(&self, positions: &mut Positions) -> Result<(), StoreError> {
        let held = self.held();
        let Positions { resting, at_work, .. } = positions;
        resting.retain(|partition, position| held.get(partition) == Some(&position.fence));
        let new: Vec<(Partition, Fence)> = held
            .into_iter()
            .filter(|(at, _)| !resting.contains_key(at) && !at_work.contains_key(at))
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        let subscription = self.subscription.borrow().clone();
        let group = &*subscription.group;
        let stored: HashMap<Partition, u64> =
            by_partition(self.journal.group_positions(group).await?);
        let partitions: Vec<Partition> = new.iter().map(|(partition, _)| *partition).collect();
        let mut laggards: HashMap<Partition, BTreeMap<Address, Laggard>> = HashMap::new();
        let laggards_max = partitions.len() * limits::LAGGARDS_MAX;
        for laggard in self.journal.laggards(group, &partitions, laggards_max).await? {
            let of = laggards.entry(laggard.partition).or_default();
            of.insert(laggard.address.clone(), laggard);
        }
        let begins_now = subscription.start == Start::Now
            && partitions.iter().any(|partition| !stored.contains_key(partition));
        let ends: HashMap<Partition, u64> = match begins_now {
            true => by_partition(self.journal.feed_ends().await?),
            false => HashMap::new(),
        };
        for (partition, fence) in new {
            let off = stored.get(&partition).or(ends.get(&partition)).copied().unwrap_or(FIRST);
            let laggards = laggards.remove(&partition).unwrap_or_default();
            let position = Position {
                partition,
                fence,
                off,
                is_stored: stored.contains_key(&partition),
                is_begun: stored.contains_key(&partition) || off == FIRST,
                laggards,
                at_end: None,
                retry_at: None,
                failures: 0,
            };
            resting.insert(partition, position);
        }
        Ok(())
    }

    fn held(&self) -> HashMap<Partition, Fence> {
        let holdings = self.journal.holdings();
        if holdings.is_alone() {
            let epoch = holdings.epoch(ONLY.1).unwrap_or(Epoch(0));
            return HashMap::from([(ONLY.0, Fence { shard: ONLY.1, epoch })]);
        }
        let held = holdings.held().into_iter();
        let open = held.filter(|(shard, _)| !holdings.is_closing(*shard));
        open.map(|(shard, epoch)| (Partition(shard.0), Fence { shard, epoch })).collect()
    }

    /// Begins a step for partitions that have something to do, so many at once.
    fn begin_steps(&self, positions: &mut Positions) {
        let free = limits::PARTITIONS_CONSUMED_AT_ONCE.saturating_sub(positions.working.len());
        if free == 0 {
            return;
        }
        let news = self.journal.feed_news();
        let now = clock::now();
        let is_ready = |position: &Position| {
            let has_news = position.at_end != Some(news.of(position.partition));
            let has_work = has_news || !position.is_begun || position.is_due();
            has_work && position.retry_at.is_none_or(|at| at <= now)
        };
        let ready = positions.resting.values().filter(|position| is_ready(position));
        let ready: Vec<Partition> = ready.map(|position| position.partition).take(free).collect();
        for partition in ready {
            let Some(position) = positions.resting.remove(&partition) else { continue };
            let news = news.of(partition);
            let work = positions.working.spawn(work(self.reader(), position, news));
            positions.at_work.insert(partition, work.id());
        }
    }

    fn gauge(&self, positions: &Positions) {
        let lagging: usize = positions.resting.values().map(Position::lagging).sum();
        let group = self.subscription.borrow().group.clone();
        self.metrics.consumers.laggards.get_or_create(&GroupLabels { group }).set(lagging as i64);
    }
}

impl Positions {
    fn end_step(&mut self, ended: Result<(Position, Next), JoinError>) {
        match ended {
            Ok((position, next)) => {
                self.at_work.remove(&position.partition);
                if next == Next::Rest {
                    self.resting.insert(position.partition, position);
                }
            }
            // Its partition is taken up again, from where the store says.
            Err(error) => {
                tracing::error!(%error, "a step of a group ended without a result");
                self.at_work.retain(|_, task| *task != error.id());
            }
        }
    }
}

/// Steps of one partition, until there is nothing more to do at once, or it is others' turn.
async fn work(reader: Reader, mut position: Position, mut news: u64) -> (Position, Next) {
    for _ in 0..limits::CONSUMER_STEPS_AT_ONCE {
        let result = step(&reader, &mut position, news).await;
        match judge(&reader.subscription.group, &mut position, result) {
            Some(next) => return (position, next),
            None => news = reader.journal.feed_news().of(position.partition),
        }
    }
    (position, Next::Rest)
}

#[derive(PartialEq, Eq)]
enum Next {
    Rest,
    /// Read it from the store again.
    Forget,
}

async fn step(reader: &Reader, position: &mut Position, news: u64) -> Result<Step, StoreError> {
    if !position.is_begun
        && let step @ (Step::Lost | Step::Stuck(_)) = reader.begin(position).await
    {
        return Ok(step);
    }
    let retried = reader.retry(position).await?;
    if matches!(retried, Step::Lost | Step::Stuck(_)) {
        return Ok(retried);
    }
    if position.at_end == Some(news) {
        return Ok(retried);
    }
    reader.next_page(position, news).await
}

/// None: go on at once.
fn judge(group: &str, position: &mut Position, result: Result<Step, StoreError>) -> Option<Next> {
    let reason = match result {
        Ok(Step::More) => {
            position.failures = 0;
            return None;
        }
        Ok(Step::End) => {
            position.failures = 0;
            return Some(Next::Rest);
        }
        Ok(Step::Lost) => return Some(Next::Forget),
        Ok(Step::Stuck(reason)) => reason,
        Err(error) => error.to_string(),
    };
    position.failures = position.failures.saturating_add(1);
    let doubled = limits::CONSUMER_RETRY_AFTER * (1 << position.failures.min(8));
    let wait = doubled.min(limits::CONSUMER_RETRY_AFTER_MAX);
    position.retry_at = Some(clock::now() + wait);
    tracing::warn!(
        group,
        partition = position.partition.0,
        reason,
        ?wait,
        "a group makes no progress"
    );
    Some(Next::Rest)
}

/// Until something may be due.
fn wait(positions: &HashMap<Partition, Position>) -> Duration {
    let now_ms = clock::unix_ms();
    let due = positions.values().filter_map(Position::next_due_ms).min();
    let due = due.map(|due| Duration::from_millis(due.saturating_sub(now_ms)));
    due.unwrap_or(limits::CONSUMER_TICK).clamp(Duration::from_millis(10), limits::CONSUMER_TICK)
}
