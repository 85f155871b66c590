//! The node itself.

use std::path::PathBuf;

use stead_proto::admin::v1::node::Limits;
use stead_proto::admin::v1::{GetNodeRequest, Node};

use crate::gateway::admin::{Admin, time};
use crate::words::{Status, limits};

/// What does not change while the node runs.
#[derive(Clone, Debug)]
pub struct About {
    pub started_at_ms: u64,
    pub data_dir: PathBuf,
    pub store: &'static str,
    pub wasmtime_version: &'static str,
    pub hot_entities_max: usize,
    pub hot_bytes_max: usize,
}

impl Admin {
    pub(super) async fn get_node(&self, _request: GetNodeRequest) -> Result<Node, Status> {
        let about = &*self.about;
        Ok(Node {
            version: env!("CARGO_PKG_VERSION").into(),
            wasmtime_version: about.wasmtime_version.into(),
            start_time: Some(time::timestamp(about.started_at_ms)),
            revision: self.registry.live().revision.0,
            hot_entities: self.entities.hot_count() as u64,
            commands_in_flight: self.metrics.commands_in_flight.get().max(0) as u64,
            data_dir: about.data_dir.display().to_string(),
            store: about.store.into(),
            node_id: self
                .membership
                .as_ref()
                .map(|m| m.cluster.node().to_string())
                .unwrap_or_default(),
            shards_held: self.membership.as_ref().map_or(0, |m| m.holdings.held_count() as u32),
            journal_stopped: self.journal.stopped().as_deref().unwrap_or_default().into(),
            limits: Some(Limits {
                module_bytes_max: limits::MODULE_BYTES_MAX as u64,
                body_bytes_max: limits::BODY_BYTES_MAX as u64,
                reply_bytes_max: limits::REPLY_BYTES_MAX as u64,
                event_bytes_max: limits::EVENT_BYTES_MAX as u64,
                events_per_command_max: limits::EVENTS_PER_COMMAND_MAX as u32,
                mailbox_commands_max: limits::MAILBOX_COMMANDS_MAX as u32,
                commands_in_flight_max: limits::COMMANDS_IN_FLIGHT_MAX as u32,
                hot_entities_max: about.hot_entities_max as u64,
                hot_bytes_max: about.hot_bytes_max as u64,
                call_deadline_max: Some(time::duration(limits::CALL_DEADLINE_MAX)),
                idempotency_kept: Some(time::duration(limits::IDEMPOTENCY_KEPT)),
            }),
        })
    }
}
