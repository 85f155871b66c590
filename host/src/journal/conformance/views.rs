//! Rows of views.

use std::ops::Bound;

use super::*;
use crate::journal::store::{Consumed, NewRow, RowChange, ViewQuery, ViewRange, ViewRow};
use crate::words::limits::VIEW_VALUE_BYTES_MAX;

fn message(text: &str) -> Message {
    Message::new("test.Row", Bytes::from(text.to_owned()))
}

/// A row with a value of the field `n`, and perhaps one of the field `other`.
fn row(key: &str, value: &[u8], other: Option<&str>) -> RowChange {
    let mut index = vec![(String::from("n"), value.to_vec())];
    index.extend(other.map(|other| (String::from("other"), other.as_bytes().to_vec())));
    let row = NewRow { message: message(&format!("{key} {value:?}")), index };
    RowChange { view: "v".into(), key: key.into(), row: Some(row) }
}

async fn change(fixture: &mut impl Fixture, rows: Vec<RowChange>) {
    let positions = fixture.store().group_positions("g").await.unwrap();
    let at = positions.first().map_or(0, |position| position.off);
    let group = String::from("g");
    let step = Consumed { group, expected_off: at, off: at + 1, rows, ..Consumed::default() };
    fixture.chores([Task::Consumed(step)]).await;
}

fn by(field: &str, range: ViewRange) -> ViewQuery {
    ViewQuery { index: Some((field.into(), range)), limit: 100, ..ViewQuery::default() }
}

async fn keys(store: &impl Store, query: &ViewQuery) -> String {
    let rows = store.view_rows("v", query).await.unwrap();
    rows.iter().map(|row| row.key.as_str()).collect::<Vec<_>>().join(" ")
}

fn deleted(key: &str) -> RowChange {
    RowChange { view: "v".into(), key: key.into(), row: None }
}

pub async fn keeps_rows_by_key(mut fixture: impl Fixture) {
    change(&mut fixture, vec![row("b", &[1], None), row("a\0ä", &[2], None), row("c", &[], None)])
        .await;
    change(&mut fixture, vec![row("b", &[7], None), deleted("c"), deleted("nothing")]).await;
    // Of a row that comes twice the last change counts.
    let twice = vec![row("d", &[1], None), deleted("d"), deleted("e"), row("e", &[5], None)];
    change(&mut fixture, twice).await;
    let store = fixture.store();
    let b = ViewRow { key: "b".into(), message: message("b [7]"), value: Vec::new() };
    assert_eq!(store.view_row("v", "b").await.unwrap(), Some(b.clone()));
    assert_eq!(store.view_row("v", "c").await.unwrap(), None);
    assert_eq!(store.view_row("w", "b").await.unwrap(), None);
    let all = ViewQuery { limit: 100, ..ViewQuery::default() };
    assert_eq!(keys(store, &all).await, "a\0ä b e");
    assert_eq!(store.view_rows("v", &all).await.unwrap()[1], b);
    let page = ViewQuery { after: Some((Vec::new(), "a\0ä".into())), limit: 1, ..all.clone() };
    assert_eq!(keys(store, &page).await, "b");
    let backwards = ViewQuery { descending: true, ..all };
    assert_eq!(keys(store, &backwards).await, "e b a\0ä");
    let page = ViewQuery { after: Some((Vec::new(), "b".into())), ..backwards };
    assert_eq!(keys(store, &page).await, "a\0ä");
}

pub async fn lists_rows_by_an_indexed_field_in_both_directions(mut fixture: impl Fixture) {
    let rows = vec![
        row("a", &[3], Some("x")),
        row("b", &[1, 0], Some("y")),
        row("c", &[], Some("x")),
        row("d", &[1], None),
        row("e", &[0xff, 0xff], Some("x")),
        row("f", &[1], None),
    ];
    change(&mut fixture, rows).await;
    let store = fixture.store();
    assert_eq!(keys(store, &by("n", ViewRange::ALL)).await, "c d f b a e");
    let backwards = ViewQuery { descending: true, ..by("n", ViewRange::ALL) };
    assert_eq!(keys(store, &backwards).await, "e a b f d c");
    assert_eq!(keys(store, &by("n", ViewRange::equal([1]))).await, "d f");
    assert_eq!(keys(store, &by("n", ViewRange::equal([]))).await, "c");
    assert_eq!(keys(store, &by("n", ViewRange::equal([9]))).await, "");
    // Rows without a value are not in the list.
    assert_eq!(keys(store, &by("other", ViewRange::ALL)).await, "a c e b");
    assert_eq!(keys(store, &by("nothing", ViewRange::ALL)).await, "");
    let range = |from, to| by("n", ViewRange { from, to });
    let (one, three) = (vec![1], vec![3]);
    let between = range(Bound::Included(one.clone()), Bound::Excluded(three.clone()));
    assert_eq!(keys(store, &between).await, "d f b");
    let between = range(Bound::Excluded(one), Bound::Included(three));
    assert_eq!(keys(store, &between).await, "b a");
    let values = store.view_rows("v", &between).await.unwrap();
    assert_eq!((&values[0].value[..], &values[0].message), (&[1, 0][..], &message("b [1, 0]")));
}

pub async fn pages_rows_by_value_and_key(mut fixture: impl Fixture) {
    let rows = (0..30u8).map(|n| row(&format!("{n:02}"), &[n / 10, n % 3], None)).collect();
    change(&mut fixture, rows).await;
    let store = fixture.store();
    for descending in [false, true] {
        let all = ViewQuery { descending, ..by("n", ViewRange::ALL) };
        let expected = store.view_rows("v", &all).await.unwrap();
        assert_eq!(expected.len(), 30);
        let mut found: Vec<ViewRow> = Vec::new();
        loop {
            let after = found.last().map(|row| (row.value.clone(), row.key.clone()));
            let page = ViewQuery { after, limit: 4, ..all.clone() };
            let page = store.view_rows("v", &page).await.unwrap();
            if page.is_empty() {
                break;
            }
            found.extend(page);
        }
        assert_eq!(found, expected);
    }
    // After a row that is gone, or never was.
    let after = Some((vec![1, 1], String::from("12")));
    let page = ViewQuery { after, limit: 2, ..by("n", ViewRange::ALL) };
    assert_eq!(keys(store, &page).await, "13 16");
}

pub async fn replaces_the_values_of_a_row(mut fixture: impl Fixture) {
    change(&mut fixture, vec![row("a", &[1], Some("x")), row("b", &[2], Some("x"))]).await;
    change(&mut fixture, vec![row("a", &[3], None)]).await;
    let store = fixture.store();
    assert_eq!(keys(store, &by("n", ViewRange::ALL)).await, "b a");
    assert_eq!(keys(store, &by("other", ViewRange::ALL)).await, "b");
    // Of a long value the first bytes count.
    let long = [vec![5; VIEW_VALUE_BYTES_MAX], vec![1]].concat();
    let longer = [vec![5; VIEW_VALUE_BYTES_MAX], vec![2]].concat();
    change(&mut fixture, vec![deleted("b"), row("a", &long, Some("z"))]).await;
    let store = fixture.store();
    assert_eq!(keys(store, &by("other", ViewRange::ALL)).await, "a");
    assert_eq!(keys(store, &by("n", ViewRange::equal(longer))).await, "a");
    assert_eq!(keys(store, &by("n", ViewRange::equal([1]))).await, "");
}

pub async fn deletes_a_view_and_no_other(mut fixture: impl Fixture) {
    let other = |key: &str| RowChange { view: "w\0ä".into(), ..row(key, &[1], Some("x")) };
    change(&mut fixture, vec![row("a", &[1], None), row("b", &[1], None), other("a")]).await;
    let store = fixture.store();
    assert_eq!(store.views(None, 10).await.unwrap(), ["v", "w\0ä"]);
    assert_eq!(store.views(Some("v"), 10).await.unwrap(), ["w\0ä"]);
    assert_eq!(store.views(None, 1).await.unwrap(), ["v"]);
    store.delete_view("v").await.unwrap();
    store.delete_view("nothing").await.unwrap();
    fixture.settle().await;
    let store = fixture.store();
    assert_eq!(store.views(None, 10).await.unwrap(), ["w\0ä"]);
    assert_eq!(store.view_row("v", "a").await.unwrap(), None);
    assert_eq!(keys(store, &by("n", ViewRange::ALL)).await, "");
    assert!(store.view_row("w\0ä", "a").await.unwrap().is_some());
    let rows = store.view_rows("w\0ä", &by("other", ViewRange::ALL)).await.unwrap();
    assert_eq!(rows.len(), 1);
}

pub async fn lists_rows_with_all_of_their_values(mut fixture: impl Fixture) {
    let rows = vec![row("a", &[1], Some("x")), row("b", &[2], None)];
    fixture.chores([Task::ViewRows(vec![row("b", &[9], Some("y"))])]).await;
    fixture.chores([Task::ViewRows(rows.clone())]).await;
    let store = fixture.store();
    assert_eq!(store.list_view("v", None, 10).await.unwrap(), rows);
    assert_eq!(store.list_view("v", None, 1).await.unwrap(), rows[..1]);
    assert_eq!(store.list_view("v", Some("a"), 10).await.unwrap(), rows[1..]);
    assert_eq!(store.list_view("w", None, 10).await.unwrap(), []);
    assert_eq!(store.groups(None, 10).await.unwrap(), [""; 0]);
}
