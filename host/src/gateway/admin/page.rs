//! Pages of entities: what is stored and what is in memory, merged in the order of addresses.

use std::cmp::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::entity::HotEntity;
use crate::journal::{EntityPage, EntitySummary};
use crate::words::{Address, EntityId, JournalName, Seq, Status, limits};

/// An entity that is stored, hot, or both.
#[derive(Clone, Debug)]
pub struct Row {
    pub address: Address,
    pub seq: Seq,
    pub hot: Option<HotEntity>,
}

impl From<EntitySummary> for Row {
    fn from(stored: EntitySummary) -> Self {
        Self {
            address: Address { journal: stored.journal, id: stored.id },
            seq: stored.seq,
            hot: None,
        }
    }
}

impl From<HotEntity> for Row {
    fn from(hot: HotEntity) -> Self {
        let address = Address { journal: hot.journal.clone(), id: hot.id.clone() };
        Self { address, seq: hot.seq, hot: Some(hot) }
    }
}

/// Rows in order, and where to go on, if there are more.
#[derive(Clone, Debug, Default)]
pub struct Page {
    pub rows: Vec<Row>,
    pub next: Option<Address>,
}

/// The first `limit` of what is stored and what is hot together. Both must be in order and start
/// after the same address; `hot` must have one more than `limit`, if there are so many.
pub fn merge(stored: EntityPage, mut hot: Vec<HotEntity>, limit: usize) -> Page {
    let stored_more = stored.more;
    if let Some(last) = stored.entities.last().filter(|_| stored_more) {
        // Beyond it, something stored may be missing in between.
        hot.retain(|hot| (&hot.journal, &hot.id) <= (&last.journal, &last.id));
    }
    let mut stored = stored.entities.into_iter().map(Row::from).peekable();
    let mut hot = hot.into_iter().map(Row::from).peekable();
    let mut rows: Vec<Row> = Vec::new();
    while rows.len() < limit {
        let order = match (stored.peek(), hot.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(stored), Some(hot)) => stored.address.cmp(&hot.address),
        };
        let row = match order {
            Ordering::Less => stored.next(),
            Ordering::Greater => hot.next(),
            // What is in memory was asked later, but may count events that are not durable yet.
            Ordering::Equal => stored.next().and(hot.next()),
        };
        rows.extend(row);
    }
    let more = stored_more || stored.peek().is_some() || hot.peek().is_some();
    let next = rows.last().filter(|_| more).map(|row| row.address.clone());
    Page { rows, next }
}

/// How many entries a page shall have.
pub fn size(page_size: i32) -> Result<usize, Status> {
    match usize::try_from(page_size) {
        Ok(0) => Ok(limits::LIST_PAGE_DEFAULT),
        Ok(size) => Ok(size.min(limits::LIST_PAGE_MAX)),
        Err(_) => Err(Status::invalid_argument("page_size must not be negative")),
    }
}

/// What a client gives back to go on after `last`.
pub fn token(last: &Address) -> String {
    let pair = serde_json::json!([last.journal.as_str(), last.id.as_str()]);
    URL_SAFE_NO_PAD.encode(pair.to_string())
}

pub fn parse_token(token: &str) -> Result<Option<Address>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    let pair: Option<(String, String)> =
        URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let (journal, id) = pair.ok_or_else(|| {
        Status::invalid_argument(
            "page_token is not one that this host gave; start with an empty one",
        )
    })?;
    Ok(Some(Address { journal: JournalName::from(journal), id: EntityId::from(id) }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn stored(id: &str) -> EntitySummary {
        EntitySummary { journal: "carts".into(), id: id.into(), seq: Seq(1) }
    }

    fn hot(id: &str) -> HotEntity {
        HotEntity {
            journal: "carts".into(),
            id: id.into(),
            seq: Seq(2),
            memory_bytes: 65_536,
            idle: Duration::ZERO,
            queued: 0,
        }
    }

    fn page_of(ids: &[&str], more: bool) -> EntityPage {
        EntityPage { entities: ids.iter().map(|id| stored(id)).collect(), more }
    }

    fn ids(rows: &[Row]) -> Vec<&str> {
        rows.iter().map(|row| row.address.id.as_str()).collect()
    }

    #[test]
    fn an_entity_that_is_stored_and_hot_appears_once() {
        let page = merge(page_of(&["a", "b"], false), vec![hot("b"), hot("c")], 10);
        assert_eq!(ids(&page.rows), ["a", "b", "c"]);
        assert!(page.rows[0].hot.is_none() && page.rows[1].hot.is_some());
        assert_eq!(page.rows[1].seq, Seq(2));
        assert_eq!(page.next, None);
    }

    #[test]
    fn what_does_not_fit_is_left_for_the_next_page() {
        let page = merge(page_of(&["b"], false), vec![hot("a"), hot("c")], 2);
        assert_eq!(ids(&page.rows), ["a", "b"]);
        assert_eq!(page.next, Some(Address::new("carts", "b")));
        assert_eq!(merge(page_of(&["a"], false), vec![hot("a")], 1).next, None);
        assert!(merge(page_of(&["a"], true), vec![hot("a")], 1).next.is_some());
    }

    #[test]
    fn nothing_is_shown_beyond_what_the_store_has_told() {
        let page = merge(page_of(&["a"], true), vec![hot("b")], 10);
        assert_eq!(ids(&page.rows), ["a"]);
        assert_eq!(page.next, Some(Address::new("carts", "a")));
    }

    #[test]
    fn tokens_survive_odd_names_and_foreign_ones_are_refused() {
        let address = Address::new("carts", "a/b\"\u{0}ü~");
        assert_eq!(parse_token(&token(&address)).unwrap(), Some(address));
        assert_eq!(parse_token("").unwrap(), None);
        for foreign in ["!", "AAAA", "W10"] {
            assert!(parse_token(foreign).is_err(), "{foreign}");
        }
    }

    #[test]
    fn page_sizes_are_bounded() {
        assert_eq!(size(0).unwrap(), limits::LIST_PAGE_DEFAULT);
        assert_eq!(size(i32::MAX).unwrap(), limits::LIST_PAGE_MAX);
        assert!(size(-1).is_err());
    }

    proptest! {
        /// Whatever is where, walking the pages shows every entity once, in order.
        #[test]
        fn pages_together_are_the_union(
            stored_ids in prop::collection::btree_set("[a-d]{1,3}", 0..20),
            hot_ids in prop::collection::btree_set("[a-d]{1,3}", 0..20),
            limit in 1_usize..6,
        ) {
            let union: Vec<String> = stored_ids.union(&hot_ids).cloned().collect();
            let mut seen = Vec::new();
            let mut after = None::<String>;
            for _ in 0..=union.len() {
                let rest = |ids: &std::collections::BTreeSet<String>| {
                    let after = after.clone().unwrap_or_default();
                    ids.iter().filter(|id| **id > after).cloned().collect::<Vec<_>>()
                };
                let (stored_rest, hot_rest) = (rest(&stored_ids), rest(&hot_ids));
                let page = merge(
                    EntityPage {
                        entities: stored_rest.iter().take(limit).map(|id| stored(id)).collect(),
                        more: stored_rest.len() > limit,
                    },
                    hot_rest.iter().take(limit + 1).map(|id| hot(id)).collect(),
                    limit,
                );
                seen.extend(ids(&page.rows).into_iter().map(String::from));
                match page.next {
                    Some(next) => after = Some(next.id.to_string()),
                    None => break,
                }
            }
            prop_assert_eq!(seen, union);
        }
    }
}
