//! What operators decide about a group: to begin again, or to go on behind an event.

use std::collections::HashMap;

use tokio::sync::oneshot;

use crate::consumer::group::{Group, by_partition};
use crate::consumer::partition::{Position, Step};
use crate::journal::{Partition, StoreError};
use crate::registry::Start;
use crate::words::{Address, Seq, Status};

pub enum Order {
    /// In all partitions, if none is named.
    Reset {
        to: Start,
        partitions: Vec<Partition>,
        done: oneshot::Sender<Result<Vec<Partition>, Status>>,
    },
    Skip {
        address: Address,
        seq: Seq,
        done: oneshot::Sender<Result<(), Status>>,
    },
}

impl Group {
    pub async fn obey(&self, positions: &mut HashMap<Partition, Position>, order: Order) {
        // Whoever gave the order may have gone away.
        match order {
            Order::Reset { to, partitions, done } => {
                let _ = done.send(self.reset(positions, to, &partitions).await);
            }
            Order::Skip { address, seq, done } => {
                let _ = done.send(self.skip(positions, &address, seq).await);
            }
        }
    }

    /// Of the partitions that this node reads. Returns which these are.
    async fn reset(
        &self,
        positions: &mut HashMap<Partition, Position>,
        to: Start,
        partitions: &[Partition],
    ) -> Result<Vec<Partition>, Status> {
        let reader = self.reader();
        let ends = match to {
            Start::Beginning => HashMap::new(),
            Start::Now => by_partition(self.journal.feed_ends().await.map_err(unreadable)?),
        };
        let mut is_lost = false;
        let mut reset = Vec::new();
        for position in positions.values_mut() {
            let partition = position.partition;
            if partitions.is_empty() || partitions.contains(&partition) {
                let off = ends.get(&partition).copied().unwrap_or(1);
                is_lost |= matches!(reader.begin_at(position, off).await, Step::Lost);
                reset.push(partition);
            }
        }
        let from = match to {
            Start::Beginning => "the beginning",
            Start::Now => "now",
        };
        tracing::warn!(
            group = &*reader.subscription.group,
            from,
            "an operator made a group begin again"
        );
        if is_lost {
            positions.clear();
            return Err(Status::unavailable("some partitions could not be reset; a retry is safe"));
        }
        Ok(reset)
    }

    async fn skip(
        &self,
        positions: &mut HashMap<Partition, Position>,
        address: &Address,
        seq: Seq,
    ) -> Result<(), Status> {
        let reader = self.reader();
        let holder = positions.values_mut().find(|p| p.laggards.contains_key(address));
        let Some(position) = holder else {
            return Err(Status::failed_precondition(format!(
                "{address} does not lag behind in {}; nothing was skipped",
                reader.subscription.group
            )));
        };
        match reader.skip(position, address, seq).await {
            Ok(Step::Lost) => {
                positions.clear();
                Err(Status::unavailable("the decision could not be stored; a retry is safe"))
            }
            Ok(Step::More | Step::End | Step::Stuck(_)) => {
                tracing::warn!(
                    group = &*reader.subscription.group, %address, event = %seq,
                    "an operator had an event skipped: the group never consumes it"
                );
                Ok(())
            }
            Err(next) => Err(Status::failed_precondition(format!(
                "the event of {address} that fails is {next}, not {seq}; nothing was skipped"
            ))),
        }
    }
}

fn unreadable(error: StoreError) -> Status {
    Status::unavailable(format!("the feed cannot be read; a retry is safe: {error}"))
}
