//! What nodes say to each other: protobuf messages over HTTP/2.
//!
//! | path     | request                                  | answers                        |
//! |----------|------------------------------------------|--------------------------------|
//! | `/call`  | [`CallHead`], then the command's payload | the reply; refused; not mine   |
//! | `/calls` | many of them, framed by `router::pipe`   | as many answers                |
//! | `/admin` | [`AdminHead`], then the request          | the reply; refused             |
//! | `/take`  | [`Take`]                                 | [`Taken`]                      |
//! | `/hello` | [`Hello`]                                | [`Hello`]                      |
//!
//! A head stands before the payload with its length as a varint. HTTP status 200: the body is the reply
//! itself. 421: a [`NotMine`]. 400: a [`Refusal`]. Unknown fields are ignored, so nodes of neighbouring versions
//! understand each other; a node refuses a protocol that it does not know.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::StatusCode;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};

use crate::cluster::routes::Route;
use crate::entity::Consistency;
use crate::words::{Code, Digest, Epoch, Message, NodeId, Status, Trail};

/// Stepped when nodes of two versions could misunderstand each other.
pub const PROTOCOL: u32 = 1;

pub const CALL: &str = "/call";
pub const CALLS: &str = "/calls";
pub const ADMIN: &str = "/admin";
pub const TAKE: &str = "/take";
pub const HELLO: &str = "/hello";

pub const REPLY: StatusCode = StatusCode::OK;
pub const REFUSED: StatusCode = StatusCode::BAD_REQUEST;
pub const NOT_MINE: StatusCode = StatusCode::MISDIRECTED_REQUEST;

/// Everything of a command but its payload.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CallHead {
    #[prost(uint32, tag = "1")]
    pub protocol: u32,
    #[prost(string, tag = "2")]
    pub service: String,
    #[prost(string, tag = "3")]
    pub method: String,
    #[prost(uint32, tag = "4")]
    pub shard: u32,
    /// Under which the sender takes the receiver for the owner.
    #[prost(uint64, tag = "5")]
    pub epoch: u64,
    /// What is left of it.
    #[prost(uint64, tag = "6")]
    pub deadline_ms: u64,
    #[prost(string, tag = "7")]
    pub request_id: String,
    #[prost(string, optional, tag = "8")]
    pub idempotency_key: Option<String>,
    #[prost(message, repeated, tag = "9")]
    pub metadata: Vec<Entry>,
    /// 0: leased, 1: fenced, 2: stale.
    #[prost(uint32, tag = "10")]
    pub consistency: u32,
    /// How often the command was forwarded before.
    #[prost(uint32, tag = "11")]
    pub hops: u32,
    /// What is live at the sender.
    #[prost(uint64, tag = "12")]
    pub revision: u64,
    #[prost(bytes = "bytes", tag = "13")]
    pub sender: Bytes,
    /// How many functions it came through: 0 from a client.
    #[prost(uint32, optional, tag = "14")]
    pub functions: Option<u32>,
    /// Another function sends it, not a client.
    #[prost(bool, optional, tag = "15")]
    pub from_function: Option<bool>,
    /// Names of those functions, oldest first; without the oldest ones if they are not known.
    #[prost(string, repeated, tag = "16")]
    pub through: Vec<String>,
    /// The digest of the module that serves the service at the sender.
    #[prost(bytes = "bytes", optional, tag = "17")]
    pub module: Option<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Entry {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct AdminHead {
    #[prost(uint32, tag = "1")]
    pub protocol: u32,
    /// Of `stead.admin.v1.Admin`.
    #[prost(string, tag = "2")]
    pub method: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Hello {
    #[prost(uint32, tag = "1")]
    pub protocol: u32,
    #[prost(bytes = "bytes", tag = "2")]
    pub node: Bytes,
    #[prost(string, tag = "3")]
    pub version: String,
}

/// Shards that come to the receiver.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Take {
    #[prost(uint32, tag = "1")]
    pub protocol: u32,
    #[prost(message, repeated, tag = "2")]
    pub shards: Vec<TakeShard>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct TakeShard {
    #[prost(uint32, tag = "1")]
    pub shard: u32,
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// Entities to load before commands ask for them.
    #[prost(message, repeated, tag = "3")]
    pub recent: Vec<TakeEntity>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct TakeEntity {
    #[prost(string, tag = "1")]
    pub journal: String,
    #[prost(string, tag = "2")]
    pub id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Taken {
    #[prost(bool, tag = "1")]
    pub taken: bool,
}

/// The command changed nothing: somebody else owns its shard, or nobody does.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NotMine {
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub owner: Option<Bytes>,
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Refusal {
    #[prost(uint32, tag = "1")]
    pub code: u32,
    #[prost(string, tag = "2")]
    pub message: String,
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Detail>,
    #[prost(uint32, optional, tag = "4")]
    pub http: Option<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Detail {
    #[prost(string, tag = "1")]
    pub type_name: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub data: Bytes,
}

/// A [`CallHead`] whose texts are somebody else's: nothing is copied but into the buffer.
pub struct CallHeadRef<'a> {
    pub service: &'a str,
    pub method: &'a str,
    pub shard: u32,
    pub epoch: u64,
    pub deadline_ms: u64,
    pub request_id: &'a str,
    pub idempotency_key: Option<&'a str>,
    pub metadata: &'a [(String, String)],
    pub consistency: Consistency,
    pub hops: u32,
    pub revision: u64,
    pub sender: NodeId,
    pub trail: &'a Trail,
    pub from_function: bool,
    pub module: Option<Digest>,
}

impl CallHeadRef<'_> {
    /// As a [`CallHead`] would be.
    pub fn encode(&self, head: &mut BytesMut) {
        number(head, 1, u64::from(PROTOCOL));
        text(head, 2, self.service.as_bytes());
        text(head, 3, self.method.as_bytes());
        number(head, 4, u64::from(self.shard));
        number(head, 5, self.epoch);
        number(head, 6, self.deadline_ms);
        text(head, 7, self.request_id.as_bytes());
        if let Some(key) = self.idempotency_key {
            text(head, 8, key.as_bytes());
        }
        for (name, value) in self.metadata {
            let mut entry = BytesMut::with_capacity(name.len() + value.len() + 8);
            text(&mut entry, 1, name.as_bytes());
            text(&mut entry, 2, value.as_bytes());
            text(head, 9, &entry);
        }
        number(head, 10, u64::from(consistency_number(self.consistency)));
        number(head, 11, u64::from(self.hops));
        number(head, 12, self.revision);
        text(head, 13, &self.sender.0);
        number(head, 14, u64::from(self.trail.hops()));
        number(head, 15, u64::from(self.from_function));
        for name in self.trail.names() {
            text(head, 16, name.as_bytes());
        }
        if let Some(module) = self.module {
            text(head, 17, &module.0);
        }
    }
}

fn number(buffer: &mut BytesMut, tag: u32, value: u64) {
    if value != 0 {
        encode_key(tag, WireType::Varint, buffer);
        encode_varint(value, buffer);
    }
}

fn text(buffer: &mut BytesMut, tag: u32, bytes: &[u8]) {
    encode_key(tag, WireType::LengthDelimited, buffer);
    encode_varint(bytes.len() as u64, buffer);
    buffer.put_slice(bytes);
}

fn consistency_number(consistency: Consistency) -> u32 {
    match consistency {
        Consistency::Leased => 0,
        Consistency::Fenced => 1,
        Consistency::Stale => 2,
    }
}

/// What is not known is taken for the strictest.
pub fn consistency_of(number: u32) -> Consistency {
    match number {
        0 => Consistency::Leased,
        2 => Consistency::Stale,
        _ => Consistency::Fenced,
    }
}

/// A head and its length.
pub fn framed(head: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(head.len() + 5);
    encode_varint(head.len() as u64, &mut framed);
    framed.put_slice(head);
    framed.freeze()
}

/// A head, and the payload after it.
pub fn unframe<M: prost::Message + Default>(mut body: Bytes) -> Result<(M, Bytes), Status> {
    let length = prost::decode_length_delimiter(&mut body).map_err(|error| malformed(&error))?;
    if length > body.remaining() {
        return Err(Status::invalid_argument("a peer's request is shorter than it says"));
    }
    let head = M::decode(body.split_to(length)).map_err(|error| malformed(&error))?;
    Ok((head, body))
}

pub fn malformed(error: &prost::DecodeError) -> Status {
    Status::invalid_argument(format!("what a peer sent is malformed: {error}"))
}

/// Whether a node of this version understands what follows.
pub fn understood(protocol: u32) -> Result<(), Status> {
    match protocol {
        PROTOCOL => Ok(()),
        other => Err(Status::unavailable(format!(
            "nodes of this cluster speak different protocols ({other} and {PROTOCOL}); finish the \
             upgrade"
        ))),
    }
}

/// How a node introduces itself.
pub fn hello(me: NodeId) -> Hello {
    Hello {
        protocol: PROTOCOL,
        node: Bytes::copy_from_slice(&me.0),
        version: env!("CARGO_PKG_VERSION").into(),
    }
}

pub fn node_id(bytes: &[u8]) -> Option<NodeId> {
    bytes.try_into().ok().map(NodeId)
}

impl NotMine {
    pub fn new(route: Route) -> Self {
        let owner = route.owner.map(|owner| Bytes::copy_from_slice(&owner.0));
        Self { owner, epoch: route.epoch.0 }
    }

    pub fn route(&self) -> Route {
        Route { owner: self.owner.as_deref().and_then(node_id), epoch: Epoch(self.epoch) }
    }
}

impl Refusal {
    pub fn new(status: &Status) -> Self {
        let detail = |message: &Message| Detail {
            type_name: message.type_name.as_ref().into(),
            data: message.data.clone(),
        };
        Self {
            code: status.code.number(),
            message: status.message.clone(),
            details: status.details.iter().map(detail).collect(),
            http: status.http.map(u32::from),
        }
    }

    pub fn status(self) -> Status {
        let details = self.details.into_iter();
        Status {
            code: Code::from_u32(self.code).unwrap_or(Code::Unknown),
            message: self.message,
            details: details.map(|detail| Message::new(detail.type_name, detail.data)).collect(),
            http: self.http.and_then(|http| u16::try_from(http).ok()),
        }
    }

    pub fn encode_status(status: &Status) -> Bytes {
        Self::new(status).encode_to_vec().into()
    }

    pub fn decode_status(body: Bytes) -> Status {
        Self::decode(body).map_or_else(|error| malformed(&error), Self::status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_by_hand_is_what_prost_reads() {
        let metadata = vec![("x-tenant".to_owned(), "acme".to_owned()), ("b".into(), "".into())];
        let trail = Trail::of(3, ["/t.A/Do".to_owned(), "/t.B/Do".to_owned()]);
        let by_hand = CallHeadRef {
            service: "shop.Cart",
            method: "Add",
            shard: 1_023,
            epoch: u64::MAX,
            deadline_ms: 30_000,
            request_id: "r-1",
            idempotency_key: Some("k"),
            metadata: &metadata,
            consistency: Consistency::Fenced,
            hops: 1,
            revision: 7,
            sender: NodeId([9; 16]),
            trail: &trail,
            from_function: true,
            module: Some(Digest([5; 32])),
        };
        let mut head = BytesMut::new();
        by_hand.encode(&mut head);
        let mut body = BytesMut::from(&framed(&head)[..]);
        body.put_slice(b"payload");
        let (read, payload) = unframe::<CallHead>(body.freeze()).unwrap();
        assert_eq!(payload, "payload");
        assert_eq!(read.protocol, PROTOCOL);
        assert_eq!((&*read.service, &*read.method), ("shop.Cart", "Add"));
        assert_eq!((read.shard, read.epoch, read.deadline_ms), (1_023, u64::MAX, 30_000));
        assert_eq!((&*read.request_id, read.idempotency_key.as_deref()), ("r-1", Some("k")));
        let entries = read.metadata.into_iter().map(|entry| (entry.name, entry.value));
        assert_eq!(entries.collect::<Vec<_>>(), metadata);
        assert_eq!(consistency_of(read.consistency), Consistency::Fenced);
        assert_eq!((read.hops, read.revision), (1, 7));
        assert_eq!(node_id(&read.sender), Some(NodeId([9; 16])));
        assert_eq!(read.from_function, Some(true));
        assert_eq!(read.module.as_deref(), Some(&[5u8; 32][..]));
        assert_eq!(Trail::of(read.functions.unwrap(), read.through), trail);
    }

    #[test]
    fn a_head_without_names_still_counts_its_functions() {
        let head = CallHead { functions: Some(4), ..CallHead::default() }.encode_to_vec();
        let head = CallHead::decode(&head[..]).unwrap();
        let trail = Trail::of(head.functions.unwrap(), head.through);
        assert_eq!((trail.hops(), &*trail.to_string()), (4, ".."));
    }

    #[test]
    fn a_body_that_is_too_short_or_garbage_is_refused() {
        for body in [&b""[..], b"\xff", b"\x7f", b"\x03\xff\xff\xff", b"\xff\xff\xff\xff\xff\xff"] {
            assert!(unframe::<CallHead>(Bytes::from_static(body)).is_err(), "{body:?}");
        }
    }

    #[test]
    fn a_status_comes_back_whole() {
        let mut status = Status::failed_precondition("closed").with_http(422);
        status.details.push(Message::new("t.Why", "x"));
        let body = Refusal::new(&status).encode_to_vec();
        assert_eq!(Refusal::decode_status(body.into()), status);
        let route = Route { owner: Some(NodeId([3; 16])), epoch: Epoch(4) };
        assert_eq!(NotMine::new(route).route(), route);
    }
}
