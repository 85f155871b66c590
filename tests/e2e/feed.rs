//! `WatchEvents`: the feed for those outside, over gRPC.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::json;
use stead_proto::admin::v1::admin_client::AdminClient;
use stead_proto::admin::v1::{FeedEvent, WatchEventsRequest};
use stead_tests::Host;
use stead_tests::cart::{GUEST, SERVICE};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

const SOON: Duration = Duration::from_secs(30);
/// As many as may read at once.
const READERS_MAX: usize = 64;

/// A reader with a connection of its own.
struct Reader {
    client: AdminClient<Channel>,
}

impl Reader {
    async fn of(host: &Host) -> Self {
        let endpoint = Channel::from_shared(host.admin.base().to_owned()).expect("an address");
        Self { client: AdminClient::new(endpoint.connect().await.expect("connects")) }
    }

    async fn try_watch(
        &mut self,
        request: WatchEventsRequest,
    ) -> Result<Streaming<FeedEvent>, Status> {
        let response = tokio::time::timeout(SOON, self.client.watch_events(request)).await;
        response.expect("an answer in time").map(tonic::Response::into_inner)
    }

    async fn watch(&mut self, from: &str) -> Streaming<FeedEvent> {
        self.try_watch(from_(from)).await.expect("opens")
    }
}

fn from_(from: &str) -> WatchEventsRequest {
    WatchEventsRequest { from: from.into(), ..WatchEventsRequest::default() }
}

async fn next(events: &mut Streaming<FeedEvent>) -> FeedEvent {
    let event = tokio::time::timeout(SOON, events.next()).await.expect("an event in time");
    event.expect("no end").expect("no error")
}

fn seq(event: &FeedEvent) -> u64 {
    event.event.as_ref().expect("an event").seq
}

fn which(event: &FeedEvent) -> (&str, u64) {
    (&event.entity_id, seq(event))
}

#[tokio::test]
async fn from_the_beginning_comes_what_there_is_and_then_what_is_new() {
    let host = Host::with_guest(GUEST).await;
    host.add("ada", "tea", 2).await.ok();
    host.add("bob", "tea", 1).await.ok();
    let mut events = Reader::of(&host).await.watch("beginning").await;
    let first = next(&mut events).await;
    assert_eq!((&*first.event_log, which(&first)), ("shopping-cart", ("ada", 1)));
    let event = first.event.as_ref().expect("an event");
    assert_eq!(event.r#type, "com.example.shoppingcart.persistence.ItemAdded");
    assert!(event.json.is_some() && !event.data.is_empty() && event.time.is_some(), "{event:?}");
    assert_eq!(which(&next(&mut events).await), ("bob", 1));
    host.add("ada", "rice", 1).await.ok();
    assert_eq!(which(&next(&mut events).await), ("ada", 2));
}

#[tokio::test]
async fn from_now_comes_only_what_is_new() {
    let host = Host::with_guest(GUEST).await;
    host.add("ada", "tea", 2).await.ok();
    let mut reader = Reader::of(&host).await;
    let (mut now, mut unsaid) = (reader.watch("now").await, reader.watch("").await);
    host.add("ada", "rice", 1).await.ok();
    for events in [&mut now, &mut unsaid] {
        assert_eq!(which(&next(events).await), ("ada", 2));
    }
}

#[tokio::test]
async fn a_reader_sees_what_it_asked_for_and_nothing_else() {
    let host = Host::with_guest(GUEST).await;
    host.deploy("tck-every-kind").await;
    for user in ["ada", "bob", "ada"] {
        host.add(user, "tea", 1).await.ok();
        let emit = json!({"id": user, "actions": [{"emit": {"value": "x"}}]});
        host.services.post("/stead.tck.v1.EventSourcedModel/Process", &emit).await.ok();
    }
    let mut reader = Reader::of(&host).await;
    // A journal is found by its own name and by its service's.
    for log in ["shopping-cart", SERVICE] {
        let request = WatchEventsRequest { event_log: log.into(), ..from_("beginning") };
        let mut events = reader.try_watch(request).await.expect("opens");
        for expected in [("ada", 1), ("bob", 1), ("ada", 2)] {
            let event = next(&mut events).await;
            assert_eq!((&*event.event_log, which(&event)), ("shopping-cart", expected));
        }
    }
    let request = WatchEventsRequest { entity_id: "bob".into(), ..from_("beginning") };
    let mut events = reader.try_watch(request).await.expect("opens");
    let logs = [next(&mut events).await.event_log, next(&mut events).await.event_log];
    assert_eq!(logs, ["shopping-cart", "tck-model"]);
    host.add("ada", "tea", 1).await.ok();
    host.add("bob", "tea", 1).await.ok();
    assert_eq!(which(&next(&mut events).await), ("bob", 2));
}

#[tokio::test]
async fn a_reader_that_connects_again_goes_on_without_gap_or_double() {
    const EVENTS: u64 = 300;
    const USERS: u64 = 5;
    let host = Host::with_guest(GUEST).await;
    let write = async {
        for number in 0..EVENTS {
            host.add(&format!("user-{}", number % USERS), "tea", 1).await.ok();
        }
    };
    let read = async {
        let mut seen: BTreeMap<String, u64> = BTreeMap::new();
        let (mut from, mut read, mut times) = ("beginning".to_owned(), 0, 0);
        while read < EVENTS {
            let mut events = Reader::of(&host).await.watch(&from).await;
            times += 1;
            // A while, and then to the next event that says how to go on.
            for count in 0.. {
                let event = next(&mut events).await;
                let last = seen.entry(event.entity_id.clone()).or_default();
                assert_eq!(seq(&event), *last + 1, "of {}", event.entity_id);
                *last += 1;
                read += 1;
                if !event.position.is_empty() && (count > 10 || read == EVENTS) {
                    from = event.position;
                    break;
                }
            }
        }
        assert!(times > 3, "{times} connections");
        // Nothing is left behind the last position.
        let mut events = Reader::of(&host).await.watch(&from).await;
        host.add("end", "tea", 1).await.ok();
        assert_eq!(which(&next(&mut events).await), ("end", 1));
    };
    tokio::join!(write, read);
}

#[tokio::test]
async fn a_position_is_good_over_a_kill() {
    let host = Host::with_guest(GUEST).await;
    host.add("ada", "tea", 1).await.ok();
    let position = next(&mut Reader::of(&host).await.watch("beginning").await).await.position;
    assert!(!position.is_empty());
    host.add("bob", "tea", 1).await.ok();
    let host = host.kill_and_restart().await;
    let mut events = Reader::of(&host).await.watch(&position).await;
    assert_eq!(which(&next(&mut events).await), ("bob", 1));
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_by_field() {
    let host = Host::with_guest(GUEST).await;
    let mut reader = Reader::of(&host).await;
    let from = |from: &str| from_(from);
    let log = |log: &str| WatchEventsRequest { event_log: log.into(), ..from_("now") };
    let entity = |id: String| WatchEventsRequest { entity_id: id, ..from_("now") };
    for (request, part) in [
        (from("yesterday"), "from must be `beginning`, `now`"),
        (from("tomorrow"), "from must be `beginning`, `now`"),
        // A position of a feed with two partitions.
        (from("CgIBAQ"), "from is a position in the feed of another store"),
        (log("no such log"), "event_log is \"no such log\"; it must be"),
        (log(&"x".repeat(1_000)), "it must be the name of a service or of a journal"),
        (entity("x".repeat(2_000)), "entity_id is \"xxx"),
    ] {
        let Err(status) = reader.try_watch(request.clone()).await else {
            panic!("{request:?} was not refused");
        };
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(part), "{status}");
        assert!(status.message().len() < 500, "{status}");
    }
}

#[tokio::test]
async fn readers_have_a_bound_and_those_that_go_away_make_room() {
    let host = Host::with_guest(GUEST).await;
    let mut reader = Reader::of(&host).await;
    let mut open = Vec::new();
    for _ in 0..READERS_MAX {
        open.push(reader.watch("now").await);
    }
    let Err(status) = reader.try_watch(from_("now")).await else {
        panic!("{READERS_MAX} readers are not all that there may be");
    };
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("64 readers"), "{status}");
    // They share the bound with server-sent events.
    host.admin.get("/v1/feed").await.refused(429, "resource_exhausted");
    // One closes its stream, the others their connection.
    open.pop();
    let mut again = room(&mut reader).await;
    host.add("ada", "tea", 1).await.ok();
    assert_eq!(which(&next(&mut again).await), ("ada", 1));
    drop((reader, open, again));
    let mut reader = Reader::of(&host).await;
    let mut open = Vec::new();
    for _ in 0..READERS_MAX {
        open.push(room(&mut reader).await);
    }
}

/// Opens a reading as soon as there is room.
async fn room(reader: &mut Reader) -> Streaming<FeedEvent> {
    let start = Instant::now();
    loop {
        match reader.try_watch(from_("now")).await {
            Ok(events) => return events,
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                assert!(start.elapsed() < SOON, "{status}");
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_stopping_host_ends_readings_and_does_not_wait_for_them() {
    let mut host = Host::with_guest(GUEST).await;
    host.add("ada", "tea", 1).await.ok();
    let mut events = Reader::of(&host).await.watch("beginning").await;
    assert_eq!(which(&next(&mut events).await), ("ada", 1));
    host.signal(libc::SIGTERM);
    let end = tokio::time::timeout(SOON, events.next()).await.expect("an end in time");
    assert!(end.is_none(), "{end:?}");
    assert!(host.ended(SOON).await.success(), "{}", host.log());
}
