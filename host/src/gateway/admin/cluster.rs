//! The cluster as an operator sees it, and what of the admin API is another node's to answer.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures_util::future::join_all;
use prost::Message;
use stead_proto::admin::v1 as api;

use crate::cluster::ownership::NodeState;
use crate::cluster::{Cluster, ClusterStatus, Liveness, MemberStatus};
use crate::gateway::admin::{Admin, page, time};
use crate::journal::Holdings;
use crate::router::Peers;
use crate::words::{Address, Code, NodeId, Status, clock, limits};

/// What a member of a cluster has beside the rest.
#[derive(Clone)]
pub struct Membership {
    pub cluster: Cluster,
    pub cluster_id: String,
    pub peers: Peers,
    pub holdings: Holdings,
}

impl Admin {
    fn membership(&self) -> Result<&Membership, Status> {
        self.membership.as_deref().ok_or_else(|| {
            Status::failed_precondition(
                "this node is a node of its own, no member of a cluster; nodes that share a store \
                 (--store postgres://..) are one",
            )
        })
    }

    pub(super) async fn get_cluster(
        &self,
        _request: api::GetClusterRequest,
    ) -> Result<api::Cluster, Status> {
        let membership = self.membership()?;
        let status = membership.cluster.status();
        Ok(describe(&membership.cluster_id, &status))
    }

    pub(super) async fn drain_node(
        &self,
        request: api::DrainNodeRequest,
    ) -> Result<api::DrainNodeResponse, Status> {
        let membership = self.membership()?;
        let status = membership.cluster.status();
        let member = find(&status.members, &request.node)?;
        let is_set = membership.cluster.set_draining(member.node, !request.cancel).await;
        match is_set {
            Ok(true) => Ok(api::DrainNodeResponse {
                node_id: member.node.to_string(),
                shards: member.shards as u32,
            }),
            Ok(false) => Err(Status::failed_precondition(format!(
                "node {} is {} and holds nothing to give away",
                member.node,
                member.state.name()
            ))),
            Err(error) => Err(Status::unavailable(format!(
                "the store could not be told; a retry is safe: {error}"
            ))),
        }
    }

    /// Load balancers need not send anything to a node that gives its shards away.
    pub(super) fn giving_away(&self) -> Option<String> {
        let status = self.membership.as_deref()?.cluster.status();
        let me = status.members.iter().find(|member| member.node == status.me)?;
        (me.state == NodeState::Draining)
            .then(|| format!("draining: the node holds {} shards", me.shards))
    }

    /// The answer of the node that holds the entity, if it is another than this one.
    pub(super) async fn answer_of_owner(
        &self,
        address: &Address,
        method: &str,
        request: &impl Message,
    ) -> Option<Result<Bytes, Status>> {
        let membership = self.membership.as_deref()?;
        let routes = membership.cluster.routes();
        let owner = routes.route(membership.holdings.shard_of(address)).owner;
        let owner = owner.filter(|owner| *owner != routes.me())?;
        let at = routes.address(owner)?;
        let deadline = clock::now() + limits::PEER_ADMIN_MAX;
        let payload = request.encode_to_vec().into();
        Some(membership.peers.admin(owner, at, method, payload, deadline).await)
    }

    /// What all other nodes answer to a request.
    async fn answers_of_others(
        &self,
        method: &'static str,
        request: &impl Message,
    ) -> Vec<(NodeId, Result<Bytes, Status>)> {
        let Some(membership) = self.membership.as_deref() else { return Vec::new() };
        let routes = membership.cluster.routes();
        // Those that are dead or gone have nothing to answer for.
        let members = membership.cluster.status().members.into_iter();
        let others = members.filter(|member| member.state.is_member()).map(|member| member.node);
        let others = others.filter(|node| *node != routes.me());
        let payload = Bytes::from(request.encode_to_vec());
        let ask = |node: NodeId| {
            let payload = payload.clone();
            async move {
                let address = routes.address(node)?;
                let deadline = clock::now() + limits::PEER_ADMIN_MAX;
                let answer = membership.peers.admin(node, address, method, payload, deadline).await;
                Some((node, answer))
            }
        };
        join_all(others.map(ask)).await.into_iter().flatten().collect()
    }

    /// The same pages of all other nodes. One that does not answer is left out.
    async fn pages_of_others(
        &self,
        request: &api::ListEntitiesRequest,
    ) -> Vec<api::ListEntitiesResponse> {
        let answers = self.answers_of_others("ListEntities", request).await;
        let page = |(node, answer): (NodeId, Result<Bytes, Status>)| {
            let page = answer.and_then(|page| {
                api::ListEntitiesResponse::decode(page)
                    .map_err(|error| Status::internal(error.to_string()))
            });
            page.inspect_err(|status| {
                tracing::warn!(?node, %status, "a node cannot say which entities it has in memory");
            })
            .ok()
        };
        answers.into_iter().filter_map(page).collect()
    }

    /// Has every node begin again in the partitions that it reads. A partition that is on its way to another
    /// node is asked for again.
    pub(super) async fn reset_consumer_of_all(
        &self,
        mut request: api::ResetConsumerRequest,
    ) -> Result<api::ResetConsumerResponse, Status> {
        let count = self.journal.partitions();
        // However often it names one.
        request.partitions.sort_unstable();
        request.partitions.dedup();
        if let Some(unknown) = request.partitions.last().filter(|last| **last >= count) {
            return Err(Status::invalid_argument(format!(
                "partitions: there is no {unknown}; they are 0 to {}",
                count - 1
            )));
        }
        let mut wanted: BTreeSet<u32> = match request.partitions.is_empty() {
            true => (0..count).collect(),
            false => request.partitions.iter().copied().collect(),
        };
        let reset = api::ResetConsumerResponse { partitions: wanted.iter().copied().collect() };
        let mut problem = "no node reads them".to_owned();
        for attempt in 0..limits::CONSUMER_RESET_TRIES {
            if attempt > 0 {
                tokio::time::sleep(limits::CONSUMER_RESET_AGAIN_AFTER).await;
            }
            let (own, others) = tokio::join!(
                self.reset_consumer(request.clone()),
                self.answers_of_others("ResetConsumer", &request)
            );
            let own = match own {
                Err(status) if status.code != Code::Unavailable => return Err(status),
                own => own.map_err(|status| status.message),
            };
            let others = others.into_iter().map(|(node, answer)| {
                let answer = answer.and_then(|answer| {
                    api::ResetConsumerResponse::decode(answer)
                        .map_err(|error| Status::internal(error.to_string()))
                });
                answer.map_err(|status| format!("node {node}: {}", status.message))
            });
            for answer in others.chain([own]) {
                match answer {
                    Ok(answer) => answer.partitions.iter().for_each(|done| _ = wanted.remove(done)),
                    Err(reason) => problem = reason,
                }
            }
            if wanted.is_empty() {
                return Ok(reset);
            }
            request.partitions = wanted.iter().copied().collect();
        }
        Err(Status::unavailable(format!(
            "{} of {count} partitions could not be reset; a retry is safe: {problem}",
            wanted.len()
        )))
    }

    /// The services as this node has them, each with its newest crash on any node.
    pub(super) async fn list_services_of_all(
        &self,
        request: api::ListServicesRequest,
    ) -> Result<api::ListServicesResponse, Status> {
        let (own, others) = tokio::join!(
            self.list_services(request),
            self.answers_of_others("ListServices", &request)
        );
        let mut services = own?;
        for (node, answer) in others {
            let answer = answer.and_then(|answer| {
                api::ListServicesResponse::decode(answer)
                    .map_err(|error| Status::internal(error.to_string()))
            });
            match answer {
                Ok(theirs) => newest_crashes(&mut services.services, theirs.services),
                Err(status) => {
                    tracing::warn!(?node, %status, "a node cannot say what crashed on it");
                }
            }
        }
        Ok(services)
    }

    /// A page of all nodes' entities: hot is who is in the memory of any.
    pub(super) async fn list_entities_of_all(
        &self,
        request: api::ListEntitiesRequest,
    ) -> Result<api::ListEntitiesResponse, Status> {
        use api::list_entities_request::Temperature;
        self.check_entity_type(&request.entity_type).await?;
        // Which are cold is known only where they would be hot.
        if self.membership.is_none() || request.temperature == i32::from(Temperature::Cold) {
            return self.list_entities(request).await;
        }
        let limit = page::size(request.page_size)?;
        let (own, others) =
            tokio::join!(self.list_entities(request.clone()), self.pages_of_others(&request));
        let mut pages = others;
        pages.push(own?);
        Ok(merged(pages, limit))
    }
}

fn newest_crashes(services: &mut [api::Service], others: Vec<api::Service>) {
    let at = |crash: &api::Crash| crash.time.map(|time| (time.seconds, time.nanos));
    for other in others {
        let Some(theirs) = other.last_crash else { continue };
        let Some(service) = services.iter_mut().find(|service| service.name == other.name) else {
            continue;
        };
        if service.last_crash.as_ref().is_none_or(|ours| at(ours) < at(&theirs)) {
            service.last_crash = Some(theirs);
        }
    }
}

/// Pages of the same question, in the order of the addresses. Beyond the end of a page that goes on,
/// nothing is known about its node.
fn merged(pages: Vec<api::ListEntitiesResponse>, limit: usize) -> api::ListEntitiesResponse {
    let key = |row: &api::EntitySummary| (row.journal.clone(), row.id.clone());
    let unfinished = pages.iter().filter(|page| !page.next_page_token.is_empty());
    let known_to = unfinished.filter_map(|page| page.entities.last().map(key)).min();
    let mut rows: BTreeMap<(String, String), api::EntitySummary> = BTreeMap::new();
    for row in pages.into_iter().flat_map(|page| page.entities) {
        let at = key(&row);
        if known_to.as_ref().is_some_and(|known_to| at > *known_to) {
            continue;
        }
        match rows.get(&at) {
            Some(known) if known.hot || !row.hot => {}
            _ => _ = rows.insert(at, row),
        }
    }
    let more = known_to.is_some() || rows.len() > limit;
    let entities: Vec<_> = rows.into_values().take(limit).collect();
    let last = entities.last().filter(|_| more);
    let next_page_token =
        last.map(|row| page::token(&Address::new(row.journal.as_str(), row.id.as_str())));
    api::ListEntitiesResponse { next_page_token: next_page_token.unwrap_or_default(), entities }
}

/// By its id, the start of it, or its address.
fn find<'a>(members: &'a [MemberStatus], name: &str) -> Result<&'a MemberStatus, Status> {
    if name.is_empty() {
        return Err(Status::invalid_argument("node must not be empty"));
    }
    let plain = name.replace('-', "").to_ascii_lowercase();
    let is_named = |member: &&MemberStatus| {
        let digits = member.node.to_string().replace('-', "");
        member.peer_addr.is_some_and(|address| address.to_string() == name)
            || (!plain.is_empty() && digits.starts_with(&plain))
    };
    let mut found = members.iter().filter(is_named);
    match (found.next(), found.next()) {
        (Some(member), None) => Ok(member),
        (Some(_), Some(_)) => Err(Status::invalid_argument(format!(
            "several nodes have an id that starts with {name:?}; give more of it"
        ))),
        (None, _) => Err(Status::not_found(format!(
            "the cluster has no node {name:?}; `stead cluster status` lists them"
        ))),
    }
}

fn describe(cluster_id: &str, status: &ClusterStatus) -> api::Cluster {
    let owned: usize = status.members.iter().map(|member| member.shards).sum();
    api::Cluster {
        cluster_id: cluster_id.into(),
        node_id: status.me.to_string(),
        revision: status.revision.0,
        shards: Some(api::cluster::Shards {
            total: status.shards as u32,
            owned: owned as u32,
            free: status.shards_free as u32,
            halted: status.shards_halted as u32,
            moving: status.shards_moving as u32,
        }),
        lease_remaining: Some(time::duration(status.lease_remaining)),
        read_ago: Some(time::duration(status.read_ago)),
        store_silent: status.is_stale,
        members: status.members.iter().map(member).collect(),
        disagreements: status.disagreements.clone(),
    }
}

fn member(member: &MemberStatus) -> api::Member {
    let gossip = match member.liveness {
        None => "",
        Some(Liveness::Alive) => "alive",
        Some(Liveness::Suspected) => "suspected",
        Some(Liveness::Down) => "down",
    };
    api::Member {
        node_id: member.node.to_string(),
        address: member.peer_addr.map(|address| address.to_string()).unwrap_or_default(),
        zone: member.zone.to_string(),
        capacity: member.capacity,
        version: member.version.to_string(),
        state: member.state.name().into(),
        gossip: gossip.into(),
        incarnation: member.incarnation.0,
        shards: member.shards as u32,
        lease_age: Some(time::duration(member.lease_age)),
        revision: member.revision.0,
        broken: member.broken.as_deref().unwrap_or_default().into(),
        start_time: Some(time::timestamp(member.started_at_ms)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::words::{Code, Incarnation, Revision};

    fn node(first: u8) -> MemberStatus {
        let mut id = [7; 16];
        id[0] = first;
        MemberStatus {
            node: NodeId(id),
            state: NodeState::Active,
            liveness: None,
            incarnation: Incarnation(1),
            peer_addr: Some(std::net::SocketAddr::from(([10, 0, 0, first], 7834))),
            lease_age: Duration::ZERO,
            shards: 3,
            zone: "".into(),
            capacity: 100,
            version: "0.1.0".into(),
            revision: Revision(1),
            broken: None,
            started_at_ms: 0,
        }
    }

    #[test]
    fn a_node_is_found_by_the_start_of_its_id_or_its_address() {
        let members = [node(0x12), node(0x13)];
        for name in ["12", "12070707", "10.0.0.18:7834", &members[0].node.to_string()] {
            assert_eq!(find(&members, name).unwrap().node, members[0].node, "{name}");
        }
        let code = |name| find(&members, name).unwrap_err().code;
        assert_eq!(code("1"), Code::InvalidArgument);
        assert_eq!(code(""), Code::InvalidArgument);
        assert_eq!(code("-"), Code::NotFound);
        assert_eq!(code("99"), Code::NotFound);
    }

    fn page(ids: &[(&str, bool)], more: bool) -> api::ListEntitiesResponse {
        let row = |(id, hot): &(&str, bool)| api::EntitySummary {
            journal: "carts".into(),
            id: (*id).into(),
            hot: *hot,
            ..Default::default()
        };
        api::ListEntitiesResponse {
            entities: ids.iter().map(row).collect(),
            next_page_token: if more { "more".into() } else { String::new() },
        }
    }

    #[test]
    fn pages_of_nodes_are_merged_as_far_as_all_of_them_reach() {
        let pages = || {
            vec![
                page(&[("a", false), ("b", true), ("c", false)], true),
                page(&[("a", true), ("b", false), ("c", false), ("d", true)], false),
            ]
        };
        let all = merged(pages(), 10);
        let rows: Vec<_> = all.entities.iter().map(|row| (&*row.id, row.hot)).collect();
        assert_eq!(rows, [("a", true), ("b", true), ("c", false)]);
        assert!(!all.next_page_token.is_empty());
        let first = merged(pages(), 2);
        assert_eq!(first.entities.len(), 2);
        let next = page::parse_token(&first.next_page_token).unwrap();
        assert_eq!(next, Some(Address::new("carts", "b")));
        assert!(merged(vec![page(&[("a", true)], false)], 2).next_page_token.is_empty());
    }
}
