//! What a node looks at before it registers: whether it can work with the members that there are. A node that
//! registered all the same would be given shards that nobody else could reach.

use std::collections::HashMap;
use std::net::SocketAddr;

use futures_util::future::join_all;

use crate::cluster::handle::{Setup, StartError};
use crate::cluster::ownership::{NodeRow, Timing};
use crate::cluster::truth::Truth;
use crate::words::{NodeId, clock};

/// What became of the attempt to speak with a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Greeting {
    Met,
    /// One of the two does not take the other for a member.
    Refused(String),
    /// Nothing can be said.
    Silent,
}

pub(super) async fn check(
    truth: &mut Truth,
    setup: &Setup,
    timing: &Timing,
) -> Result<(), StartError> {
    versions(truth, setup, timing).await?;
    let members: Vec<(NodeId, SocketAddr)> = others(truth, setup)
        .await?
        .into_iter()
        .filter_map(|row| Some((row.id, row.peer_addr?)))
        .collect();
    let greet = |(node, at): (NodeId, SocketAddr)| setup.messenger.greet(node, at);
    stranger(join_all(members.into_iter().map(greet)).await)
}

/// While keys or certificates are replaced, it is enough if some members let it in.
fn stranger(greetings: Vec<Greeting>) -> Result<(), StartError> {
    let mut refused = None;
    for greeting in greetings {
        match greeting {
            Greeting::Met => return Ok(()),
            Greeting::Refused(reason) => refused = Some(reason),
            Greeting::Silent => {}
        }
    }
    refused.map_or(Ok(()), |reason| Err(StartError::Stranger { reason }))
}

/// Only members that renew their leases count: what a dead one was does not matter.
async fn versions(truth: &mut Truth, setup: &Setup, timing: &Timing) -> Result<(), StartError> {
    let ours = &setup.config.version;
    let mut seen = HashMap::new();
    let until = clock::now() + timing.lease;
    loop {
        let unfit = |row: &NodeRow| !work_together(ours, &row.version);
        let unfit: Vec<NodeRow> = others(truth, setup).await?.into_iter().filter(unfit).collect();
        for row in &unfit {
            let renewals = (row.incarnation, row.hb);
            if *seen.entry(row.id).or_insert(renewals) != renewals {
                let (ours, theirs) = (ours.clone(), row.version.to_string());
                return Err(StartError::Version { ours, theirs, node: row.id });
            }
        }
        if unfit.is_empty() || clock::now() >= until {
            return Ok(());
        }
        tokio::time::sleep(timing.renew_every / 2).await;
    }
}

async fn others(truth: &mut Truth, setup: &Setup) -> Result<Vec<NodeRow>, StartError> {
    let mut nodes = truth.poll().await?.nodes;
    nodes.retain(|row| row.id != setup.identity.node && row.state.is_member());
    Ok(nodes)
}

/// Those of one major version whose minor versions are neighbours. What is no version at all is not judged.
fn work_together(ours: &str, theirs: &str) -> bool {
    match (minor(ours), minor(theirs)) {
        (Some((major, minor)), Some((other_major, other_minor))) => {
            major == other_major && u64::abs_diff(minor, other_minor) <= 1
        }
        (None, _) | (_, None) => true,
    }
}

fn minor(version: &str) -> Option<(u64, u64)> {
    let (major, rest) = version.split_once('.')?;
    let minor = rest.split(['.', '-', '+']).next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_minor_versions_work_together() {
        for (ours, theirs, fit) in [
            ("0.1.0", "0.1.0", true),
            ("0.1.9", "0.2.0-rc.1", true),
            ("0.2.0", "0.1.0", true),
            ("0.1.0", "0.3.0", false),
            ("1.0.0", "0.1.0", false),
            ("1.10.0", "1.9.3", true),
            ("1.10.0", "1.1.0", false),
            ("0.1.0", "unknown", true),
        ] {
            assert_eq!(work_together(ours, theirs), fit, "{ours} and {theirs}");
        }
    }

    #[test]
    fn one_member_that_lets_it_in_is_enough() {
        let refused = || Greeting::Refused("no".into());
        assert!(stranger(Vec::new()).is_ok());
        assert!(stranger(vec![Greeting::Silent]).is_ok());
        assert!(stranger(vec![refused(), Greeting::Met]).is_ok());
        assert!(stranger(vec![Greeting::Silent, refused()]).is_err());
    }
}
