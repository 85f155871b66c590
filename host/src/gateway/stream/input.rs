//! The messages of a streamed request: gRPC's frames, which are Connect's envelopes too.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use prost::Message as _;
use prost_reflect::MessageDescriptor;

use crate::action::Messages;
use crate::gateway::frame::{self, PREFIX_BYTES};
use crate::gateway::transcode;
use crate::words::budget::{Budget, Kept};
use crate::words::{Code, Status};

/// Reads no further than the message that is asked for, and what came in one piece with it.
pub struct Framed {
    body: Incoming,
    unread: BytesMut,
    encoding: Option<String>,
    /// What the messages are, if they are JSON.
    json: Option<MessageDescriptor>,
    budget: Arc<Budget>,
    kept: Kept,
    ended: bool,
}

impl Framed {
    pub fn new(
        body: Incoming,
        encoding: Option<&str>,
        json: Option<MessageDescriptor>,
        budget: Arc<Budget>,
    ) -> Self {
        let kept = Kept::new(budget.clone());
        let encoding = encoding.map(str::to_owned);
        Self { body, unread: BytesMut::new(), encoding, json, budget, kept, ended: false }
    }

    async fn read(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(length) = frame::announced(&self.unread)?
                && self.unread.len() >= PREFIX_BYTES + length
            {
                let framed = self.unread.split_to(PREFIX_BYTES + length).freeze();
                self.kept.resize(self.unread.len())?;
                let mut held = self.budget.hold();
                let message = frame::unframe(framed, self.encoding.as_deref(), &mut held)?;
                return to_proto(self.json.as_ref(), message).map(Some);
            }
            let Some(piece) = self.body.frame().await else {
                if self.unread.is_empty() {
                    return Ok(None);
                }
                return Err(Status::invalid_argument(format!(
                    "the request ends after {} bytes of a message",
                    self.unread.len()
                )));
            };
            let broke_off =
                |_| Status::new(Code::Cancelled, "the client broke the request's stream off");
            let Ok(data) = piece.map_err(broke_off)?.into_data() else { continue };
            self.unread.extend_from_slice(&data);
            self.kept.resize(self.unread.len())?;
        }
    }
}

impl Messages for Framed {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Bytes, Status>>> {
        async {
            if self.ended {
                return None;
            }
            let next = self.read().await.transpose();
            self.ended = !matches!(next, Some(Ok(_)));
            next
        }
        .boxed()
    }
}

/// A message in protobuf's binary encoding; `json` is its type if it is none yet.
pub fn to_proto(json: Option<&MessageDescriptor>, message: Bytes) -> Result<Bytes, Status> {
    match json {
        Some(descriptor) => Ok(transcode::from_json(descriptor, &message)?.encode_to_vec().into()),
        None => Ok(message),
    }
}
