//! Views, as callers see them: rows by key, and lists of rows.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint};
use tokio::sync::watch;

use crate::journal::{Journal, StoreError, ViewQuery, ViewRange};
use crate::registry::{Asked, List, Method, Service, View, ViewMethod};
use crate::words::{Status, limits};

/// The rows of all views. Cheap to clone.
#[derive(Clone)]
pub struct Views {
    journal: Journal,
    /// By service: the name under which the rows are stored that are served at the moment.
    serving: Arc<watch::Sender<HashMap<String, Arc<str>>>>,
}

/// Where the page before ended.
#[derive(Clone, PartialEq, prost::Message)]
struct Token {
    /// Of the request, without its page: a token is good for the same question only.
    #[prost(uint64, tag = "1")]
    question: u64,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
    #[prost(string, tag = "3")]
    key: String,
}

impl Views {
    /// Nothing is served yet.
    pub fn new(journal: Journal) -> Self {
        Self { journal, serving: Arc::default() }
    }

    pub(super) fn serve(&self, serving: HashMap<String, Arc<str>>) {
        self.serving.send_replace(serving);
    }

    pub(super) fn is_serving(&self, rows: &str) -> bool {
        self.serving.borrow().values().any(|served| **served == *rows)
    }

    /// Answers a call of a view's method, from the store. What was acknowledged a moment ago may not be
    /// there yet.
    pub async fn call(
        &self,
        service: &Service,
        method: &Method,
        payload: &[u8],
    ) -> Result<Bytes, Status> {
        let Some(view) = &service.view else {
            return Err(Status::internal(format!("{} is no view", service.name)));
        };
        let rows = self.rows_of(service).await?;
        match view.methods.get(&method.name) {
            Some(ViewMethod::Get) => self.get(&rows, method, payload).await,
            Some(ViewMethod::List(list)) => self.list(&rows, view, list, payload).await,
            None => Err(Status::unimplemented(format!("{} asks nothing of the view", method.path))),
        }
    }

    /// The rows that are served. Right after a deployment they may have to be looked up first.
    async fn rows_of(&self, service: &Service) -> Result<Arc<str>, Status> {
        let name = service.name.as_str();
        let mut serving = self.serving.subscribe();
        let known = serving.wait_for(|serving| serving.contains_key(name));
        let known = tokio::time::timeout(limits::VIEW_SERVED_WITHIN, known).await;
        let rows = known.ok().and_then(|known| known.ok()?.get(name).cloned());
        rows.ok_or_else(|| {
            Status::unavailable(format!("the view {name} is not served yet; a retry is safe"))
        })
    }

    async fn get(&self, rows: &str, method: &Method, payload: &[u8]) -> Result<Bytes, Status> {
        let Some(key) = &method.key else {
            return Err(Status::internal(format!("{} has no key", method.path)));
        };
        let key = key.read(payload).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let row = self.journal.view_row(rows, key.as_str()).await.map_err(from_store)?;
        let row = row.ok_or_else(|| Status::not_found(format!("the view has no row {key:?}")))?;
        Ok(row.message.data)
    }

    async fn list(
        &self,
        rows: &str,
        view: &View,
        list: &List,
        payload: &[u8],
    ) -> Result<Bytes, Status> {
        let asked = list.asked(view, payload).map_err(Status::invalid_argument)?;
        let size = page_size(asked.page_size)?;
        let question = question(rows, &asked);
        let mut after = match asked.page_token.as_str() {
            "" => None,
            token => Some(read_token(token, question)?),
        };
        let plan = Plan::of(view, &asked);
        let mut page = Page { list, answer: BytesMut::new(), rows: 0 };
        // Rows that filters leave out cost a reading each: so many at most, then a shorter page.
        for _ in 0..limits::VIEW_READS_MAX {
            let query = ViewQuery {
                index: plan.index.clone(),
                descending: plan.descending,
                after: after.clone(),
                limit: match plan.residual.is_empty() {
                    true => size - page.rows + 1,
                    false => limits::VIEW_ROWS_READ,
                },
            };
            let rows = self.journal.view_rows(rows, &query).await.map_err(from_store)?;
            let is_last = rows.len() < query.limit;
            for row in rows {
                let data = &row.message.data;
                if plan.matches(view, data)? && !page.add(data, size) {
                    return Ok(page.finish(after.map(|at| token(question, at))));
                }
                after = Some((row.value, row.key));
            }
            if is_last {
                return Ok(page.finish(None));
            }
        }
        Ok(page.finish(after.map(|at| token(question, at))))
    }
}

/// How a list is read from the store.
struct Plan {
    index: Option<(String, ViewRange)>,
    descending: bool,
    /// Filters that the index does not answer.
    residual: Vec<(usize, Vec<u8>)>,
}

impl Plan {
    fn of(view: &View, asked: &Asked) -> Self {
        let mut residual = asked.filters.clone();
        let descending = asked.order.is_some_and(|(_, descending)| descending);
        let index = match asked.order {
            Some((index, _)) => Some(index),
            None => residual.first().map(|(index, _)| *index),
        };
        let index = index.map(|index| {
            let equal = residual.iter().position(|(filtered, _)| *filtered == index);
            let range = match equal {
                Some(place) => ViewRange::equal(residual.remove(place).1),
                None => ViewRange::ALL,
            };
            (view.indexes[index].name.to_string(), range)
        });
        Self { index, descending, residual }
    }

    fn matches(&self, view: &View, row: &[u8]) -> Result<bool, Status> {
        if self.residual.is_empty() {
            return Ok(true);
        }
        let values = view.index_values(row).map_err(Status::data_loss)?;
        Ok(self.residual.iter().all(|(index, wanted)| {
            let name = &view.indexes[*index].name;
            values.iter().any(|(found, value)| found == name && value == wanted)
        }))
    }
}

/// The answer of a list, in protobuf's binary encoding, as it grows.
struct Page<'l> {
    list: &'l List,
    answer: BytesMut,
    rows: usize,
}

impl Page<'_> {
    /// False if there is no room for the row.
    fn add(&mut self, row: &[u8], rows_max: usize) -> bool {
        let room = limits::REPLY_BYTES_MAX - limits::VIEW_TOKEN_BYTES_MAX;
        let is_full = self.rows == rows_max || self.answer.len() + row.len() + 16 > room;
        if is_full && self.rows > 0 {
            return false;
        }
        encode_key(self.list.rows, WireType::LengthDelimited, &mut self.answer);
        encode_varint(row.len() as u64, &mut self.answer);
        self.answer.put_slice(row);
        self.rows += 1;
        true
    }

    fn finish(mut self, token: Option<String>) -> Bytes {
        if let (Some(number), Some(token)) = (self.list.next_page_token, token) {
            encode_key(number, WireType::LengthDelimited, &mut self.answer);
            encode_varint(token.len() as u64, &mut self.answer);
            self.answer.put_slice(token.as_bytes());
        }
        self.answer.freeze()
    }
}

fn page_size(asked: i64) -> Result<usize, Status> {
    match usize::try_from(asked) {
        Ok(0) => Ok(limits::LIST_PAGE_DEFAULT),
        Ok(size) => Ok(size.min(limits::LIST_PAGE_MAX)),
        Err(_) => Err(Status::invalid_argument(format!(
            "page_size is {asked}; it must be 0, for {}, or a number up to {}",
            limits::LIST_PAGE_DEFAULT,
            limits::LIST_PAGE_MAX
        ))),
    }
}

/// What identifies a question but for its page.
fn question(rows: &str, asked: &Asked) -> u64 {
    let mut text = format!("{rows}\n{:?}\n", asked.order).into_bytes();
    for (index, value) in &asked.filters {
        text.extend((*index as u64).to_be_bytes());
        text.extend((value.len() as u64).to_be_bytes());
        text.extend(value);
    }
    xxhash_rust::xxh3::xxh3_64(&text)
}

fn token(question: u64, (value, key): (Vec<u8>, String)) -> String {
    use prost::Message as _;
    URL_SAFE_NO_PAD.encode(Token { question, value, key }.encode_to_vec())
}

fn read_token(text: &str, question: u64) -> Result<(Vec<u8>, String), Status> {
    use prost::Message as _;
    let bytes = URL_SAFE_NO_PAD.decode(text).ok();
    let token = bytes.and_then(|bytes| Token::decode(bytes.as_slice()).ok());
    match token.filter(|token| token.question == question) {
        Some(token) => Ok((token.value, token.key)),
        None => Err(Status::invalid_argument(
            "page_token is not from an answer to the same request; begin again without it",
        )),
    }
}

fn from_store(error: StoreError) -> Status {
    Status::unavailable(format!("the view cannot be read; a retry is safe: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(filters: &[(usize, &[u8])], order: Option<(usize, bool)>) -> Asked {
        let filters = filters.iter().map(|(index, value)| (*index, value.to_vec())).collect();
        Asked { order, filters, ..Asked::default() }
    }

    #[test]
    fn a_token_is_good_for_the_same_question_only() {
        let first = asked(&[(0, b"a")], None);
        let at = (b"v".to_vec(), "key".to_owned());
        let token = token(question("v", &first), at.clone());
        assert_eq!(read_token(&token, question("v", &first)), Ok(at));
        for other in
            [asked(&[(0, b"b")], None), asked(&[(1, b"a")], None), asked(&[], Some((0, true)))]
        {
            assert!(read_token(&token, question("v", &other)).is_err());
        }
        assert!(read_token(&token, question("w", &first)).is_err());
        assert!(read_token("no token", question("v", &first)).is_err());
    }

    #[test]
    fn page_sizes_are_bounded_and_not_negative() {
        assert_eq!(page_size(0), Ok(limits::LIST_PAGE_DEFAULT));
        assert_eq!(page_size(7), Ok(7));
        assert_eq!(page_size(i64::MAX), Ok(limits::LIST_PAGE_MAX));
        assert!(page_size(-1).expect_err("refused").message.contains("page_size is -1"));
    }
}
