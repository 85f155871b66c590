//! `stead cluster ..`: the nodes of a cluster, and taking one out.

use serde_json::{Value, json};
use stead_proto::admin::v1 as api;

use crate::cli::admin::Admin;
use crate::cli::args::{ClusterCommand, ClusterDrainArgs, ClusterStatusArgs};
use crate::cli::failed::Failed;
use crate::cli::output::{Output, printable};
use crate::cli::render;
use crate::words::{clock, limits};

/// Of a node's id, for people: as many digits as `cluster drain` needs of most.
const ID_CHARS: usize = 8;

pub async fn run(command: ClusterCommand, out: &Output) -> Result<(), Failed> {
    match command {
        ClusterCommand::Status(args) => status(args, out).await,
        ClusterCommand::Drain(args) => drain(args, out).await,
    }
}

async fn cluster(admin: &mut Admin) -> Result<api::Cluster, Failed> {
    let answer = admin.client.get_cluster(api::GetClusterRequest {}).await;
    answer.map(tonic::Response::into_inner).map_err(|status| admin.failed(status))
}

async fn status(args: ClusterStatusArgs, out: &Output) -> Result<(), Failed> {
    let mut admin = Admin::connect(&args.port).await?;
    let cluster = cluster(&mut admin).await?;
    if out.is_json() {
        out.json(&render::cluster(&cluster));
        return Ok(());
    }
    for told in &cluster.disagreements {
        out.warn(told);
    }
    if cluster.store_silent {
        out.warn("the store did not answer this node the last time; what follows may be old");
    }
    out.text(&summary(&cluster));
    out.text("");
    let rows = cluster.members.iter().map(|member| row(member, &cluster)).collect();
    out.table(
        [
            "NODE", "ADDRESS", "ZONE", "CAPACITY", "VERSION", "STATE", "GOSSIP", "SHARDS", "LEASE",
            "REVISION",
        ],
        rows,
    );
    for member in cluster.members.iter().filter(|member| !member.broken.is_empty()) {
        out.warn(&format!("node {}: {}", short(&member.node_id), member.broken));
    }
    Ok(())
}

fn summary(cluster: &api::Cluster) -> String {
    let shards = cluster.shards.unwrap_or_default();
    let mut parts = vec![format!("{} of {} owned", shards.owned, shards.total)];
    for (count, what) in
        [(shards.free, "free"), (shards.halted, "halted"), (shards.moving, "moving")]
    {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    printable(&format!(
        "cluster {}, revision {}, shards: {}",
        cluster.cluster_id,
        cluster.revision,
        parts.join(", ")
    ))
}

fn row(member: &api::Member, cluster: &api::Cluster) -> [String; 10] {
    let me = if member.node_id == cluster.node_id { " (this)" } else { "" };
    [
        format!("{}{me}", short(&member.node_id)),
        member.address.clone(),
        member.zone.clone(),
        member.capacity.to_string(),
        member.version.clone(),
        member.state.clone(),
        member.gossip.clone(),
        member.shards.to_string(),
        render::millis(member.lease_age.as_ref())
            .map(|ms| format!("{:.1}s", ms as f64 / 1_000.0))
            .unwrap_or_default(),
        member.revision.to_string(),
    ]
}

fn short(node_id: &str) -> &str {
    node_id.get(..ID_CHARS).unwrap_or(node_id)
}

async fn drain(args: ClusterDrainArgs, out: &Output) -> Result<(), Failed> {
    let mut admin = Admin::connect(&args.port).await?;
    let request = api::DrainNodeRequest { node: args.node, cancel: args.cancel };
    let answer = admin.client.drain_node(request).await;
    let answer = answer.map_err(|status| admin.failed(status))?.into_inner();
    let node = short(&answer.node_id).to_owned();
    let left = if args.cancel {
        out.say(&format!("node {node} takes shards again"));
        answer.shards
    } else if args.no_wait {
        out.say(&format!("node {node} gives away its {} shards", answer.shards));
        answer.shards
    } else {
        drained(&mut admin, &answer, out).await?
    };
    if out.is_json() {
        out.json(&drained_json(&answer.node_id, args.cancel, left));
    }
    Ok(())
}

fn drained_json(node_id: &str, cancel: bool, left: u32) -> Value {
    json!({ "node_id": node_id, "draining": !cancel, "shards": left })
}

/// Waits until the node holds nothing, and says how that goes.
async fn drained(
    admin: &mut Admin,
    answer: &api::DrainNodeResponse,
    out: &Output,
) -> Result<u32, Failed> {
    let node = short(&answer.node_id);
    let mut left = answer.shards;
    let mut progressed = clock::now();
    // The node that answers looks at the store twice a second.
    let mut was_draining = false;
    out.say(&format!("node {node} holds {left} shards"));
    while left > 0 {
        tokio::time::sleep(limits::CLIENT_DRAIN_LOOKS_EVERY).await;
        let cluster = cluster(admin).await?;
        let member = cluster.members.iter().find(|member| member.node_id == answer.node_id);
        let is_active = member.is_some_and(|member| member.state == "active");
        was_draining |= !is_active;
        if was_draining && is_active && member.is_some_and(|member| member.shards > 0) {
            return Err(Failed::refused(format!(
                "node {node} is not draining any more; somebody has cancelled it"
            )));
        }
        let now_left = member.map_or(0, |member| member.shards);
        if now_left != left {
            left = now_left;
            progressed = clock::now();
            out.say(&format!("node {node} holds {left} shards"));
        } else if clock::now() - progressed >= limits::CLIENT_DRAIN_STALLED_AFTER {
            return Err(Failed::refused(format!(
                "node {node} still holds {left} shards, and none has left for {} s; is there \
                 another node that can take them? It goes on trying; `stead cluster drain {node} \
                 --cancel` ends that",
                limits::CLIENT_DRAIN_STALLED_AFTER.as_secs()
            )));
        }
    }
    out.say(&format!("node {node} is drained; it can be stopped"));
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_only_what_there_is() {
        let mut cluster = api::Cluster {
            cluster_id: "c".into(),
            revision: 3,
            shards: Some(api::cluster::Shards { total: 8, owned: 8, ..Default::default() }),
            ..Default::default()
        };
        assert_eq!(summary(&cluster), "cluster c, revision 3, shards: 8 of 8 owned");
        cluster.shards =
            Some(api::cluster::Shards { total: 8, owned: 5, free: 2, halted: 1, moving: 0 });
        assert!(summary(&cluster).ends_with("shards: 5 of 8 owned, 2 free, 1 halted"));
    }

    #[test]
    fn the_node_that_answers_is_marked() {
        let member = api::Member { node_id: "0123456789".into(), ..Default::default() };
        let cluster = api::Cluster { node_id: "0123456789".into(), ..Default::default() };
        assert_eq!(row(&member, &cluster)[0], "01234567 (this)");
        assert_eq!(row(&member, &api::Cluster::default())[0], "01234567");
        assert_eq!(short("é"), "é");
    }
}
