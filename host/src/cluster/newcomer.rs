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
    unless_renewed(truth, setup, timing, |row| unlike(&setup.config.version, timing, row)).await?;
    let members: Vec<(NodeId, SocketAddr)> = others(truth, setup)
        .await?
        .into_iter()
        .filter_map(|row| Some((row.id, row.peer_addr?)))
        .collect();
    let greet = |(node, at): (NodeId, SocketAddr)| {
        let greeting = setup.messenger.greet(node, at);
        async move { (node, greeting.await) }
    };
    let refusals = refusals(join_all(members.into_iter().map(greet)).await);
    unless_renewed(truth, setup, timing, |row| {
        let reason = refusals.get(&row.id)?.clone();
        Some(StartError::Stranger { reason })
    })
    .await
}

/// Fails with what is wrong with a member that renews its lease. What a dead one was does not matter, nor who
/// answers now where it was.
async fn unless_renewed(
    truth: &mut Truth,
    setup: &Setup,
    timing: &Timing,
    wrong_with: impl Fn(&NodeRow) -> Option<StartError>,
) -> Result<(), StartError> {
    let mut seen = HashMap::new();
    // By then every lease that was not renewed meanwhile has run out, whichever of the two lengths it has.
    let until = clock::now() + timing.lease.max(Timing::normal().lease);
    loop {
        let mut is_fine = true;
        for row in others(truth, setup).await? {
            let Some(wrong) = wrong_with(&row) else { continue };
            is_fine = false;
            let renewals = (row.incarnation, row.hb);
            if *seen.entry(row.id).or_insert(renewals) != renewals {
                return Err(wrong);
            }
        }
        if is_fine || clock::now() >= until {
            return Ok(());
        }
        tokio::time::sleep(timing.renew_every / 2).await;
    }
}

fn unlike(version: &str, timing: &Timing, row: &NodeRow) -> Option<StartError> {
    let node = row.id;
    if !work_together(version, &row.version) {
        let (ours, theirs) = (version.to_owned(), row.version.to_string());
        return Some(StartError::Version { ours, theirs, node });
    }
    let theirs = row.lease.filter(|lease| *lease != timing.lease)?;
    Some(StartError::Lease { ours: timing.lease, theirs, node })
}

/// Who does not let this node in. While keys or certificates are replaced, it is enough if some members do.
fn refusals(greetings: Vec<(NodeId, Greeting)>) -> HashMap<NodeId, String> {
    let mut refusals = HashMap::new();
    for (node, greeting) in greetings {
        match greeting {
            Greeting::Met => return HashMap::new(),
            Greeting::Refused(reason) => _ = refusals.insert(node, reason),
            Greeting::Silent => {}
        }
    }
    refusals
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
    use crate::cluster::ownership::observer::tests::row;

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
    fn a_member_with_another_lease_is_named_and_one_that_does_not_say_is_not_judged() {
        let (normal, fast) = (Timing::normal(), Timing::fast());
        let silent = row(NodeId([2; 16]), 1, 1);
        let member = NodeRow { lease: Some(normal.lease), ..silent.clone() };
        assert!(unlike("1.0.0", &normal, &member).is_none());
        assert!(unlike("1.0.0", &fast, &silent).is_none());
        let told = unlike("1.0.0", &fast, &member).map(|wrong| wrong.to_string());
        let told = told.unwrap_or_default();
        for part in ["node 02020202", "a lease of 5s", "have 2s", "--fast-failover"] {
            assert!(told.contains(part), "{part:?} is not in {told:?}");
        }
    }

    #[test]
    fn one_member_that_lets_it_in_is_enough() {
        let refused = || Greeting::Refused("no".into());
        let refusals = |greetings: &[Greeting]| {
            let nodes = (0..).map(|number| NodeId([number; 16]));
            refusals(nodes.zip(greetings.iter().cloned()).collect()).len()
        };
        assert_eq!(refusals(&[]), 0);
        assert_eq!(refusals(&[Greeting::Silent]), 0);
        assert_eq!(refusals(&[refused(), Greeting::Met]), 0);
        assert_eq!(refusals(&[Greeting::Silent, refused(), refused()]), 2);
    }
}
