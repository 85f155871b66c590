//! Every bound of the host, with its unit last. Nothing that grows is without one.

use std::time::Duration;

pub const KIB: usize = 1024;
pub const MIB: usize = 1024 * KIB;

// Modules.
pub const MODULE_BYTES_MAX: usize = 32 * MIB;
pub const MODULE_NAME_BYTES_MAX: usize = 256;
pub const LIVE_MODULES_MAX: usize = 256;
/// Modules that are compiled and described at once.
pub const MODULES_PREPARED_AT_ONCE_MAX: usize = 2;
/// Compiled modules that are kept though they are not live: uploaded just now, or live just before.
pub const IDLE_MODULES_MAX: usize = 4;
pub const DEPLOYMENTS_QUEUED_MAX: usize = 16;
/// Deployments of several nodes may come at once: all but one try again.
pub const DEPLOYMENT_ATTEMPTS_MAX: u32 = 5;
pub const DEPLOYMENT_NOTE_BYTES_MAX: usize = KIB;
/// A module that could not be loaded, for a reason that may pass, is tried again after so long, then after twice
/// as long, and so on.
pub const MODULE_RETRY_MIN: Duration = Duration::from_secs(2);
pub const MODULE_RETRY_MAX: Duration = Duration::from_secs(300);
pub const ENTITY_TYPES_PER_MODULE_MAX: usize = 256;
pub const JOURNAL_NAME_BYTES_MAX: usize = 128;
pub const TYPE_NAME_BYTES_MAX: usize = 256;
pub const SDK_NAME_BYTES_MAX: usize = 256;
pub const DESCRIPTOR_SET_BYTES_MAX: usize = 4 * MIB;
pub const DESCRIPTOR_FILES_MAX: usize = 2_000;
/// Ways through the public imports of a descriptor set: resolving them walks each one.
pub const DESCRIPTOR_IMPORT_PATHS_MAX: u64 = 100_000;
pub const METHODS_PER_SERVICE_MAX: usize = 1_000;
pub const KEY_FIELDS_MAX: usize = 8;
/// Faults of a module that are told one by one.
pub const FAULTS_TOLD_MAX: usize = 100;
pub const FAULT_BYTES_MAX: usize = 2 * KIB;
pub const COMPILE_WALL_MAX: Duration = Duration::from_secs(60);
pub const COMPILE_CPU_SECONDS_MAX: u64 = 60;
/// Steps of the scheduler's priority by which compiling gives way to calls.
pub const COMPILE_NICE: i32 = 10;
pub const COMPILE_MEMORY_BYTES_MAX: u64 = 4 * 1024 * MIB as u64;
pub const COMPILED_BYTES_MAX: usize = 512 * MIB;
pub const COMPILED_CACHE_BYTES_MAX: u64 = 2 * 1024 * MIB as u64;
pub const COMPILATIONS_AT_ONCE_MAX: usize = 2;
pub const COMPILE_REPORT_BYTES_MAX: usize = 4 * KIB;
pub const COMPONENT_NESTING_MAX: usize = 16;
pub const COMPONENT_ITEMS_MAX: usize = 50_000;
pub const COMPONENT_TYPE_NESTING_MAX: usize = 200;
pub const COMPONENT_TYPE_FIELDS_MAX: usize = 2_000;
pub const CORE_MODULES_MAX: usize = 64;
pub const CORE_FUNCTIONS_MAX: usize = 200_000;
pub const CORE_FUNCTION_BYTES_MAX: usize = 2 * MIB;
pub const CORE_TYPES_MAX: usize = 50_000;
pub const CORE_ITEMS_MAX: usize = 200_000;
pub const CORE_BRANCH_TABLE_MAX: usize = 20_000;

// Guests.
pub const EPOCH_TICK: Duration = Duration::from_millis(2);
pub const GUEST_DEADLINE_DEFAULT: Duration = Duration::from_secs(1);
pub const GUEST_DEADLINE_MAX: Duration = Duration::from_secs(60);
pub const GUEST_MEMORY_BYTES_DEFAULT: usize = 64 * MIB;
pub const GUEST_MEMORY_BYTES_MAX: usize = 1024 * MIB;
pub const GUEST_STACK_BYTES: usize = 512 * KIB;
/// A call that may wait for the host runs on a stack of its own; what the guest leaves is for the host's
/// functions. Only the pages that were touched take memory.
pub const FIBER_STACK_BYTES: usize = GUEST_STACK_BYTES + 512 * KIB;
/// Of one service of actions or views: instances that wait for a call, and calls that run at once.
pub const INSTANCES_IDLE_MAX: usize = 64;
pub const INSTANCES_AT_ONCE_MAX: usize = 1_000;
/// An instance whose memory has grown larger is not kept.
pub const IDLE_INSTANCE_BYTES_MAX: usize = 8 * MIB;
pub const GUEST_TABLES_MAX: usize = 8;
pub const GUEST_TABLE_ELEMENTS_MAX: usize = 20_000;
pub const GUEST_MEMORIES_MAX: usize = 4;
pub const GUEST_CORE_INSTANCES_MAX: usize = 64;
pub const GUEST_RESOURCES_MAX: usize = 1_000;
pub const GUEST_HOSTCALL_BYTES_MAX: usize = 4 * MIB;
pub const GUEST_RANDOM_BYTES_PER_CALL_MAX: usize = 64 * KIB;
pub const GUEST_LOG_BYTES_PER_CALL_MAX: usize = 16 * KIB;
/// What a linear memory of the arena may grow to in place: what one page of a page table spans.
pub const GUEST_SLOT_BYTES: usize = 2 * MIB;
/// Slots beyond the hot instances: for those being activated, and for several memories in one.
pub const GUEST_SLOTS_HEADROOM: usize = 2_048;
/// Linear memories that outgrew their slot, each a mapping of its own; the kernel allows a process
/// 65,530 mappings.
pub const GUEST_MAPPINGS_MAX: usize = 32_768;
pub const GUEST_BACKTRACE_BYTES_MAX: usize = 4 * KIB;
pub const GUEST_BACKTRACE_FRAMES_MAX: usize = 32;
pub const GUEST_WASI_RESOURCES_MAX: usize = 1_000;
/// Turns that outlive a tick of the epoch clock move to a thread of their own, so many at once.
pub const LONG_TURNS_MAX: usize = 64;
/// A long turn offers its worker at so many ticks, for so long the first time, then twice as long,
/// and so on. Nothing tells whether a thread took it: on a busy machine some offers pass unseen.
pub const LONG_TURN_OFFERS: u32 = 6;
pub const LONG_TURN_OFFER: Duration = Duration::from_micros(500);
/// Between two ticks of work, where there are more long turns than processors for them.
pub const LONG_TURN_PAUSE_MAX: Duration = Duration::from_millis(100);

// Answers of a guest.
pub const EVENT_BYTES_MAX: usize = MIB;
pub const EVENTS_PER_COMMAND_MAX: usize = 1_000;
pub const EVENTS_BYTES_PER_COMMAND_MAX: usize = 4 * MIB;
pub const REPLY_BYTES_MAX: usize = 4 * MIB;
pub const SNAPSHOT_BYTES_MAX: usize = 16 * MIB;
pub const REJECTION_MESSAGE_BYTES_MAX: usize = 4 * KIB;
pub const REJECTION_DETAILS_MAX: usize = 16;
pub const EFFECTS_PER_COMMAND_MAX: usize = 1_000;
pub const TIMERS_PER_COMMAND_MAX: usize = 1_000;
pub const TIMER_NAME_BYTES_MAX: usize = 256;
pub const TIMER_EVERY_MS_MIN: u64 = 100;
/// What the answer to one command may take in all.
pub const ANSWER_BYTES_MAX: usize = REPLY_BYTES_MAX + EVENTS_BYTES_PER_COMMAND_MAX + MIB;

// Entities.
pub const ENTITY_ID_BYTES_MAX: usize = 1_024;
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 256;
pub const IDEMPOTENCY_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
pub const SNAPSHOT_EVERY_DEFAULT: u32 = 100;
/// States of a value entity that are kept.
pub const HISTORY_DEFAULT: u32 = 1;
pub const HISTORY_MAX: u32 = 1_000;
/// Old states of a value entity are dropped each time its version is a multiple of this.
pub const HISTORY_DROPPED_EVERY: u64 = 16;
/// How often the newest state of a value entity is looked for, if it is replaced and dropped each time before it
/// can be read.
pub const VALUE_READS_MAX: u32 = 8;
pub const PASSIVATE_AFTER_DEFAULT: Duration = Duration::from_secs(30);
pub const MAILBOX_COMMANDS_MAX: usize = 1_000;
/// Commands in the house, queued, running or waiting for their commit.
pub const COMMANDS_IN_FLIGHT_MAX: usize = 32_768;
pub const COMMAND_BYTES_IN_FLIGHT_MAX: usize = 256 * MIB;
/// A task that runs the turns of an entity hands over to another after so many, to stay fair.
pub const TURNS_PER_RUN_MAX: usize = 64;
pub const REPLAY_BATCH_EVENTS: usize = 1_024;
pub const REPLAY_BATCH_BYTES: usize = MIB;
pub const ACTIVATION_BACKOFF_MIN: Duration = Duration::from_millis(100);
pub const ACTIVATION_BACKOFF_MAX: Duration = Duration::from_secs(30);
pub const ACTIVATIONS_AT_ONCE_MAX: usize = 64;
pub const HOT_ENTITIES_DEFAULT: usize = 100_000;
pub const HOT_BYTES_DEFAULT: usize = 4 * 1024 * MIB;
/// What an operator may ask for.
pub const HOT_ENTITIES_MAX: usize = 1_000_000;
pub const HOT_BYTES_MIN: usize = MIB;
/// What a hot entity counts against the budget before its memory grows (measured: about 29 KiB).
pub const HOT_ENTITY_BYTES: usize = 32 * KIB;
pub const PASSIVATION_TICK: Duration = Duration::from_millis(50);
/// Every so many ticks, actors without an instance are forgotten.
pub const FORGET_EVERY_TICKS: u64 = 200;
/// Residents among which an eviction chooses.
pub const EVICTION_SAMPLE: usize = 16;
pub const EVICTION_SAMPLES_MAX: usize = 64;
/// Entries that the lists of residents may hold beyond two for each resident.
pub const RESIDENTS_SLACK: usize = 1_024;
/// Hand-off of a shard: how long its turns may take to end, and how many of its entities its next owner
/// loads before commands ask for them.
pub const HANDOFF_TURNS_MAX: Duration = Duration::from_secs(2);
pub const HANDOFF_WARM_MAX: usize = 64;
/// Crashes kept for `stead entity get`, over all entities.
pub const CRASH_REPORTS_MAX: usize = 1_000;
pub const CRASH_REPORT_BYTES_MAX: usize = 8 * KIB;
/// Warnings of one sort about one service, such as that it crashed; the others are counted.
pub const WARNINGS_TOLD_MAX: u32 = 10;
pub const WARNINGS_COUNTED_FOR: Duration = Duration::from_secs(1);
/// In an error about one that there is not.
pub const ENTITY_TYPES_TOLD_MAX: usize = 20;
pub const SPARING_SUBJECTS_MAX: usize = 1_000;

// Functions that call others.
/// Functions that a call may come through: forwards, effects and calls of actions.
pub const CALL_HOPS_MAX: u32 = 16;
/// Names of those functions that go along with a call; the oldest are left out.
pub const CALL_TRAIL_BYTES_MAX: usize = 2 << 10;
/// What one try of an effect may take, unless the effect says otherwise.
pub const EFFECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Calls of actions in hand: running, or waiting for an instance.
pub const ACTION_CALLS_MAX: usize = 16_384;
/// What a guest that learns that its caller is gone may take to conclude.
pub const ACTION_GRACE: Duration = Duration::from_secs(1);
/// Effects of actions that nobody waits for, and that have not ended.
pub const STARTED_EFFECTS_MAX: usize = 4_096;
/// Requests that an action sends by `wasi:http`: the time to connect, to the first byte and between
/// bytes; the bytes of each body, and of its headers; and how many of a module are open at once.
pub const HTTP_TIMEOUT_MAX: Duration = Duration::from_secs(30);
pub const HTTP_BODY_BYTES_MAX: usize = 16 * MIB;
pub const HTTP_FIELDS_BYTES_MAX: usize = 64 * KIB;
pub const HTTP_REQUESTS_AT_ONCE_MAX: usize = 256;
/// Origins that one deployment may grant.
pub const GRANTS_MAX: usize = 64;
pub const ORIGIN_BYTES_MAX: usize = 512;
/// Of one streamed answer: messages and bytes that the guest sent and the client has not read.
pub const STREAM_MESSAGES_MAX: usize = 16;
pub const STREAM_BYTES_MAX: usize = 256 * KIB;
/// A stream on which the client sends nothing that the guest waits for, or reads nothing.
pub const STREAM_IDLE_MAX: Duration = Duration::from_secs(300);
/// Of a stream whose caller does not say.
pub const STREAM_DEADLINE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a stream over HTTP waits for its first message, to answer with an HTTP status if there is
/// none.
pub const STREAM_OPENS_WITHIN: Duration = Duration::from_millis(500);
/// Server-sent events: a comment after so long without an event keeps proxies from closing.
pub const SSE_COMMENT_EVERY: Duration = Duration::from_secs(15);
/// Streams that still run so long after the drain began end with UNAVAILABLE.
pub const STREAM_DRAIN_MAX: Duration = Duration::from_secs(3);
pub const EFFECT_TRIES_DEFAULT: u32 = 20;
/// What an operator may ask for.
pub const EFFECT_TRIES_MOST: u32 = 1_000_000;
pub const EFFECT_BACKOFF_MIN: Duration = Duration::from_millis(100);
pub const EFFECT_BACKOFF_MAX: Duration = Duration::from_secs(30);
pub const EFFECT_ERROR_BYTES_MAX: usize = KIB;
pub const RESULT_TOKEN_BYTES_MAX: usize = 256;
/// Effects in memory, over the whole node. Others stay in the store until there is room.
pub const EFFECTS_IN_MEMORY_MAX: usize = 65_536;
pub const EFFECT_BYTES_IN_MEMORY_MAX: usize = 64 * MIB;
pub const EFFECTS_LOADED_AT_ONCE_MAX: usize = 512;
/// Deliveries on their way: to all functions, and to one service.
pub const EFFECTS_AT_ONCE_MAX: usize = 2_048;
pub const EFFECTS_AT_ONCE_PER_SERVICE_MAX: usize = 512;
/// Services whose deliveries are counted apart; those beyond share one count.
pub const EFFECT_SERVICES_MAX: usize = 4_096;
/// Effects that leave the outbox together.
pub const EFFECTS_DONE_AT_ONCE_MAX: usize = 1_024;
/// How often shards that came or went are noticed.
pub const SHARDS_LOOKED_AT_EVERY: Duration = Duration::from_millis(100);
/// After the store could not be read or written.
pub const OUTBOX_RETRY_AFTER: Duration = Duration::from_millis(500);
/// In the year 5138: room for arithmetic.
pub const TIMER_DUE_MS_MAX: u64 = 100_000_000_000_000;
/// Timers that are due within this are kept in memory, up to a number.
pub const TIMERS_AHEAD: Duration = Duration::from_secs(60);
pub const TIMERS_SCAN_EVERY: Duration = Duration::from_secs(30);
pub const TIMERS_IN_MEMORY_MAX: usize = 100_000;
pub const TIMERS_AT_ONCE_MAX: usize = 512;
/// What a timer's command may take, its wait in the mailbox included.
pub const TIMER_DEADLINE: Duration = Duration::from_secs(30);
pub const TIMER_BACKOFF_MIN: Duration = Duration::from_millis(200);
pub const TIMER_BACKOFF_MAX: Duration = Duration::from_secs(60 * 60);

// Journal.
pub const COMMIT_ROWS_MAX: usize = 4_096;
pub const COMMIT_BYTES_MAX: usize = 16 * MIB;
/// Of writes that wait for a commit.
pub const COMMIT_QUEUE_BYTES_MAX: usize = 512 * MIB;
pub const COMMIT_QUEUE_MAX: usize = COMMANDS_IN_FLIGHT_MAX;
/// A cluster's database that takes longer over a commit gets no more writes until it has answered. Disks stand
/// still for a second now and then; a database that is gone for longer ends the lease soon.
pub const COMMIT_STALLED_AFTER: Duration = Duration::from_secs(3);
pub const SNAPSHOTS_KEPT: usize = 2;
/// Events of the feed whose segments are read at once.
pub const FEED_SEGMENTS_AT_ONCE: usize = 64;
/// Of one read of rows that carry calls or payloads.
pub const ROWS_READ_BYTES_MAX: usize = 8 * MIB;
/// What counts of a value by which a view is listed: with names and key it has to fit into a page of an index.
pub const VIEW_VALUE_BYTES_MAX: usize = KIB;
/// Entities that lag behind in a group that is copied: they are held in memory.
pub const COPY_LAGGARDS_MAX: usize = 100_000;
/// Rows of a view that are deleted at once.
pub const VIEW_DELETE_ROWS: i64 = 2_000;
/// Entities whose newest sequence number is kept in memory, hot or not.
pub const KNOWN_ENTITIES_MAX: usize = 131_072;
/// Events that wait, in commit order, to be packed by entity.
/// The more there are, the more events of an entity share a segment's page: packing writes at least
/// a page for each entity. A start scans those that a crash left.
pub const TAIL_ROWS_MAX: usize = 131_072;
pub const TAIL_BYTES_MAX: usize = 32 * MIB;
/// A pack of events of one entity.
pub const SEGMENT_BYTES_MAX: usize = 64 * KIB;
pub const SEGMENT_MERGE_BYTES_MAX: usize = 16 * KIB;
pub const SEGMENT_MERGE_EVENTS_MAX: u64 = 64;
/// A segment up to this size is rewritten with whatever follows: its page is written anyway.
pub const SEGMENT_SMALL_BYTES: usize = KIB;
/// What the packer writes in one transaction, between two commits.
pub const PACK_SLICE_BYTES: usize = 512 * KIB;
pub const PACK_SLICE_ENTITIES: usize = 512;
pub const PACK_DELETE_ROWS: i64 = 8_192;
/// Rows of the feed that are looked at in one go for whether their events are forgotten, and how often in a round of
/// packing: more rows than a round adds, so that what is forgotten is gone after a few rounds.
pub const FEED_SWEPT_ROWS: i64 = 8_192;
pub const FEED_SWEPT_SLICES: usize = 16;
/// After a round of packing failed.
pub const PACK_RETRY_AFTER: Duration = Duration::from_secs(30);
pub const PACK_AT_CLOSE_MAX: Duration = Duration::from_secs(3);
/// A file up to this size is checked as a whole when it is opened.
pub const QUICK_CHECK_BYTES_MAX: u64 = 8 * MIB as u64;
pub const RECEIPT_SWEEP_EVERY: Duration = Duration::from_secs(60);
pub const RECEIPT_SWEEP_ROWS: i64 = 500;
pub const JOURNAL_READERS: u32 = 4;
/// Readers for lists alone: a long scan must not keep an entity from being activated.
pub const JOURNAL_LIST_READERS: u32 = 2;
pub const JOURNAL_READER_WAIT_MAX: Duration = Duration::from_secs(10);
/// Nobody else writes; only a tool that an operator points at the file can make anyone wait.
pub const JOURNAL_BUSY_WAIT_MAX: Duration = Duration::from_secs(5);
pub const JOURNAL_SCAN_ROWS: i64 = 8_192;
pub const JOURNAL_STATEMENTS_KEPT: usize = 512;
/// Every insert takes so many rows, or more than the smaller number of them, or the rest.
pub const JOURNAL_INSERT_ROWS_LARGE: usize = 256;
pub const JOURNAL_INSERT_ROWS_SMALL: usize = 64;
/// Segments read at first, for they may be large, and then, for they may be small.
pub const SEGMENTS_READ_FIRST: i64 = 2;
pub const SEGMENTS_READ_NEXT: i64 = 16;
/// Names of message types in a store. All are kept in memory.
pub const MESSAGE_TYPES_MAX: usize = 100_000;
pub const WAL_CHECKPOINT_PAGES: usize = 4_000;
pub const LIST_PAGE_DEFAULT: usize = 100;
pub const LIST_PAGE_MAX: usize = 1_000;

// Consumers and views.
pub const CONSUMER_GROUPS_MAX: usize = 256;
pub const GROUP_NAME_BYTES_MAX: usize = 128;
pub const FEED_PAGE_EVENTS: usize = 1_024;
pub const FEED_PAGE_BYTES: usize = 4 * MIB;
/// Entities of a page whose events are consumed at the same time.
pub const CONSUMED_AT_ONCE_MAX: usize = 64;
pub const PARTITIONS_CONSUMED_AT_ONCE: usize = 8;
/// How long the call with an event may take.
pub const CONSUME_CALL_MAX: Duration = Duration::from_secs(30);
/// Entities whose events fail, in a partition. With more a group stops instead of leaving them behind.
pub const LAGGARDS_MAX: usize = 1_000;
/// What `stead consumers list` shows of a group.
pub const LAGGARDS_SHOWN_MAX: usize = 100;
/// Pages of a partition before it is the turn of another.
pub const CONSUMER_STEPS_AT_ONCE: usize = 16;
/// Effects and timers of one entity that `stead entity get` shows.
pub const PENDING_SHOWN_MAX: usize = 100;
/// Readers of the feed from outside, at once, and how often they look for other nodes' events.
pub const FEED_READERS_MAX: usize = 64;
pub const FEED_LOOK_EVERY: Duration = Duration::from_secs(1);
/// A reader of server-sent events hears something at least so often.
pub const FEED_KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Decisions of operators that wait for a group.
pub const CONSUMER_ORDERS_MAX: usize = 16;
pub const LAGGARDS_TRIED_AT_ONCE: usize = 16;
pub const LAGGARD_PAGE_EVENTS: usize = 256;
pub const LAGGARD_ERROR_BYTES_MAX: usize = KIB;
pub const LAGGARD_BACKOFF_MIN: Duration = Duration::from_secs(1);
pub const LAGGARD_BACKOFF_MAX: Duration = Duration::from_secs(5 * 60);
/// A group that nobody wakes looks which partitions it has.
pub const CONSUMER_TICK: Duration = Duration::from_millis(500);
/// After a group could not go on, doubling.
pub const CONSUMER_RETRY_AFTER: Duration = Duration::from_millis(250);
pub const CONSUMER_RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
/// How often partitions that no node reads at the moment are asked for again when a group is reset.
pub const CONSUMER_RESET_TRIES: usize = 10;
pub const CONSUMER_RESET_AGAIN_AFTER: Duration = Duration::from_millis(500);
pub const VIEW_VERSION_MAX: u32 = 1_000_000_000;
pub const VIEW_INDEXES_MAX: usize = 16;
/// Readings for one page of a list, and rows in each, where filters leave rows out.
pub const VIEW_READS_MAX: usize = 16;
pub const VIEW_ROWS_READ: usize = 500;
/// What is left in an answer for the token of the next page: a value and a key, in base64.
pub const VIEW_TOKEN_BYTES_MAX: usize = 8 * KIB;
/// How often a node looks whether a view that is made anew has caught up, and whether there is one.
pub const VIEW_BUILDING_LOOK_EVERY: Duration = Duration::from_secs(1);
pub const VIEW_LOOK_EVERY: Duration = Duration::from_secs(30);
/// What a query waits for a node to find out which rows to serve.
pub const VIEW_SERVED_WITHIN: Duration = Duration::from_secs(5);
/// Rows that were superseded stay for nodes that serve them a moment longer.
pub const VIEW_SUPERSEDED_KEPT: Duration = Duration::from_secs(60);

// Clusters.
pub const PEER_PORT_DEFAULT: u16 = 7834;
pub const SHARDS_DEFAULT: u32 = 1_024;
pub const SHARDS_MAX: usize = 65_536;
pub const NODE_CAPACITY_DEFAULT: u32 = 100;
pub const NODE_CAPACITY_MAX: usize = 10_000;
pub const CLUSTER_KEY_BYTES_MIN: usize = 16;
pub const ZONE_BYTES_MAX: usize = 64;
/// How often a node renews its lease, for how long an unchanged lease keeps others away, and for how long
/// after it sent the renewal the node itself trusts it. The margin covers clocks that run unevenly.
pub const LEASE_RENEW_EVERY: Duration = Duration::from_millis(1_250);
pub const LEASE: Duration = Duration::from_secs(5);
pub const LEASE_TRUSTED: Duration = Duration::from_millis(4_500);
/// For how long a node that was declared dead stays in the list.
pub const FENCED_NODE_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
pub const STORE_POLL_EVERY: Duration = Duration::from_millis(600);
/// Who has not looked for so long cannot say that another's lease has run out.
pub const STORE_POLL_GAP_MAX: Duration = Duration::from_secs(3);
/// Batches on their way to the database at once, each on a connection of its own: as many as the node has
/// processors. Fewer lanes make larger batches, which cost each write less.
pub const STORE_LANES_MIN: usize = 2;
pub const STORE_LANES_MAX: usize = 4;
pub const STORE_READERS: u32 = 8;
/// Readers for lists and modules alone: they must not keep an entity from being activated.
pub const STORE_LIST_READERS: u32 = 2;
/// Readers for consumers and views alone.
pub const STORE_FEED_READERS: u32 = 4;
pub const STORE_CONNECT_MAX: Duration = Duration::from_secs(3);
/// A start waits so long for a database that starts too.
pub const STORE_OPEN_MAX: Duration = Duration::from_secs(20);
pub const STORE_READ_MAX: Duration = Duration::from_secs(10);
/// Of modules, which are large.
pub const STORE_MODULE_MAX: Duration = Duration::from_secs(60);
/// A commit without an answer for so long counts as lost with its connection: what became of it is asked
/// on another.
pub const STORE_COMMIT_MAX: Duration = Duration::from_secs(10);
/// The database itself ends a statement that takes longer.
pub const STORE_STATEMENT_MAX: Duration = Duration::from_secs(120);
/// A connection that was idle for so long is tried before a commit is sent.
pub const STORE_IDLE_TRIED_AFTER: Duration = Duration::from_secs(5);
pub const STORE_TRY_MAX: Duration = Duration::from_secs(1);
/// How often a node asks whether the store still has what it has acknowledged.
pub const STORE_LOSSES_LOOKED_FOR_EVERY: Duration = Duration::from_secs(5);
pub const STORE_BACKOFF_MIN: Duration = Duration::from_millis(20);
pub const STORE_BACKOFF_MAX: Duration = Duration::from_secs(1);
/// How often a statement is sent again that the database ended for the sake of another.
pub const STORE_RETRIES_MAX: u32 = 8;
/// Questions whether shards are still owned wait so long for others, and are asked together.
pub const STORE_FENCE_GATHER: Duration = Duration::from_millis(1);
pub const STORE_FENCES_AT_ONCE_MAX: usize = 4_096;
pub const STORE_CLOSE_MAX: Duration = Duration::from_secs(1);
/// Entities whose old snapshots or events wait to be deleted; more of them stay until the next time.
pub const STORE_PRUNE_QUEUE_MAX: usize = 8_192;
pub const STORE_PRUNE_AT_ONCE_MAX: usize = 256;
/// How long a node that stops tries to hand its shards over.
pub const CLUSTER_DRAIN_MAX: Duration = Duration::from_secs(20);
/// A port that is free for TCP and UDP alike is found by trying.
pub const PEER_BIND_ATTEMPTS_MAX: u32 = 20;
/// The same with `--fast-failover`.
pub const FAST_LEASE_RENEW_EVERY: Duration = Duration::from_millis(400);
pub const FAST_LEASE: Duration = Duration::from_millis(2_000);
pub const FAST_LEASE_TRUSTED: Duration = Duration::from_millis(1_750);
pub const FAST_STORE_POLL_EVERY: Duration = Duration::from_millis(200);
pub const FAST_STORE_POLL_GAP_MAX: Duration = Duration::from_millis(1_000);
/// How far from its fair share of the shards a node may be before any are moved.
pub const PLACEMENT_TOLERANCE_PERCENT: u32 = 10;
/// What one node may begin to give away within [`MOVES_WINDOW`], of all shards of the cluster.
pub const MOVES_PERCENT_MAX: usize = 10;
pub const MOVES_WINDOW: Duration = Duration::from_secs(10);
pub const MOVES_AT_ONCE_MAX: usize = 8;
/// A UDP payload that fits into the smallest packet that IPv6 carries whole.
pub const GOSSIP_PACKET_BYTES_MAX: usize = 1_232;
/// Processes whose packets are remembered, so that none counts twice.
pub const GOSSIP_SENDERS_MAX: usize = 1_024;
/// How often each kind of refused packet is logged.
pub const GOSSIP_COMPLAIN_EVERY: Duration = Duration::from_secs(60);
pub const GOSSIP_ERROR_PAUSE: Duration = Duration::from_millis(100);
pub const SWIM_PROBE_EVERY: Duration = Duration::from_millis(500);
pub const SWIM_PROBE_RTT: Duration = Duration::from_millis(200);
/// In a cluster of up to ten nodes.
pub const SWIM_SUSPICION: Duration = Duration::from_millis(1_500);
pub const SWIM_GOSSIP_EVERY: Duration = Duration::from_millis(200);
pub const SWIM_ANNOUNCE_EVERY: Duration = Duration::from_secs(5);
pub const SWIM_RECONCILE_EVERY: Duration = Duration::from_secs(10);
/// For how long an identity that went down is not believed to be back.
pub const SWIM_REMEMBER_DOWN: Duration = Duration::from_secs(24 * 60 * 60);
/// How long the thread of SWIM sleeps when it has nothing to wait for.
pub const SWIM_IDLE: Duration = Duration::from_secs(1);
pub const MEMBERS_KEPT_MAX: usize = 1_024;
pub const MEMBERS_KEEP_EVERY: Duration = Duration::from_secs(5);
pub const MEMBERS_ANNOUNCED_MAX: usize = 256;
pub const MEMBERS_ANNOUNCE_AT_ONCE_MAX: usize = 16;
pub const MEMBERS_LEAVE_TIMEOUT: Duration = Duration::from_secs(1);
pub const MEMBER_HINTS_MAX: usize = 64;
pub const NODE_VERSION_BYTES_MAX: usize = 64;
/// While SWIM suspects a node, so that it is fenced as soon as that is allowed; for so long after a
/// suspicion.
pub const STORE_POLL_SUSPECTED_EVERY: Duration = Duration::from_millis(100);
pub const SUSPICION_HEEDED: Duration = Duration::from_secs(10);
/// Pauses of the lease's connections between tries to reach the store.
pub const LEASE_BACKOFF_MIN: Duration = Duration::from_millis(50);
pub const LEASE_BACKOFF_MAX: Duration = Duration::from_millis(500);
/// A free shard that its appointed owner has not claimed for so long may be claimed by anyone who has
/// room, and after so long by anyone at all.
pub const CLAIM_ANY_AFTER: Duration = Duration::from_secs(2);
pub const CLAIM_FULL_AFTER: Duration = Duration::from_secs(5);
/// Nodes that start a new cluster together are in time for their shares.
pub const CLAIM_NEW_AFTER: Duration = Duration::from_secs(1);
/// Shards claimed by one statement.
pub const CLAIMED_AT_ONCE_MAX: usize = 4_096;
/// Shards that are given up, of those that this node owns and cannot serve, after one look.
pub const RELEASED_AT_ONCE_MAX: usize = 64;
/// Looks at the store that others ask for are so far apart at least.
pub const STORE_POLL_PAUSE_MIN: Duration = Duration::from_millis(50);
/// What the next owner of a shard may take to say that it has taken it.
pub const TAKEN_WITHIN: Duration = Duration::from_secs(2);
pub const HANDED_AT_ONCE_MAX: usize = 64;

// Routing.
/// Then the store is asked who the owner is.
pub const FORWARDS_MAX: u32 = 2;
/// Commands whose shard has no owner, or moves.
pub const WAITING_CALLS_MAX: usize = 32_768;
pub const WAITING_CALLS_PER_SHARD_MAX: usize = 4_096;
pub const WAITING_BYTES_MAX: usize = 256 * MIB;
pub const WAITING_BYTES_PER_SHARD_MAX: usize = 32 * MIB;
/// A command that waits looks again so often, also when nothing was announced.
pub const WAITING_LOOKS_EVERY: Duration = Duration::from_millis(100);
/// How often calls may have the store asked.
pub const STORE_ASKED_EVERY: Duration = Duration::from_millis(50);
/// How long the receiver of a forwarded command waits for its own news before it says that it is not
/// the owner.
pub const FORWARDED_WAIT_MAX: Duration = Duration::from_secs(1);
/// To one node, and from one connection. What waits for the network counts also if it was given up.
pub const PEER_CALLS_MAX: usize = 8_192;
pub const PEER_CONNECTIONS_MAX: usize = 1_024;
pub const PEER_HANDSHAKES_MAX: usize = 128;
pub const PEER_HANDSHAKE_MAX: Duration = Duration::from_secs(3);
pub const PEER_CONNECT_MAX: Duration = Duration::from_secs(2);
/// A call waits so long for a connection that is being made, before it looks for the owner again.
pub const PEER_READY_WAIT_MAX: Duration = Duration::from_millis(300);
/// What a node may take over an admin call for another.
pub const PEER_ADMIN_MAX: Duration = Duration::from_secs(5);
pub const HAND_OVER_MAX: Duration = Duration::from_secs(2);
pub const PEER_RETRY_MIN: Duration = Duration::from_millis(50);
pub const PEER_RETRY_MAX: Duration = Duration::from_secs(1);
pub const PEER_PING_INTERVAL: Duration = Duration::from_secs(2);
pub const PEER_PING_TIMEOUT: Duration = Duration::from_secs(3);
/// No body has to wait for a window of its own.
pub const PEER_STREAM_WINDOW_BYTES: u32 = 8 * MIB as u32;
pub const PEER_CONNECTION_WINDOW_BYTES: u32 = 32 * MIB as u32;
pub const PEER_SEND_BUFFER_BYTES: usize = MIB;
pub const PEER_HEADER_BYTES_MAX: u32 = 4 * KIB as u32;
/// What a head takes beside its longest texts.
pub const PEER_HEAD_BYTES: usize = 192;
pub const PEER_HEAD_BYTES_MAX: usize = 64 * KIB;
/// Calls up to this size, head and payload, travel in one piece.
pub const PEER_SMALL_BYTES: usize = 8 * KIB;
/// Calls and answers that wait for the network leave together, about so many bytes at once.
pub const PEER_PIECE_BYTES: usize = 64 * KIB;
pub const PEER_REQUEST_BYTES_MAX: usize = BODY_BYTES_MAX + PEER_HEAD_BYTES_MAX;
/// A page of the admin API may be larger than a reply.
pub const PEER_ANSWER_BYTES_MAX: usize = 16 * MIB;
/// Of requests of all peers that are arriving or not answered yet.
pub const PEER_BODIES_BYTES_MAX: usize = 256 * MIB;
/// Of answers that peers have not read yet; those below [`SMALL_ANSWER_BYTES`] do not count.
pub const PEER_ANSWERS_BYTES_MAX: usize = 256 * MIB;
/// Of answers of all peers that are arriving. In the stream that calls share, those up to
/// [`PEER_SMALL_BYTES`] do not count.
pub const PEER_ARRIVING_BYTES_MAX: usize = 256 * MIB;
pub const PEER_DRAIN_MAX: Duration = Duration::from_secs(1);
/// Refused handshakes are logged once in so long for each address, for so many addresses.
pub const PEER_REFUSAL_LOGGED_EVERY: Duration = Duration::from_secs(60);
pub const PEER_REFUSALS_KNOWN_MAX: usize = 1_024;

// The command line.
pub const CLIENT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
pub const CLIENT_ANSWER_BYTES_MAX: usize = 64 * MIB;
pub const CLIENT_REFLECTED_FILES_MAX: usize = 1_000;
/// How often a command that waits for a node to drain looks, and when it gives up.
pub const CLIENT_DRAIN_LOOKS_EVERY: Duration = Duration::from_millis(500);
pub const CLIENT_DRAIN_STALLED_AFTER: Duration = Duration::from_secs(60);
/// Pieces of an upload.
pub const CLIENT_UPLOAD_CHUNK_BYTES: usize = 64 * KIB;

// Edges.
pub const BODY_BYTES_MAX: usize = 4 * MIB;
/// Bodies of requests that have arrived, in part or as a whole, and are not answered yet.
pub const REQUEST_BODIES_BYTES_MAX: usize = 256 * MIB;
/// Answers that clients have not read yet, all together; those below the second bound do not count.
pub const ANSWERS_BYTES_MAX: usize = 256 * MIB;
pub const SMALL_ANSWER_BYTES: usize = 16 * KIB;
pub const HEADERS_MAX: usize = 100;
pub const HEADER_BYTES_MAX: usize = 16 * KIB;
pub const CONNECTIONS_MAX: usize = 20_000;
/// Connections that wait to be accepted; the kernel has a limit of its own.
pub const ACCEPT_BACKLOG: u32 = 4_096;
pub const STREAMS_PER_CONNECTION_MAX: u32 = 128;
pub const PENDING_RESETS_MAX: usize = 20;
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);
pub const BODY_READ_TIMEOUT: Duration = Duration::from_secs(30);
pub const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);
/// A call without a deadline of its own gets this one.
pub const CALL_DEADLINE_DEFAULT: Duration = Duration::from_secs(30);
pub const CALL_DEADLINE_MAX: Duration = Duration::from_secs(600);
pub const REFLECTION_REQUEST_BYTES_MAX: usize = 16 * KIB;
pub const HEALTH_REQUEST_BYTES_MAX: usize = 4 * KIB;
pub const METADATA_ENTRIES_MAX: usize = 64;
pub const CORS_MAX_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// How often the node looks whether its database is still where it was.
pub const FILE_CHECK_EVERY: Duration = Duration::from_secs(1);
pub const SHUTDOWN_MAX: Duration = Duration::from_secs(10);
pub const TEMPLATE_SEGMENTS_MAX: usize = 64;
pub const TEMPLATES_PER_METHOD_MAX: usize = 32;
/// How deep a dotted path in a query or template may reach.
pub const FIELD_PATH_DEPTH_MAX: usize = 16;
pub const REQUEST_ID_BYTES_MAX: usize = 128;
/// Names of fields, services and the like in one sentence of an error.
pub const NAMES_TOLD_MAX: usize = 12;
pub const VALUE_TOLD_CHARS_MAX: usize = 40;
/// Smaller answers are not worth compressing.
pub const COMPRESS_BYTES_MIN: usize = 1_024;
pub const H2_PING_INTERVAL: Duration = Duration::from_secs(60);
pub const H2_PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long accepting pauses when the process has no file descriptors left.
pub const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);
/// `grpc-message` and `grpc-status-details-bin`: clients accept 8 KiB of headers.
pub const STATUS_HEADER_BYTES_MAX: usize = 3 * KIB;
/// What is read and thrown away of a body that is too large, so that the answer is not lost with
/// the connection.
pub const DISCARDED_BYTES_MAX: usize = 16 * MIB;

// Admin.
/// Each holds up to [`MODULE_BYTES_MAX`] in memory.
pub const UPLOADS_AT_ONCE_MAX: usize = 4;
pub const UPLOAD_WALL_MAX: Duration = Duration::from_secs(600);
/// From then on an upload must have come at [`UPLOAD_BYTES_PER_SECOND_MIN`] on average, or it gives
/// its place to others.
pub const UPLOAD_SLOW_START: Duration = Duration::from_secs(10);
pub const UPLOAD_BYTES_PER_SECOND_MIN: usize = 64 * KIB;
/// A page of events ends when it has so many bytes of them; they are sent twice, once decoded.
pub const EVENTS_LISTED_BYTES_MAX: usize = MIB;
/// Reads of the store for one page of cold entities, most of which may turn out to be hot.
pub const COLD_PAGE_READS_MAX: usize = 16;
pub const ADMIN_REFUSAL_DELAY_MIN: Duration = Duration::from_millis(100);
pub const ADMIN_REFUSAL_DELAY_MAX: Duration = Duration::from_secs(5);
pub const ADMIN_REFUSALS_FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
pub const ADMIN_REFUSALS_WAITING_MAX: usize = 64;
pub const ADMIN_CONNECTIONS_MAX: usize = 1_000;
/// The admin port's part of the memory for bodies: it answers also when the other port is full.
pub const ADMIN_REQUEST_BODIES_BYTES_MAX: usize = 16 * MIB;

// Stopping: the parts of SHUTDOWN_MAX, with the rest for the journal.
pub const DRAIN_MAX: Duration = Duration::from_secs(4);
pub const ADMIN_DRAIN_MAX: Duration = Duration::from_secs(1);
