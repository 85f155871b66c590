//! Copies everything that a store holds into an empty one, and compares the two.
//!
//! Modules and revisions come last: until then a node that starts on the copy serves nothing.

use crate::journal::error::StoreError;
use crate::journal::store::{EntityFilter, EntitySummary, Fence, Receipt, Store, Write};
use crate::words::limits::{
    COMMIT_BYTES_MAX, COMMIT_ROWS_MAX, LIST_PAGE_MAX, REPLAY_BATCH_BYTES, REPLAY_BATCH_EVENTS,
};
use crate::words::{Address, Seq};

/// How much there is to copy, or was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub entities: u64,
    pub events: u64,
    pub snapshots: u64,
    /// Records of idempotency keys that have not expired.
    pub receipts: u64,
    pub modules: u64,
    pub revisions: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Copying,
    Verifying,
}

/// Why a copy is not complete. The target must not be used.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("the source cannot be read: {0}")]
    Source(StoreError),
    #[error("the target cannot be written: {0}")]
    Target(StoreError),
    /// A node started, and took shards.
    #[error("a node has started on the target; stop it, and copy into a new database")]
    Fenced,
    #[error("{what} differs between source and target; copy again, into a new database")]
    Different { what: String },
}

/// Whether a store holds nothing at all.
pub async fn is_empty(store: &impl Store) -> Result<bool, StoreError> {
    let first = EntityFilter { limit: 1, ..EntityFilter::default() };
    Ok(store.entities(&first).await?.entities.is_empty()
        && store.receipts(None, 0, 1).await?.is_empty()
        && store.modules().await?.is_empty()
        && store.deployments().await?.is_empty())
}

/// How many entities a store has.
pub async fn count_entities(store: &impl Store) -> Result<u64, StoreError> {
    let mut count = 0;
    let mut filter = EntityFilter { limit: LIST_PAGE_MAX, ..EntityFilter::default() };
    loop {
        let page = store.entities(&filter).await?;
        count += page.entities.len() as u64;
        filter.after = page.entities.last().map(address);
        if !page.more {
            return Ok(count);
        }
    }
}

/// Copies and verifies. `fence` gives the right to write an entity of the target; `told` hears of each
/// entity that is done.
pub async fn copy<S: Store, T: Store>(
    source: &S,
    target: &T,
    fence: impl Fn(&Address) -> Fence,
    now_ms: u64,
    mut told: impl FnMut(Step),
) -> Result<Counts, CopyError> {
    let lanes = (0..target.lanes()).map(|_| Batch::default()).collect();
    let mut copy = Copy { source, target, fence, lanes, counts: Counts::default() };
    copy.for_entities(async |copy, address| {
        copy.entity(&address).await?;
        copy.counts.entities += 1;
        told(Step::Copying);
        Ok(())
    })
    .await?;
    copy.flush_all().await?;
    copy.receipts(now_ms).await?;
    copy.flush_all().await?;
    copy.for_entities(async |copy, address| {
        copy.compare(&address).await?;
        told(Step::Verifying);
        Ok(())
    })
    .await?;
    copy.compare_receipts(now_ms).await?;
    if count_entities(target).await.map_err(CopyError::Target)? != copy.counts.entities {
        return Err(different("the number of entities"));
    }
    copy.catalogue().await?;
    Ok(copy.counts)
}

#[derive(Default)]
struct Batch {
    writes: Vec<Write>,
    rows: usize,
    bytes: usize,
}

struct Copy<'a, S, T, F> {
    source: &'a S,
    target: &'a T,
    fence: F,
    lanes: Vec<Batch>,
    counts: Counts,
}

impl<S: Store, T: Store, F: Fn(&Address) -> Fence> Copy<'_, S, T, F> {
    async fn for_entities(
        &mut self,
        mut each: impl AsyncFnMut(&mut Self, Address) -> Result<(), CopyError>,
    ) -> Result<(), CopyError> {
        let mut filter = EntityFilter { limit: LIST_PAGE_MAX, ..EntityFilter::default() };
        loop {
            let page = self.source.entities(&filter).await.map_err(CopyError::Source)?;
            filter.after = page.entities.last().map(address);
            for entity in &page.entities {
                each(self, address(entity)).await?;
            }
            if !page.more {
                return Ok(());
            }
        }
    }

    async fn entity(&mut self, address: &Address) -> Result<(), CopyError> {
        let loaded = self.source.load(address, None).await.map_err(CopyError::Source)?;
        let mut from = Seq(1);
        loop {
            let page = self.source.events(address, from, REPLAY_BATCH_EVENTS, REPLAY_BATCH_BYTES);
            let page = page.await.map_err(CopyError::Source)?;
            from = from.plus(page.events.len());
            for stored in page.events {
                let after = Seq(stored.seq.0 - 1);
                let snapshot = loaded.snapshot.as_ref().filter(|kept| kept.seq == stored.seq);
                self.counts.events += 1;
                self.counts.snapshots += u64::from(snapshot.is_some());
                let mut write = self.write(address, after, stored.at_ms);
                write.events.push(stored.event);
                write.snapshot = snapshot.map(|kept| kept.state.clone());
                self.queue(write).await?;
            }
            if !page.more {
                return Ok(());
            }
        }
    }

    async fn receipts(&mut self, now_ms: u64) -> Result<(), CopyError> {
        let mut after: Option<(Address, Receipt)> = None;
        loop {
            let page = self.source.receipts(after.as_ref().map(place), now_ms, LIST_PAGE_MAX);
            let page = page.await.map_err(CopyError::Source)?;
            let Some(last) = page.last().cloned() else { return Ok(()) };
            after = Some(last);
            for (address, receipt) in page {
                let loaded = self.source.load(&address, None).await.map_err(CopyError::Source)?;
                let mut write = self.write(&address, loaded.seq, now_ms);
                write.receipt = Some(receipt);
                self.queue(write).await?;
                self.counts.receipts += 1;
            }
        }
    }

    fn write(&self, address: &Address, after: Seq, at_ms: u64) -> Write {
        Write::new(address.clone(), (self.fence)(address), after, at_ms)
    }

    async fn queue(&mut self, write: Write) -> Result<(), CopyError> {
        let lane = write.fence.shard.0 as usize % self.lanes.len();
        let batch = &mut self.lanes[lane];
        batch.rows += write.rows();
        batch.bytes += write.bytes();
        batch.writes.push(write);
        if batch.rows >= COMMIT_ROWS_MAX || batch.bytes >= COMMIT_BYTES_MAX {
            self.flush(lane).await?;
        }
        Ok(())
    }

    async fn flush(&mut self, lane: usize) -> Result<(), CopyError> {
        let batch = std::mem::take(&mut self.lanes[lane]);
        if batch.writes.is_empty() {
            return Ok(());
        }
        match self.target.commit(&batch.writes, &[]).await.map_err(CopyError::Target)?.is_empty() {
            true => Ok(()),
            false => Err(CopyError::Fenced),
        }
    }

    async fn flush_all(&mut self) -> Result<(), CopyError> {
        for lane in 0..self.lanes.len() {
            self.flush(lane).await?;
        }
        Ok(())
    }

    async fn compare(&self, address: &Address) -> Result<(), CopyError> {
        let source = self.source.load(address, None).await.map_err(CopyError::Source)?;
        let target = self.target.load(address, None).await.map_err(CopyError::Target)?;
        if (source.seq, source.snapshot) != (target.seq, target.snapshot) {
            return Err(different(&format!("the newest event or snapshot of {address}")));
        }
        let mut from = Seq(1);
        loop {
            let page = self.source.events(address, from, REPLAY_BATCH_EVENTS, REPLAY_BATCH_BYTES);
            let page = page.await.map_err(CopyError::Source)?;
            // Pages of two stores may end at different events.
            let mut copied = Vec::new();
            while copied.len() < page.events.len() {
                let rest = page.events.len() - copied.len();
                let next = from.plus(copied.len());
                let found = self.target.events(address, next, rest, REPLAY_BATCH_BYTES).await;
                let found = found.map_err(CopyError::Target)?;
                if found.events.is_empty() {
                    break;
                }
                copied.extend(found.events);
            }
            if copied != page.events {
                return Err(different(&format!("the journal of {address}")));
            }
            from = from.plus(page.events.len());
            if !page.more {
                return Ok(());
            }
        }
    }

    async fn compare_receipts(&self, now_ms: u64) -> Result<(), CopyError> {
        let mut after: Option<(Address, Receipt)> = None;
        loop {
            let place = after.as_ref().map(place);
            let source = self.source.receipts(place, now_ms, LIST_PAGE_MAX).await;
            let target = self.target.receipts(place, now_ms, LIST_PAGE_MAX).await;
            let source = source.map_err(CopyError::Source)?;
            if source != target.map_err(CopyError::Target)? {
                return Err(different("the records of idempotency keys"));
            }
            let Some(last) = source.last().cloned() else { return Ok(()) };
            after = Some(last);
        }
    }

    async fn catalogue(&mut self) -> Result<(), CopyError> {
        for record in self.source.modules().await.map_err(CopyError::Source)? {
            let module = self.source.module(&record.digest).await.map_err(CopyError::Source)?;
            let Some((record, bytes)) = module else {
                return Err(different(&format!("module {}", record.digest)));
            };
            self.target.put_module(&record, &bytes).await.map_err(CopyError::Target)?;
            let copied = self.target.module(&record.digest).await.map_err(CopyError::Target)?;
            if copied.is_none_or(|copied| copied != (record.clone(), bytes)) {
                return Err(different(&format!("module {}", record.digest)));
            }
            self.counts.modules += 1;
        }
        let deployments = self.source.deployments().await.map_err(CopyError::Source)?;
        for record in &deployments {
            self.target.put_deployment(record).await.map_err(CopyError::Target)?;
            self.counts.revisions += 1;
        }
        match self.target.deployments().await.map_err(CopyError::Target)? == deployments {
            true => Ok(()),
            false => Err(different("the list of revisions")),
        }
    }
}

fn address(entity: &EntitySummary) -> Address {
    Address { journal: entity.journal.clone(), id: entity.id.clone() }
}

fn place(last: &(Address, Receipt)) -> (&Address, &str) {
    (&last.0, &last.1.key)
}

fn different(what: &str) -> CopyError {
    CopyError::Different { what: what.into() }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::journal::memory::MemoryStore;
    use crate::journal::postgres::tests::open;
    use crate::journal::sqlite::SqliteStore;
    use crate::journal::store::{DeploymentRecord, ModuleRecord};
    use crate::journal::{conformance, postgres};
    use crate::words::{Digest, Message, Revision};

    async fn fill(store: &impl Store) -> Counts {
        let receipt = |key: &str, expires_at_ms| Receipt {
            key: key.into(),
            request_hash: [1; 32],
            reply: Bytes::from_static(b"reply"),
            expires_at_ms,
        };
        for id in 0..30 {
            let id = format!("cart {id}");
            let snapshot = Some(Message::new("test.State", id.clone()));
            let first = Write { snapshot, ..conformance::write(&id, 0, 3) };
            let receipt = Some(receipt(&id, u64::MAX >> 1));
            let second = Write { receipt, ..conformance::write(&id, 3, 4) };
            store.commit(&[first, second], &[]).await.unwrap();
        }
        let alone = Write { receipt: Some(receipt("k", 1 << 60)), ..conformance::write("x", 0, 0) };
        let expired = Write { receipt: Some(receipt("k", 9)), ..conformance::write("y", 0, 0) };
        store.commit(&[alone, expired], &[]).await.unwrap();
        let bytes = Bytes::from_static(b"module");
        let digest = Digest::of(&bytes);
        let module = ModuleRecord { digest, name: "m.wasm".into(), bytes: 6, uploaded_at_ms: 1 };
        store.put_module(&module, &bytes).await.unwrap();
        let modules = vec![digest];
        let note = String::from("deploy");
        let revision = DeploymentRecord { revision: Revision(1), modules, created_at_ms: 2, note };
        store.put_deployment(&revision).await.unwrap();
        Counts { entities: 30, events: 210, snapshots: 30, receipts: 31, modules: 1, revisions: 1 }
    }

    #[tokio::test]
    async fn a_copy_is_complete_and_compared() {
        let dir = tempfile::tempdir().unwrap();
        let source = SqliteStore::open(dir.path()).await.unwrap();
        let expected = fill(&source).await;
        let cluster = open(8).await;
        let fence = |address: &Address| {
            let shard = cluster.holdings.shard_of(address);
            Fence { shard, epoch: cluster.holdings.epoch(shard).unwrap() }
        };
        assert!(is_empty(&cluster.store).await.unwrap());
        let mut steps = Vec::new();
        let told = |step| steps.push(step);
        let counts = copy(&source, &cluster.store, fence, 100, told).await.unwrap();
        assert_eq!(counts, expected);
        assert_eq!(steps.len(), 60);
        assert!(!is_empty(&cluster.store).await.unwrap());
        // And back, as every other store can be read and written in the same way.
        let back = MemoryStore::default();
        let counts = copy(&cluster.store, &back, |_| Fence::default(), 100, |_| {}).await.unwrap();
        assert_eq!(counts, expected);
    }

    #[tokio::test]
    async fn a_claim_is_refused_while_there_is_a_node_and_lets_go_of_every_shard() {
        let url = crate::words::config::Secret::new(postgres::server::Server::shared().database());
        postgres::prepare(&url, 4).await.unwrap();
        let claim = postgres::Claim::take(&url).await.unwrap();
        let second = postgres::Claim::take(&url).await.err().unwrap().to_string();
        assert!(second.contains("is in use: a node is registered"), "{second}");
        claim.release().await.unwrap();
        postgres::Claim::take(&url).await.unwrap();
    }
}
