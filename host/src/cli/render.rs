//! The admin API's messages as the JSON of the command line: snake_case, numbers as numbers, times
//! in RFC 3339. The fields are a promise; docs/cli.md lists them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost_types::{Duration, Timestamp};
use serde_json::{Value, json};
use stead_proto::admin::v1 as api;

use crate::gateway::admin::json::to_json;

pub fn time(time: Option<&Timestamp>) -> Option<String> {
    time.map(Timestamp::to_string)
}

pub fn millis(duration: Option<&Duration>) -> Option<u64> {
    let duration = duration?;
    let seconds = u64::try_from(duration.seconds).ok()?;
    let nanos = u64::try_from(duration.nanos).ok()?;
    Some(seconds.saturating_mul(1_000).saturating_add(nanos / 1_000_000))
}

pub fn action(change: &api::Change) -> &'static str {
    use api::change::Action;
    match change.action() {
        Action::Unspecified => "unknown",
        Action::Added => "added",
        Action::Replaced => "replaced",
        Action::Removed => "removed",
        Action::Unchanged => "unchanged",
    }
}

pub fn changes(changes: &[api::Change]) -> Value {
    let change = |change: &api::Change| {
        json!({
            "action": action(change),
            "service": change.service,
            "kind": change.kind,
            "journal": change.journal,
            "module_digest": change.module_digest,
        })
    };
    changes.iter().map(change).collect()
}

pub fn revision(revision: &api::Revision) -> Value {
    let module = |module: &api::Module| {
        json!({
            "digest": module.digest,
            "name": module.name,
            "bytes": module.bytes,
            "upload_time": time(module.upload_time.as_ref()),
        })
    };
    json!({
        "revision": revision.revision,
        "live": revision.live,
        "create_time": time(revision.create_time.as_ref()),
        "note": revision.note,
        "modules": revision.modules.iter().map(module).collect::<Value>(),
        "grants": grants(&revision.grants),
    })
}

pub fn service(service: &api::Service) -> Value {
    json!({
        "name": service.name,
        "kind": service.kind,
        "journal": service.journal,
        "module_digest": service.module_digest,
        "module_name": service.module_name,
        "snapshot_every": service.snapshot_every,
        "passivate_after_ms": millis(service.passivate_after.as_ref()),
        "memory_bytes_max": service.memory_bytes_max,
        "deadline_ms": millis(service.deadline.as_ref()),
        "last_crash": service.last_crash.as_ref().map(crash),
        "methods": service.methods.iter().map(method).collect::<Value>(),
    })
}

fn method(method: &api::Method) -> Value {
    let binding = |binding: &api::HttpBinding| json!({ "method": binding.method, "path": binding.path, "body": binding.body });
    json!({
        "name": method.name,
        "input": method.input_type,
        "output": method.output_type,
        "http": method.http.iter().map(binding).collect::<Value>(),
    })
}

pub fn broken_module(module: &api::BrokenModule) -> Value {
    json!({ "digest": module.digest, "name": module.name, "reason": module.reason })
}

pub fn entity_summary(entity: &api::EntitySummary) -> Value {
    json!({
        "service": entity.service,
        "journal": entity.journal,
        "id": entity.id,
        "seq": entity.seq,
        "hot": entity.hot,
        "memory_bytes": entity.memory_bytes,
        "idle_ms": millis(entity.idle.as_ref()),
    })
}

pub fn effect(effect: &api::Effect) -> Value {
    json!({
        "id": effect.id,
        "journal": effect.journal,
        "entity_id": effect.entity_id,
        "service": effect.service,
        "method": effect.method,
        "payload_bytes": effect.payload_bytes,
        "create_time": time(effect.create_time.as_ref()),
        "tries": effect.tries,
        "error": effect.error,
        "next_try_time": time(effect.next_try_time.as_ref()),
        "dead_letter": effect.dead_letter,
    })
}

pub fn timer(timer: &api::EntityTimer) -> Value {
    json!({
        "name": timer.name,
        "due_time": time(timer.due_time.as_ref()),
        "every_ms": millis(timer.every.as_ref()),
        "method": timer.method,
        "tries": timer.tries,
        "error": timer.error,
    })
}

pub fn cluster(cluster: &api::Cluster) -> Value {
    let shards = cluster.shards.unwrap_or_default();
    json!({
        "cluster_id": cluster.cluster_id,
        "node_id": cluster.node_id,
        "revision": cluster.revision,
        "shards": {
            "total": shards.total,
            "owned": shards.owned,
            "free": shards.free,
            "halted": shards.halted,
            "moving": shards.moving,
        },
        "lease_remaining_ms": millis(cluster.lease_remaining.as_ref()),
        "read_ago_ms": millis(cluster.read_ago.as_ref()),
        "store_silent": cluster.store_silent,
        "members": cluster.members.iter().map(member).collect::<Value>(),
        "disagreements": cluster.disagreements,
    })
}

fn member(member: &api::Member) -> Value {
    json!({
        "node_id": member.node_id,
        "address": member.address,
        "zone": member.zone,
        "capacity": member.capacity,
        "version": member.version,
        "state": member.state,
        "gossip": member.gossip,
        "incarnation": member.incarnation,
        "shards": member.shards,
        "lease_age_ms": millis(member.lease_age.as_ref()),
        "revision": member.revision,
        "broken": member.broken,
        "start_time": time(member.start_time.as_ref()),
    })
}

pub fn entity(entity: &api::Entity) -> Value {
    json!({
        "service": entity.service,
        "journal": entity.journal,
        "id": entity.id,
        "seq": entity.seq,
        "snapshot_seq": entity.snapshot_seq,
        "hot": entity.hot,
        "memory_bytes": entity.memory_bytes,
        "idle_ms": millis(entity.idle.as_ref()),
        "queued": entity.queued,
        "last_crash": entity.last_crash.as_ref().map(crash),
        "effects": entity.effects.iter().map(effect).collect::<Value>(),
        "timers": entity.timers.iter().map(timer).collect::<Value>(),
    })
}

fn crash(crash: &api::Crash) -> Value {
    json!({
        "time": time(crash.time.as_ref()),
        "what": crash.what,
        "during": crash.during,
        "reason": crash.reason,
        "backtrace": crash.backtrace,
        "consecutive": crash.consecutive,
        "retry_time": time(crash.retry_time.as_ref()),
    })
}

pub fn event(event: &api::Event) -> Value {
    json!({
        "seq": event.seq,
        "time": time(event.time.as_ref()),
        "type": event.r#type,
        "json": event.json.as_ref().map(to_json),
        "data_base64": STANDARD.encode(&event.data),
        "note": event.note,
    })
}

pub fn state(state: &api::GetStateResponse) -> Value {
    json!({
        "seq": state.seq,
        "type": state.r#type,
        "json": state.json.as_ref().map(to_json),
        "data_base64": STANDARD.encode(&state.data),
        "note": state.note,
    })
}

/// What modules may reach.
pub fn grants(grants: &[api::Grant]) -> Value {
    let grant = |grant: &api::Grant| json!({"module": grant.module_digest, "allow": grant.allow});
    grants.iter().map(grant).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entity_without_a_crash_has_null_and_numbers_stay_numbers() {
        let json = entity(&api::Entity {
            journal: "cart".into(),
            id: "ada".into(),
            seq: 3,
            hot: true,
            memory_bytes: 65_536,
            idle: Some(Duration { seconds: 1, nanos: 500_000_000 }),
            ..Default::default()
        });
        assert_eq!(json["seq"], 3);
        assert_eq!(json["idle_ms"], 1_500);
        assert_eq!(json["last_crash"], Value::Null);
    }

    #[test]
    fn times_are_rfc_3339() {
        let json = event(&api::Event {
            seq: 1,
            time: Some(Timestamp { seconds: 0, nanos: 0 }),
            data: vec![0, 1],
            ..Default::default()
        });
        assert_eq!(json["time"], "1970-01-01T00:00:00Z");
        assert_eq!(json["data_base64"], "AAE=");
    }
}
