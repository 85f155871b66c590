//! What joins and leaves move, one after the other, each from the owners that the one before led to.

use stead::cluster::placement::{Candidate, desired};
use stead::words::NodeId;
use stead_tests::rng::Rng;

use crate::simulate::{Placement, node_id};

pub const SHARDS: usize = 1_024;

pub fn churn(nodes: usize, rounds: usize) -> Placement {
    let mut rng = Rng::new(nodes as u64);
    let candidate = |number| Candidate { node: node_id(number), capacity: 100 };
    let mut running: Vec<_> = (0..nodes).map(candidate).collect();
    let mut owners = desired(&vec![None; SHARDS], &running);
    let (mut by_join, mut by_leave, mut leaver_had) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        running.push(candidate(nodes + round));
        let joined = desired(&owners, &running);
        by_join.push(differences(&owners, &joined));
        // Back to `nodes` of them. The newcomer may leave, too.
        let leaver = running.swap_remove(rng.below(running.len() as u64) as usize).node;
        leaver_had.push(joined.iter().filter(|owner| **owner == Some(leaver)).count());
        owners = desired(&joined, &running);
        by_leave.push(differences(&joined, &owners));
    }
    for moved in [&mut by_join, &mut by_leave, &mut leaver_had] {
        moved.sort();
    }
    Placement { nodes, by_join, by_leave, leaver_had }
}

fn differences(before: &[Option<NodeId>], after: &[Option<NodeId>]) -> usize {
    before.iter().zip(after).filter(|(before, after)| before != after).count()
}
