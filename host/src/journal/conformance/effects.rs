//! The outbox.

use super::*;
use crate::journal::error::StoreError;
use crate::journal::store::{EffectId, NewEffect, OutboxRow, StoredCall, Timer, TimerChange};
use crate::words::limits::ROWS_READ_BYTES_MAX;

fn call(n: u64) -> StoredCall {
    StoredCall {
        service: "shop.Stock".into(),
        method: format!("Reserve{n}"),
        payload: Bytes::from(vec![0xff, n as u8, 0]),
        metadata: vec![("a".into(), "1".into()), ("a".into(), "\0é".into())],
        hops: n as u32,
        through: vec![format!("/shop.Cart/{n}"); n as usize % 3],
        timeout_ms: 30_000 + n,
        result_to: n.is_multiple_of(2).then(|| format!("token {n}")),
        request_id: format!("request {n}"),
        created_ms: u64::MAX - n,
    }
}

fn id(n: u64) -> EffectId {
    EffectId::new(n, u64::MAX / (n + 1))
}

fn effect(n: u64) -> NewEffect {
    NewEffect { id: id(n), call: call(n) }
}

fn row(source: &str, n: u64) -> OutboxRow {
    OutboxRow {
        shard: Shard(0),
        source: Address::new("carts", source),
        id: id(n),
        call: call(n),
        tries: 0,
        due_ms: 0,
        error: String::new(),
        parked: false,
    }
}

async fn outbox(store: &impl Store) -> Vec<OutboxRow> {
    store.outbox(&[Shard(0)], None, 100).await.unwrap()
}

pub async fn keeps_effects_in_order_with_their_calls(mut fixture: impl Fixture) {
    let first = Write { effects: vec![effect(1), effect(2)], ..write("a", 0, 2) };
    let second = Write { effects: vec![effect(3)], ..write("b", 0, 1) };
    fixture.commit(&[first, second]).await;
    fixture.commit(&[Write { effects: vec![effect(4)], ..write("a", 2, 1) }]).await;
    let store = fixture.store();
    let rows = [row("a", 1), row("a", 2), row("b", 3), row("a", 4)];
    assert_eq!(outbox(store).await, rows);
    assert_eq!(store.outbox(&[Shard(0)], None, 2).await.unwrap(), rows[..2]);
    assert_eq!(store.outbox(&[Shard(0)], Some(id(2)), 100).await.unwrap(), rows[2..]);
    assert_eq!(store.outbox(&[Shard(1)], None, 100).await.unwrap(), []);
    assert_eq!(store.outbox(&[], None, 100).await.unwrap(), []);
    assert_eq!(store.effect(id(3)).await.unwrap(), Some(row("b", 3)));
    assert_eq!(store.effect(id(9)).await.unwrap(), None);
    let of_a = [row("a", 1), row("a", 2), row("a", 4)];
    assert_eq!(store.outbox_of(&Address::new("carts", "a"), 100).await.unwrap(), of_a);
    assert_eq!(store.outbox_of(&Address::new("carts", "a"), 1).await.unwrap(), of_a[..1]);
    assert_eq!(store.outbox_of(&Address::new("games", "a"), 100).await.unwrap(), []);
    let events = all_events(store, &Address::new("carts", "a")).await;
    assert_eq!(numbers(&events), [1, 2, 3]);
}

pub async fn keeps_effects_of_commands_without_events(mut fixture: impl Fixture) {
    fixture.commit(&[Write { effects: vec![effect(1)], ..write("new", 0, 0) }]).await;
    let store = fixture.store();
    assert_eq!(outbox(store).await, [row("new", 1)]);
    let filter = EntityFilter { limit: 10, ..EntityFilter::default() };
    assert_eq!(store.entities(&filter).await.unwrap().entities, []);
    fixture.commit(&[write("new", 0, 1)]).await;
}

pub async fn stores_neither_effects_nor_timers_of_a_batch_with_a_conflict(
    mut fixture: impl Fixture,
) {
    let timer = Timer {
        due_ms: 1,
        every_ms: None,
        method: "M".into(),
        payload: Bytes::new(),
        token: [1; 16],
    };
    let timers = vec![TimerChange { name: "t".into(), set: Some(timer) }];
    let good = Write { effects: vec![effect(1)], timers, ..write("a", 0, 1) };
    let batch = [good, write("b", 7, 1)];
    let error = fixture.store().commit(&batch, &[]).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    fixture.settle().await;
    let store = fixture.store();
    assert_eq!(outbox(store).await, []);
    assert_eq!(store.timers(&[Shard(0)], u64::MAX, 10).await.unwrap(), []);
}

pub async fn forgets_effects_that_are_done(mut fixture: impl Fixture) {
    let effects: Vec<NewEffect> = (1..200).map(effect).collect();
    let receipt = Receipt {
        key: "k".into(),
        request_hash: [7; 32],
        reply: Bytes::from_static(b"reply"),
        expires_at_ms: FUTURE_MS,
    };
    let receipts = Some(receipt.clone());
    fixture.commit(&[Write { effects, receipt: receipts, ..write("a", 0, 1) }]).await;
    // One that is not there is as good as done.
    let done: Vec<EffectId> = (1..1_000).filter(|n| n % 100 != 7).map(id).collect();
    fixture.chores([Task::EffectDone(done)]).await;
    let store = fixture.store();
    assert_eq!(outbox(store).await, [row("a", 7), row("a", 107)]);
    let a = Address::new("carts", "a");
    assert_eq!(store.receipt(&a, "k", 0).await.unwrap(), Some(receipt));
    fixture.chores([Task::EffectDone(vec![id(7), id(107)])]).await;
    assert_eq!(outbox(fixture.store()).await, []);
}

pub async fn forgets_an_effect_with_the_write_that_has_its_result(mut fixture: impl Fixture) {
    let effects: Vec<NewEffect> = (1..=2).map(effect).collect();
    fixture.commit(&[Write { effects, ..write("a", 0, 1) }]).await;
    fixture.commit(&[Write { result_of: Some(id(1)), ..write("a", 1, 1) }]).await;
    assert_eq!(outbox(fixture.store()).await, [row("a", 2)]);
}

pub async fn puts_effects_off_parks_and_retries_them(mut fixture: impl Fixture) {
    let effects: Vec<NewEffect> = (1..=3).map(effect).collect();
    fixture.commit(&[Write { effects, ..write("a", 0, 1) }]).await;
    let error = || String::from("UNAVAILABLE: \0 away");
    let later = Task::EffectLater { id: id(1), tries: 3, due_ms: 77, error: error() };
    let park = |n| Task::EffectPark { id: id(n), tries: 20, error: error() };
    let gone = Task::EffectPark { id: id(9), tries: 1, error: error() };
    fixture.chores([later, park(2), park(3), gone]).await;
    let store = fixture.store();
    let put_off = OutboxRow { tries: 3, due_ms: 77, error: error(), ..row("a", 1) };
    let parked = |n| OutboxRow { tries: 20, parked: true, error: error(), ..row("a", n) };
    assert_eq!(outbox(store).await, std::slice::from_ref(&put_off));
    assert_eq!(store.dead_letters(None, 10).await.unwrap(), [parked(2), parked(3)]);
    assert_eq!(store.dead_letters(None, 1).await.unwrap(), [parked(2)]);
    assert_eq!(store.dead_letters(Some(id(2)), 10).await.unwrap(), [parked(3)]);
    assert_eq!(store.effect(id(2)).await.unwrap(), Some(parked(2)));
    let a = Address::new("carts", "a");
    let of_a = store.outbox_of(&a, 10).await.unwrap();
    assert_eq!(of_a, [put_off.clone(), parked(2), parked(3)]);
    fixture.chores([Task::EffectRetry(id(2)), Task::EffectDone(vec![id(3)])]).await;
    let store = fixture.store();
    assert_eq!(outbox(store).await, [put_off, row("a", 2)]);
    assert_eq!(store.dead_letters(None, 10).await.unwrap(), []);
}

pub async fn applies_the_chores_of_a_batch_in_order(mut fixture: impl Fixture) {
    let effects: Vec<NewEffect> = (1..=3).map(effect).collect();
    fixture.commit(&[Write { effects, ..write("a", 0, 1) }]).await;
    let later = |n, tries| Task::EffectLater { id: id(n), tries, due_ms: 5, error: "later".into() };
    let park = |n| Task::EffectPark { id: id(n), tries: 2, error: "parked".into() };
    // Together with a write, which adds an effect.
    let tasks = [later(1, 1), later(1, 2), park(2), Task::EffectRetry(id(2)), later(3, 1)];
    let tasks = tasks.into_iter().chain([Task::EffectDone(vec![id(3)]), later(3, 2)]);
    let chores: Vec<Chore> = tasks.map(chore).collect();
    let batch = [Write { effects: vec![effect(4)], ..write("a", 1, 1) }];
    fixture.commit_with(&batch, &chores).await;
    let first = OutboxRow { tries: 2, due_ms: 5, error: "later".into(), ..row("a", 1) };
    assert_eq!(outbox(fixture.store()).await, [first, row("a", 2), row("a", 4)]);
}

pub async fn ends_a_page_of_effects_at_its_bytes(mut fixture: impl Fixture) {
    let large = |n: u64| NewEffect {
        id: id(n),
        call: StoredCall { payload: vec![n as u8; ROWS_READ_BYTES_MAX / 2].into(), ..call(n) },
    };
    for n in 1..=3 {
        fixture.commit(&[Write { effects: vec![large(n)], ..write("a", n - 1, 1) }]).await;
    }
    let store = fixture.store();
    let ids = |rows: Vec<OutboxRow>| rows.iter().map(|row| row.id).collect::<Vec<_>>();
    let page = store.outbox(&[Shard(0)], None, 100).await.unwrap();
    assert_eq!(page[1].call, large(2).call);
    assert_eq!(ids(page), [id(1), id(2)]);
    assert_eq!(ids(store.outbox(&[Shard(0)], Some(id(2)), 100).await.unwrap()), [id(3)]);
    assert_eq!(ids(store.outbox(&[Shard(0)], Some(id(3)), 100).await.unwrap()), []);
}
