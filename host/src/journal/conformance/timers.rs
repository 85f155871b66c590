//! Timers.

use super::*;
use crate::journal::store::{DueTimer, Timer, TimerChange, TimerRow};

fn timer(due_ms: u64, token: u8) -> Timer {
    Timer {
        due_ms,
        every_ms: token.is_multiple_of(2).then_some(u64::from(token) * 100),
        method: format!("Fire{token}"),
        payload: Bytes::from(vec![token, 0, 0xff]),
        token: [token; 16],
    }
}

fn set(name: &str, due_ms: u64, token: u8) -> TimerChange {
    TimerChange { name: name.into(), set: Some(timer(due_ms, token)) }
}

fn cancel(name: &str) -> TimerChange {
    TimerChange { name: name.into(), set: None }
}

fn timed(id: &str, after: u64, count: usize, timers: Vec<TimerChange>) -> Write {
    Write { timers, ..write(id, after, count) }
}

fn row(id: &str, name: &str, due_ms: u64, token: u8) -> TimerRow {
    TimerRow {
        shard: Shard(0),
        address: Address::new("carts", id),
        name: name.into(),
        timer: timer(due_ms, token),
        tries: 0,
        error: String::new(),
    }
}

fn due(id: &str, name: &str, due_ms: u64, token: u8) -> DueTimer {
    let address = Address::new("carts", id);
    DueTimer { shard: Shard(0), address, name: name.into(), due_ms, token: [token; 16] }
}

pub async fn finds_timers_that_are_due_earliest_first(mut fixture: impl Fixture) {
    let batch = [
        timed("a", 0, 1, vec![set("late", 300, 1), set("soon", 100, 2)]),
        timed("b", 0, 0, vec![set("soon", 200, 3)]),
    ];
    fixture.commit(&batch).await;
    let store = fixture.store();
    let timers =
        async |until, limit| store.timers(&[Shard(0), Shard(1)], until, limit).await.unwrap();
    let all = [due("a", "soon", 100, 2), due("b", "soon", 200, 3), due("a", "late", 300, 1)];
    assert_eq!(timers(u64::MAX, 10).await, all);
    assert_eq!(timers(200, 10).await, all[..2]);
    assert_eq!(timers(300, 1).await, all[..1]);
    assert_eq!(timers(99, 10).await, []);
    assert_eq!(store.timers(&[Shard(1)], u64::MAX, 10).await.unwrap(), []);
    let a = Address::new("carts", "a");
    let of_a = [row("a", "late", 300, 1), row("a", "soon", 100, 2)];
    assert_eq!(store.timers_of(&a, 10).await.unwrap(), of_a);
    assert_eq!(store.timers_of(&a, 1).await.unwrap(), of_a[..1]);
    assert_eq!(store.timers_of(&Address::new("carts", "c"), 1).await.unwrap(), []);
}

pub async fn sets_a_timer_again_and_cancels_it(mut fixture: impl Fixture) {
    let a = Address::new("carts", "a");
    fixture.commit(&[timed("a", 0, 1, vec![set("x", 100, 1), set("y", 200, 2)])]).await;
    fixture.commit(&[timed("a", 1, 0, vec![set("x", 150, 3), cancel("y"), cancel("z")])]).await;
    let store = fixture.store();
    assert_eq!(store.timers_of(&a, 10).await.unwrap(), [row("a", "x", 150, 3)]);
    assert_eq!(store.timers(&[Shard(0)], 1_000, 10).await.unwrap(), [due("a", "x", 150, 3)]);
    // Of a batch the last change counts, of a command too.
    let batch = [
        timed("a", 1, 1, vec![set("x", 1, 4), cancel("x"), set("y", 1, 5)]),
        timed("a", 2, 1, vec![set("x", 2, 6), set("x", 3, 7)]),
        timed("a", 3, 1, vec![cancel("y")]),
    ];
    fixture.commit(&batch).await;
    assert_eq!(fixture.store().timers_of(&a, 10).await.unwrap(), [row("a", "x", 3, 7)]);
    fixture.commit(&[timed("a", 4, 0, vec![cancel("x")])]).await;
    assert_eq!(fixture.store().timers(&[Shard(0)], 1_000, 10).await.unwrap(), []);
}

pub async fn puts_a_timer_off_unless_it_was_set_again(mut fixture: impl Fixture) {
    let later = |name: &str, token, due_ms| Task::TimerLater {
        address: Address::new("carts", "a"),
        name: name.into(),
        token: [token; 16],
        due_ms,
        tries: 4,
        error: "away".into(),
    };
    let a = Address::new("carts", "a");
    fixture.commit(&[timed("a", 0, 1, vec![set("x", 100, 1), set("y", 100, 2)])]).await;
    fixture.chores([later("x", 1, 500), later("y", 9, 500), later("z", 1, 500)]).await;
    let x = TimerRow { tries: 4, error: "away".into(), ..row("a", "x", 500, 1) };
    let of_a = fixture.store().timers_of(&a, 10).await.unwrap();
    assert_eq!(of_a, [x, row("a", "y", 100, 2)]);
    // Setting it anew counts from the start; in one batch too, and then nothing puts it off.
    let batch = [timed("a", 1, 1, vec![set("x", 600, 3)])];
    fixture.commit_with(&batch, &[chore(later("x", 1, 900)), chore(later("y", 2, 700))]).await;
    let y = TimerRow { tries: 4, error: "away".into(), ..row("a", "y", 700, 2) };
    let of_a = fixture.store().timers_of(&a, 10).await.unwrap();
    assert_eq!(of_a, [row("a", "x", 600, 3), y]);
}

pub async fn keeps_everything_of_a_timer(mut fixture: impl Fixture) {
    let odd = "n\0ä/'";
    let timers = vec![set(odd, 1 << 50, 8), set("once", 5, 9)];
    fixture.commit(&[timed("a", 0, 1, timers)]).await;
    let store = fixture.store();
    let a = Address::new("carts", "a");
    assert_eq!(store.timer(&a, odd).await.unwrap(), Some(row("a", odd, 1 << 50, 8)));
    assert_eq!(store.timer(&a, "once").await.unwrap(), Some(row("a", "once", 5, 9)));
    assert_eq!(store.timer(&a, "n").await.unwrap(), None);
    assert_eq!(store.timer(&Address::new("carts", "b"), "once").await.unwrap(), None);
}

pub async fn lists_timers_of_all_entities_in_order(mut fixture: impl Fixture) {
    let batch = [
        timed("b", 0, 1, vec![set("x", 1, 1)]),
        timed("a", 0, 0, vec![set("y", 2, 2), set("x", 3, 3)]),
    ];
    fixture.commit(&batch).await;
    let store = fixture.store();
    let all = [row("a", "x", 3, 3), row("a", "y", 2, 2), row("b", "x", 1, 1)];
    assert_eq!(store.list_timers(None, 10).await.unwrap(), all);
    let mut found: Vec<TimerRow> = Vec::new();
    loop {
        let after = found.last().map(|row| (row.address.clone(), row.name.clone()));
        let after = after.as_ref().map(|(address, name)| (address, name.as_str()));
        let page = store.list_timers(after, 1).await.unwrap();
        if page.is_empty() {
            break;
        }
        found.extend(page);
    }
    assert_eq!(found, all);
}
