//! What a view's service says: what a row is, which of its fields are indexed, and what each method asks.
//!
//! A *get* method's request has the entity key, and its response is the row. A *list* method's response has
//! one repeated field of rows, and perhaps `next_page_token`; its request may have `page_size`, `page_token`
//! and `order_by` (as in AIP-132 and AIP-158), and filters: fields that are named as an indexed field of the
//! row and have its type.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost_reflect::{
    Cardinality, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
    ServiceDescriptor, Value,
};

use crate::registry::wire;
use crate::words::JournalName;
use crate::words::limits::{VIEW_INDEXES_MAX, VIEW_VALUE_BYTES_MAX};

/// `(stead.indexed)`
const INDEXED_OPTION: u32 = 50803;
const TIMESTAMP: &str = "google.protobuf.Timestamp";

/// Names of fields, and their values as bytes in the order of the values.
pub type IndexValues = Vec<(Arc<str>, Vec<u8>)>;

/// A view, as its settings and descriptors describe it.
#[derive(Clone, Debug)]
pub struct View {
    /// The entity type of whose events it is made.
    pub source: JournalName,
    /// Another number has it made anew.
    pub version: u32,
    pub row: MessageDescriptor,
    pub indexes: Vec<Index>,
    /// By method name.
    pub methods: BTreeMap<Arc<str>, ViewMethod>,
}

/// A field of the row that can be filtered and ordered by.
#[derive(Clone, Debug)]
pub struct Index {
    pub name: Arc<str>,
    field: FieldDescriptor,
}

#[derive(Clone, Debug)]
pub enum ViewMethod {
    Get,
    List(List),
}

/// Where a list method has what.
#[derive(Clone, Debug)]
pub struct List {
    pub request: MessageDescriptor,
    /// The number of the response's repeated field.
    pub rows: u32,
    pub next_page_token: Option<u32>,
    page_size: Option<FieldDescriptor>,
    page_token: Option<FieldDescriptor>,
    order_by: Option<FieldDescriptor>,
    /// A field of the request, and which index it filters by.
    filters: Vec<(FieldDescriptor, usize)>,
}

/// What one call of a list method asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// 0 if the caller leaves it to the host.
    pub page_size: i64,
    pub page_token: String,
    /// Which index to order by, and whether from the greatest down; none: by key.
    pub order: Option<(usize, bool)>,
    /// Which index must have which value.
    pub filters: Vec<(usize, Vec<u8>)>,
}

impl View {
    /// Faults are sentences for the author of the service.
    pub fn of(
        service: &ServiceDescriptor,
        source: JournalName,
        version: u32,
    ) -> Result<Self, Vec<String>> {
        let mut faults = Vec::new();
        let Some(row) = row_of(service, &mut faults) else { return Err(faults) };
        let indexes = indexes_of(&row, &mut faults);
        let mut methods = BTreeMap::new();
        for method in service.methods() {
            let name = method.full_name().to_owned();
            if method.is_client_streaming() || method.is_server_streaming() {
                faults.push(format!("{name}: it streams, which a view cannot; make it unary"));
            } else if method.output() == row {
                methods.insert(method.name().into(), ViewMethod::Get);
            } else {
                let list = List::of(&method, &row, &indexes);
                let list = list.map_err(|fault| faults.push(format!("{name}: {fault}")));
                methods
                    .extend(list.ok().map(|list| (method.name().into(), ViewMethod::List(list))));
            }
        }
        match faults.is_empty() {
            true => Ok(Self { source, version, row, indexes, methods }),
            false => Err(faults),
        }
    }

    /// The values of the row's indexed fields, as bytes in their order. A field that is not there has its
    /// default value.
    ///
    /// # Errors
    ///
    /// A sentence, if the row is no such message.
    pub fn index_values(&self, row: &[u8]) -> Result<IndexValues, String> {
        let row = DynamicMessage::decode(self.row.clone(), row)
            .map_err(|error| format!("the row is not a valid {}: {error}", self.row.full_name()))?;
        let value =
            |index: &Index| Some((index.name.clone(), ordered(&row.get_field(&index.field))?));
        Ok(self.indexes.iter().filter_map(value).collect())
    }
}

fn row_of(service: &ServiceDescriptor, faults: &mut Vec<String>) -> Option<MessageDescriptor> {
    let name = service.full_name();
    let mut rows = service.methods().filter_map(|method| {
        let has_key = method.input().fields().any(|field| super::descriptor::is_entity_key(&field));
        match has_key {
            true => Some(method.output()),
            false => repeated(&method.output()).map(|(_, row)| row),
        }
    });
    let Some(row) = rows.next() else {
        faults.push(format!(
            "{name}: a view has methods that return its row, for a request with an entity key, or a \
             message with one repeated field of rows"
        ));
        return None;
    };
    for other in rows.filter(|other| *other != row) {
        faults.push(format!(
            "{name}: a view has one type of row, and this has two: {} and {}",
            row.full_name(),
            other.full_name()
        ));
    }
    Some(row)
}

/// The one repeated field of messages.
fn repeated(message: &MessageDescriptor) -> Option<(u32, MessageDescriptor)> {
    let mut found = message.fields().filter_map(|field| match field.kind() {
        Kind::Message(row) if field.is_list() => Some((field.number(), row)),
        _ => None,
    });
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

fn indexes_of(row: &MessageDescriptor, faults: &mut Vec<String>) -> Vec<Index> {
    let mut indexes = Vec::new();
    for field in row.fields().filter(is_indexed) {
        let can_be = field.cardinality() != Cardinality::Repeated
            && match field.kind() {
                Kind::Message(message) => message.full_name() == TIMESTAMP,
                _ => true,
            };
        if can_be {
            indexes.push(Index { name: field.name().into(), field });
        } else {
            faults.push(format!(
                "{}: it is marked (stead.indexed), which a single number, string, bool, enum, bytes or \
                 {TIMESTAMP} can be",
                field.full_name()
            ));
        }
    }
    if indexes.len() > VIEW_INDEXES_MAX {
        faults.push(format!(
            "{}: {} fields are marked (stead.indexed); the limit is {VIEW_INDEXES_MAX}",
            row.full_name(),
            indexes.len()
        ));
    }
    indexes
}

fn is_indexed(field: &FieldDescriptor) -> bool {
    use prost::Message as _;
    let options = field.options().encode_to_vec();
    wire::fields(&options).flatten().any(|option| {
        option.number == INDEXED_OPTION
            && matches!(option.value, wire::Value::Varint(value) if value != 0)
    })
}

impl List {
    fn of(
        method: &MethodDescriptor,
        row: &MessageDescriptor,
        indexes: &[Index],
    ) -> Result<Self, String> {
        let (request, response) = (method.input(), method.output());
        let Some((rows, _)) = repeated(&response).filter(|(_, found)| found == row) else {
            return Err(format!(
                "its response {} is neither the row {} nor a message with one repeated field of it",
                response.full_name(),
                row.full_name()
            ));
        };
        let token = response.get_field_by_name("next_page_token");
        let mut list = Self {
            rows,
            next_page_token: token.filter(is_string).map(|field| field.number()),
            page_size: None,
            page_token: None,
            order_by: None,
            filters: Vec::new(),
            request: request.clone(),
        };
        for field in request.fields() {
            match field.name() {
                "page_size" if matches!(field.kind(), Kind::Int32 | Kind::Uint32 | Kind::Int64) => {
                    list.page_size = Some(field);
                }
                "page_token" if is_string(&field) => list.page_token = Some(field),
                "order_by" if is_string(&field) => list.order_by = Some(field),
                name => {
                    let index = indexes.iter().position(|index| {
                        *index.name == *name
                            && index.field.kind() == field.kind()
                            && !field.is_list()
                    });
                    let Some(index) = index else {
                        return Err(format!(
                            "the field {name} of its request filters nothing; it must be page_size, \
                             page_token, order_by, or have name and type of a field of {} that is marked \
                             (stead.indexed)",
                            row.full_name()
                        ));
                    };
                    list.filters.push((field, index));
                }
            }
        }
        Ok(list)
    }

    /// Reads a request.
    ///
    /// # Errors
    ///
    /// A sentence that names the field.
    pub fn asked(&self, view: &View, request: &[u8]) -> Result<Asked, String> {
        let name = self.request.full_name();
        let message = DynamicMessage::decode(self.request.clone(), request)
            .map_err(|error| format!("the request is not a valid {name}: {error}"))?;
        let text = |field: &Option<FieldDescriptor>| {
            let value = field.as_ref().map(|field| message.get_field(field).into_owned());
            value.and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
        };
        let page_size = self.page_size.as_ref().map(|field| message.get_field(field).into_owned());
        let mut filters = Vec::new();
        for (field, index) in &self.filters {
            if message.has_field(field) {
                filters.extend(ordered(&message.get_field(field)).map(|value| (*index, value)));
            }
        }
        Ok(Asked {
            page_size: match page_size {
                Some(Value::I32(size)) => size.into(),
                Some(Value::U32(size)) => size.into(),
                Some(Value::I64(size)) => size,
                _ => 0,
            },
            page_token: text(&self.page_token),
            order: order(view, &text(&self.order_by))?,
            filters,
        })
    }
}

fn is_string(field: &FieldDescriptor) -> bool {
    field.kind() == Kind::String && !field.is_list()
}

/// `count`, `count asc` or `count desc`.
fn order(view: &View, text: &str) -> Result<Option<(usize, bool)>, String> {
    let mut words = text.split_whitespace();
    let Some(name) = words.next() else { return Ok(None) };
    let index = view.indexes.iter().position(|index| *index.name == *name);
    let descending = match (words.next(), words.next()) {
        (None | Some("asc"), None) => Some(false),
        (Some("desc"), None) => Some(true),
        _ => None,
    };
    match (index, descending) {
        (Some(index), Some(descending)) => Ok(Some((index, descending))),
        _ => {
            let names: Vec<&str> = view.indexes.iter().map(|index| &*index.name).collect();
            let shown: String = text.chars().take(100).collect();
            Err(format!(
                "order_by is {shown:?}; it must be one of {}, with ` desc` behind it to begin with the \
                 greatest",
                names.join(", ")
            ))
        }
    }
}

/// A value as bytes whose order is that of the values. Long strings and bytes are cut.
fn ordered(value: &Value) -> Option<Vec<u8>> {
    let signed = |number: i64| (number as u64 ^ 1 << 63).to_be_bytes().to_vec();
    let float = |number: f64| {
        let bits = number.to_bits();
        let flipped = if bits >> 63 == 1 { !bits } else { bits ^ 1 << 63 };
        flipped.to_be_bytes().to_vec()
    };
    let cut = |bytes: &[u8]| bytes[..bytes.len().min(VIEW_VALUE_BYTES_MAX)].to_vec();
    Some(match value {
        Value::Bool(value) => vec![u8::from(*value)],
        Value::I32(value) => signed((*value).into()),
        Value::I64(value) => signed(*value),
        Value::U32(value) => u64::from(*value).to_be_bytes().to_vec(),
        Value::U64(value) => value.to_be_bytes().to_vec(),
        Value::F32(value) => float((*value).into()),
        Value::F64(value) => float(*value),
        Value::EnumNumber(value) => signed((*value).into()),
        Value::String(value) => cut(value.as_bytes()),
        Value::Bytes(value) => cut(value),
        Value::Message(message) => timestamp(message)?,
        Value::List(_) | Value::Map(_) => return None,
    })
}

fn timestamp(message: &DynamicMessage) -> Option<Vec<u8>> {
    let number = |name| {
        message.get_field_by_name(name).and_then(|value| match *value {
            Value::I64(value) => Some(value),
            Value::I32(value) => Some(value.into()),
            _ => None,
        })
    };
    let (seconds, nanos) = (number("seconds")?, number("nanos")?);
    let mut bytes = (seconds as u64 ^ 1 << 63).to_be_bytes().to_vec();
    bytes.extend((nanos as u32).to_be_bytes());
    Some(bytes)
}

#[cfg(test)]
mod tests;
