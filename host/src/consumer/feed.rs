//! The feed for those outside: events as they come, from a place that the reader keeps.

use std::collections::{BTreeMap, VecDeque};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::Message as _;
use tokio::sync::watch;

use crate::consumer::group::by_partition;
use crate::journal::{FeedEntry, Journal, Partition, StoreError};
use crate::words::{EntityId, JournalName, limits};

/// Which events to read.
#[derive(Clone, Debug, Default)]
pub struct FeedFilter {
    pub log: Option<JournalName>,
    pub id: Option<EntityId>,
}

/// Where to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedStart {
    Beginning,
    Now,
    /// Of an earlier reading.
    Position(BTreeMap<Partition, u64>),
}

/// An event, and where to go on behind it.
#[derive(Clone, Debug)]
pub struct FedEvent {
    pub entry: FeedEntry,
    /// Only behind the last event of a page.
    pub position: Option<String>,
}

/// A reading of the feed without end. Holds one page in memory.
pub struct Feed {
    journal: Journal,
    filter: FeedFilter,
    /// Where to go on in each partition.
    positions: BTreeMap<Partition, u64>,
    /// Partitions that have more.
    ahead: VecDeque<Partition>,
    page: VecDeque<FeedEntry>,
    news: watch::Receiver<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Token {
    #[prost(uint64, repeated, tag = "1")]
    offsets: Vec<u64>,
}

impl FeedStart {
    /// As callers write it.
    ///
    /// # Errors
    ///
    /// A sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" | "now" => Ok(Self::Now),
            "beginning" => Ok(Self::Beginning),
            token => {
                let bytes = URL_SAFE_NO_PAD.decode(token).ok();
                // Many a text happens to be base64 of some message.
                let read = |bytes: Vec<u8>| {
                    let token = Token::decode(bytes.as_slice()).ok()?;
                    (token.encode_to_vec() == bytes && !token.offsets.is_empty()).then_some(token)
                };
                let token = bytes.and_then(read).ok_or(
                    "from must be `beginning`, `now`, or the position of an event that was read before",
                )?;
                let offsets = token.offsets.into_iter().take(limits::SHARDS_MAX);
                Ok(Self::Position((0..).map(Partition).zip(offsets).collect()))
            }
        }
    }

    /// Whether a reading of a feed with so many partitions can begin there.
    pub fn is_of(&self, partitions: u32) -> bool {
        match self {
            Self::Beginning | Self::Now => true,
            Self::Position(positions) => positions.len() == partitions as usize,
        }
    }
}

impl Feed {
    pub async fn open(
        journal: Journal,
        filter: FeedFilter,
        start: FeedStart,
    ) -> Result<Self, StoreError> {
        let news = journal.feed_news().watch();
        let positions = match start {
            FeedStart::Beginning => BTreeMap::new(),
            FeedStart::Now => by_partition(journal.feed_ends().await?).into_iter().collect(),
            FeedStart::Position(positions) => positions,
        };
        let (ahead, page) = (VecDeque::new(), VecDeque::new());
        Ok(Self { journal, filter, positions, ahead, page, news })
    }

    /// The next event; waits until there is one. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<FedEvent, StoreError> {
        loop {
            if let Some(entry) = self.page.pop_front() {
                let position = self.page.is_empty().then(|| self.position());
                return Ok(FedEvent { entry, position });
            }
            match self.ahead.front().copied() {
                Some(partition) => self.read(partition).await?,
                None => self.look().await?,
            }
        }
    }

    async fn read(&mut self, partition: Partition) -> Result<(), StoreError> {
        let from = self.positions.get(&partition).copied().unwrap_or(1);
        let (limit, bytes) = (limits::FEED_PAGE_EVENTS, limits::FEED_PAGE_BYTES);
        let page = self.journal.feed(partition, from, limit, bytes).await?;
        self.positions.insert(partition, page.next_off);
        if page.next_off == from {
            self.ahead.pop_front();
        }
        let FeedFilter { log, id } = &self.filter;
        self.page.extend(page.entries.into_iter().filter(|entry| {
            log.as_ref().is_none_or(|log| entry.address.journal == *log)
                && id.as_ref().is_none_or(|id| entry.address.id == *id)
        }));
        Ok(())
    }

    /// Which partitions have more; if none has, waits for a while. Other nodes' events are no news here.
    async fn look(&mut self) -> Result<(), StoreError> {
        for end in self.journal.feed_ends().await? {
            if self.positions.get(&end.partition).copied().unwrap_or(1) < end.off {
                self.ahead.push_back(end.partition);
            }
        }
        if self.ahead.is_empty() {
            // An error means that the journal is closed: the next reading says so.
            let changed = self.news.changed();
            let _ = tokio::time::timeout(limits::FEED_LOOK_EVERY, changed).await;
        }
        Ok(())
    }

    fn position(&self) -> String {
        let of = |partition| self.positions.get(&Partition(partition)).copied().unwrap_or(1);
        let offsets = (0..self.journal.partitions()).map(of).collect();
        URL_SAFE_NO_PAD.encode(Token { offsets }.encode_to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::memory::MemoryStore;
    use crate::journal::{AnyStore, Fence, Holdings, Write};
    use crate::words::telemetry::Metrics;
    use crate::words::{Address, Epoch, Message, Seq, Shard};

    fn journal() -> Journal {
        let store = AnyStore::Memory(MemoryStore::default());
        Journal::start(store, Holdings::alone(), Metrics::default())
    }

    async fn append(journal: &Journal, log: &str, id: &str, after: u64) {
        let fence = Fence { shard: Shard(0), epoch: Epoch(1) };
        let events = vec![Message::new("t.E", "x")];
        let write = Write { events, ..Write::new(Address::new(log, id), fence, Seq(after), 0) };
        journal.append(write).wait().await.expect("stored");
    }

    async fn next(feed: &mut Feed) -> (String, u64) {
        let event = feed.next().await.expect("readable");
        (event.entry.address.id.to_string(), event.entry.seq.0)
    }

    #[tokio::test]
    async fn a_reading_begins_where_it_is_told_and_goes_on_with_what_comes() {
        let journal = journal();
        append(&journal, "a", "x", 0).await;
        append(&journal, "b", "y", 0).await;
        let filter = FeedFilter { log: Some("a".into()), id: None };
        let open = |start| Feed::open(journal.clone(), filter.clone(), start);
        let mut all = open(FeedStart::Beginning).await.expect("opens");
        let mut new = open(FeedStart::Now).await.expect("opens");
        append(&journal, "a", "x", 1).await;
        assert_eq!(next(&mut all).await, ("x".into(), 1));
        assert_eq!(next(&mut all).await, ("x".into(), 2));
        assert_eq!(next(&mut new).await, ("x".into(), 2));
    }

    #[tokio::test]
    async fn a_reading_goes_on_from_the_position_of_an_earlier_one() {
        let journal = journal();
        append(&journal, "a", "x", 0).await;
        let filter = FeedFilter::default();
        let mut first =
            Feed::open(journal.clone(), filter.clone(), FeedStart::Beginning).await.expect("opens");
        let position =
            first.next().await.expect("readable").position.expect("the last of its page");
        append(&journal, "a", "y", 0).await;
        let start = FeedStart::parse(&position).expect("a position");
        let mut second = Feed::open(journal, filter, start).await.expect("opens");
        assert_eq!(next(&mut second).await, ("y".into(), 1));
    }

    #[test]
    fn what_is_no_position_is_refused() {
        assert_eq!(FeedStart::parse(""), Ok(FeedStart::Now));
        for text in ["yesterday!", "tomorrow", "aaaa", "begin"] {
            assert!(FeedStart::parse(text).expect_err("refused").contains("beginning"), "{text}");
        }
        let two = URL_SAFE_NO_PAD.encode(Token { offsets: vec![1, 2] }.encode_to_vec());
        let two = FeedStart::parse(&two).expect("a position");
        assert!(two.is_of(2) && !two.is_of(1));
    }
}
