//! One partition of the feed, as one group reads it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::consumer::page::{self, Event, Run};
use crate::consumer::subscription::Subscription;
use crate::consumer::target::{self, Ran};
use crate::entity::Caller;
use crate::journal::{
    Chore, Consumed, Fence, Journal, Laggard, Partition, RowChange, StoreError, Task,
};
use crate::words::telemetry::{ConsumerMetrics, GroupLabels};
use crate::words::{Address, Seq, clock, limits};

/// Where a group is in a partition.
pub struct Position {
    pub partition: Partition,
    pub fence: Fence,
    /// Everything below is consumed, but for laggards.
    pub off: u64,
    /// Whether the store has a position of the group in this partition.
    pub is_stored: bool,
    /// A group that begins in the middle must have that stored before anything comes.
    pub is_begun: bool,
    pub laggards: BTreeMap<Address, Laggard>,
    /// The news of the partition when it was read to its end; none: not yet.
    pub at_end: Option<u64>,
    /// After a fault of the store or the journal: not before.
    pub retry_at: Option<clock::Instant>,
    pub failures: u32,
}

/// What a step came to.
pub enum Step {
    /// There may be more at once.
    More,
    /// There was nothing to do.
    End,
    /// What is stored is not what this node took it for: it must be read again.
    Lost,
    /// So much fails that going on would leave everything behind.
    Stuck(String),
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    pub subscription: Subscription,
    pub caller: Arc<dyn Caller>,
    pub journal: Journal,
    pub metrics: ConsumerMetrics,
}

impl Reader {
    /// Consumes the next page. `news`: of the partition, taken before.
    pub async fn next_page(&self, position: &mut Position, news: u64) -> Result<Step, StoreError> {
        let page = self
            .journal
            .feed(
                position.partition,
                position.off,
                limits::FEED_PAGE_EVENTS,
                limits::FEED_PAGE_BYTES,
            )
            .await?;
        if page.next_off == position.off {
            position.at_end = Some(news);
            return Ok(self.forget_recovered(position).await);
        }
        let mut runs = page::by_entity(&self.subscription.log, page.entries);
        runs.retain_mut(|run| position.takes(run));
        let ran = self.consume(runs).await;
        let mut consumed = Change::default();
        for ran in ran {
            consumed.add(position, ran);
        }
        if position.laggards.len() + consumed.laggards.len() > limits::LAGGARDS_MAX
            && let Some(laggard) = consumed.laggards.first()
        {
            return Ok(Step::Stuck(laggard.error.clone()));
        }
        Ok(self.store(position, page.next_off, consumed).await)
    }

    /// Stores where the group begins.
    pub async fn begin(&self, position: &mut Position) -> Step {
        self.store(position, position.off, Change::default()).await
    }

    /// Begins again at a place; whatever lags behind is forgotten.
    pub async fn begin_at(&self, position: &mut Position, off: u64) -> Step {
        let caught_up = position.laggards.keys().cloned().collect();
        position.at_end = None;
        position.retry_at = None;
        self.store(position, off, Change { caught_up, ..Change::default() }).await
    }

    /// Goes on behind an event that fails. An error is the number of the event that does.
    pub async fn skip(
        &self,
        position: &mut Position,
        address: &Address,
        seq: Seq,
    ) -> Result<Step, Seq> {
        let Some(laggard) = position.laggards.get(address) else { return Err(Seq::ZERO) };
        if laggard.next != seq || is_recovered(laggard) {
            return Err(laggard.next);
        }
        let laggard = Laggard { next: seq.plus(1), tries: 1, due_ms: 0, ..laggard.clone() };
        let change = Change { laggards: vec![laggard], ..Change::default() };
        Ok(self.store(position, position.off, change).await)
    }

    async fn consume(&self, runs: Vec<Run>) -> Vec<Ran> {
        let events: usize = runs.iter().map(|run| run.events.len()).sum();
        let ran = target::consume(&self.subscription, &self.caller, &self.journal, runs).await;
        let left: usize = ran.iter().map(|ran| ran.left).sum();
        let labels = GroupLabels { group: self.subscription.group.clone() };
        self.metrics.consumed.get_or_create(&labels).inc_by((events - left) as u64);
        let faults = ran.iter().filter(|ran| ran.fault.is_some()).count();
        if faults > 0 {
            self.metrics.faults.get_or_create(&labels).inc_by(faults as u64);
        }
        ran
    }

    /// Tries what lags behind and is due.
    pub async fn retry(&self, position: &mut Position) -> Result<Step, StoreError> {
        let now_ms = clock::unix_ms();
        let due: Vec<(Address, Seq)> = position
            .laggards
            .iter()
            .filter(|(_, laggard)| !is_recovered(laggard) && laggard.due_ms <= now_ms)
            .take(limits::LAGGARDS_TRIED_AT_ONCE)
            .map(|(address, laggard)| (address.clone(), laggard.next))
            .collect();
        if due.is_empty() {
            return Ok(Step::End);
        }
        let mut runs = Vec::new();
        let mut more = Vec::new();
        for (address, next) in due {
            let (limit, bytes) = (limits::LAGGARD_PAGE_EVENTS, limits::FEED_PAGE_BYTES);
            let page = self.journal.events(&address, next, limit, bytes).await?;
            if page.more {
                more.push(address.clone());
            }
            let events = page.events.into_iter().map(|stored| Event {
                seq: stored.seq,
                at_ms: stored.at_ms,
                event: stored.event,
            });
            runs.push(Run { address, events: events.collect() });
        }
        let tried: BTreeMap<Address, Seq> =
            runs.iter().map(|run| (run.address.clone(), first(run))).collect();
        let ran = self.consume(runs).await;
        let mut change = Change::default();
        for ran in ran {
            let started = tried.get(&ran.address).copied().unwrap_or(ran.next);
            change.rows.extend(ran.row);
            change.retried(position, ran.address, started, ran.next, ran.fault, &more);
        }
        Ok(self.store(position, position.off, change).await)
    }

    /// Entities that have caught up, and of which the feed has nothing more: events that come from now on
    /// follow what was consumed.
    async fn forget_recovered(&self, position: &mut Position) -> Step {
        let recovered = position.laggards.values().filter(|laggard| is_recovered(laggard));
        let caught_up: Vec<Address> = recovered.map(|laggard| laggard.address.clone()).collect();
        if caught_up.is_empty() {
            return Step::End;
        }
        let change = Change { caught_up, ..Change::default() };
        match self.store(position, position.off, change).await {
            Step::More => Step::End,
            other @ (Step::End | Step::Lost | Step::Stuck(_)) => other,
        }
    }

    async fn store(&self, position: &mut Position, off: u64, change: Change) -> Step {
        let Change { laggards, caught_up, rows } = change;
        let task = Task::Consumed(Consumed {
            group: self.subscription.group.to_string(),
            partition: position.partition,
            expected_off: if position.is_stored { position.off } else { 0 },
            off,
            laggards: laggards.clone(),
            caught_up: caught_up.clone(),
            rows,
        });
        let commit = self.journal.chore(Chore { fence: position.fence, task });
        if commit.wait().await.is_err() {
            return Step::Lost;
        }
        position.off = off;
        position.is_stored = true;
        position.is_begun = true;
        for laggard in laggards {
            position.laggards.insert(laggard.address.clone(), laggard);
        }
        for address in caught_up {
            position.laggards.remove(&address);
        }
        Step::More
    }
}

fn first(run: &Run) -> Seq {
    run.events.first().map_or(Seq(1), |event| event.seq)
}

impl Position {
    /// Whether a page's events of an entity are to be consumed now; takes away those that were.
    fn takes(&self, run: &mut Run) -> bool {
        match self.laggards.get(&run.address) {
            None => true,
            Some(laggard) if is_recovered(laggard) => {
                run.events.retain(|event| event.seq >= laggard.next);
                !run.events.is_empty()
            }
            // All of its events are read from its journal, one after the other.
            Some(_) => false,
        }
    }

    fn waiting(&self) -> impl Iterator<Item = &Laggard> {
        self.laggards.values().filter(|laggard| !is_recovered(laggard))
    }

    /// How many entities lag behind.
    pub fn lagging(&self) -> usize {
        self.waiting().count()
    }

    /// When the next laggard is due, milliseconds since 1970.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.waiting().map(|laggard| laggard.due_ms).min()
    }

    pub fn is_due(&self) -> bool {
        self.next_due_ms().is_some_and(|due| due <= clock::unix_ms())
    }
}

/// It has caught up with its journal; what the feed still has of that is to be passed over.
fn is_recovered(laggard: &Laggard) -> bool {
    laggard.tries == 0
}

/// What a step changes.
#[derive(Default)]
struct Change {
    laggards: Vec<Laggard>,
    caught_up: Vec<Address>,
    rows: Vec<RowChange>,
}

impl Change {
    fn add(&mut self, position: &Position, ran: Ran) {
        self.rows.extend(ran.row);
        match ran.fault {
            Some(error) => self.laggards.push(lag(position, ran.address, ran.next, 1, error)),
            None if position.laggards.contains_key(&ran.address) => {
                self.caught_up.push(ran.address);
            }
            None => {}
        }
    }

    fn retried(
        &mut self,
        position: &Position,
        address: Address,
        started: Seq,
        next: Seq,
        fault: Option<String>,
        more: &[Address],
    ) {
        let before = position.laggards.get(&address);
        let laggard = match fault {
            Some(error) => {
                // An event that went through begins the count again.
                let tries = match next > started {
                    true => 1,
                    false => before.map_or(1, |laggard| laggard.tries.saturating_add(1)),
                };
                lag(position, address, next, tries, error)
            }
            None => {
                // While there is more, it stays one that lags, and is due.
                let tries = u32::from(more.contains(&address));
                let (due_ms, error, partition) = (0, String::new(), position.partition);
                Laggard { partition, address, next, tries, due_ms, error, parked: false }
            }
        };
        self.laggards.push(laggard);
    }
}

fn lag(position: &Position, address: Address, next: Seq, tries: u32, mut error: String) -> Laggard {
    error.truncate(error.floor_char_boundary(limits::LAGGARD_ERROR_BYTES_MAX));
    let wait = backoff(tries).as_millis() as u64;
    tracing::warn!(%address, event = %next, tries, wait_ms = wait, error, "an event could not be consumed");
    let (partition, due_ms) = (position.partition, clock::unix_ms() + wait);
    Laggard { partition, address, next, tries, due_ms, error, parked: false }
}

/// After the first failure a second, then twice as long each time.
fn backoff(tries: u32) -> Duration {
    let doubled = limits::LAGGARD_BACKOFF_MIN.saturating_mul(1 << tries.saturating_sub(1).min(20));
    doubled.min(limits::LAGGARD_BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_keeps_failing_is_tried_later_and_later() {
        assert_eq!(backoff(1), limits::LAGGARD_BACKOFF_MIN);
        assert_eq!(backoff(2), limits::LAGGARD_BACKOFF_MIN * 2);
        assert_eq!(backoff(u32::MAX), limits::LAGGARD_BACKOFF_MAX);
    }
}
