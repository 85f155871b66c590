//! Clusters of many nodes in simulated time: the host's own placement and membership, without a machine.
//! The same seed gives the same numbers.

mod network;
mod placement;
mod plot;
mod report;

use std::time::{Duration, Instant};

use stead::words::NodeId;

use crate::simulate::network::{Fact, Network};
pub use crate::simulate::plot::plot;
pub use crate::simulate::report::{HEADING, markdown};

pub const SIZES: [usize; 4] = [10, 50, 100, 200];
pub const LOSSES: [u64; 2] = [0, 10];
/// For news of the start to die down.
const CALM: Duration = Duration::from_secs(20);
/// How long a cluster is watched in which nothing happens.
const QUIET: Duration = Duration::from_secs(30);
/// Between a join and the next kill.
const PAUSE: Duration = Duration::from_secs(2);

/// What was simulated.
pub struct Simulated {
    /// Kills and joins in each cluster.
    pub rounds: usize,
    pub placements: Vec<Placement>,
    pub memberships: Vec<Membership>,
}

/// Shards that change hands, each list sorted, a number a round.
pub struct Placement {
    pub nodes: usize,
    pub by_join: Vec<usize>,
    pub by_leave: Vec<usize>,
    /// What the leaver had: nobody can move less.
    pub leaver_had: Vec<usize>,
}

/// How soon who knows, each list sorted, a time a round.
pub struct Membership {
    pub nodes: usize,
    pub loss_percent: u64,
    /// From a kill until one survivor, and until every survivor calls the node down.
    pub down_first: Vec<Duration>,
    pub down_all: Vec<Duration>,
    /// From a start until every other node takes the newcomer for a member.
    pub joined: Vec<Duration>,
    /// That a node sends while nothing happens.
    pub messages_per_second: f64,
    /// How often a node that runs found that it was called down, over all nodes and all of `simulated`.
    pub wrongly_down: u64,
    pub simulated: Duration,
}

/// Prints each line of the tables as soon as it is known.
///
/// # Errors
///
/// If news do not reach everybody within a bound of simulated time.
pub fn run(rounds: usize) -> anyhow::Result<Simulated> {
    let began = Instant::now();
    println!("{}", report::placement_header());
    let mut placements = Vec::new();
    for nodes in SIZES {
        let row = placement::churn(nodes, rounds);
        println!("{}", report::placement_row(&row));
        placements.push(row);
    }
    println!("\n{}", report::membership_header());
    let each = LOSSES.iter().flat_map(|loss| SIZES.map(|nodes| (nodes, *loss)));
    let memberships = std::thread::scope(|scope| {
        let running: Vec<_> = each
            .map(|(nodes, loss)| scope.spawn(move || membership(nodes, loss, rounds)))
            .collect();
        let rows = running.into_iter().map(|row| {
            let row = row.join().map_err(|_| anyhow::anyhow!("a simulation panicked"))??;
            println!("{}", report::membership_row(&row));
            Ok(row)
        });
        rows.collect::<anyhow::Result<Vec<_>>>()
    })?;
    println!("\nsimulated in {:.0} s", began.elapsed().as_secs_f64());
    Ok(Simulated { rounds, placements, memberships })
}

fn membership(nodes: usize, loss_percent: u64, rounds: usize) -> anyhow::Result<Membership> {
    let mut network = Network::new(nodes, loss_percent);
    let from = network.now();
    for node in 0..nodes {
        network.until_all(Fact::Member(node), "start")?;
    }
    network.pass(CALM)?;
    let (quiet, sent) = (network.now(), network.sent());
    network.pass(QUIET)?;
    let seconds = network.now().since(quiet).as_secs_f64();
    let messages_per_second = (network.sent() - sent) as f64 / seconds / nodes as f64;
    let (mut down_first, mut down_all, mut joined) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        let dead = network.kill();
        let known = network.until_all(Fact::Down(dead), &format!("round {round}, kill"))?;
        down_first.push(known.first);
        down_all.push(known.last);
        let newcomer = network.start();
        let known = network.until_all(Fact::Member(newcomer), &format!("round {round}, join"))?;
        joined.push(known.last);
        network.pass(PAUSE)?;
    }
    for times in [&mut down_first, &mut down_all, &mut joined] {
        times.sort();
    }
    Ok(Membership {
        nodes,
        loss_percent,
        down_first,
        down_all,
        joined,
        messages_per_second,
        wrongly_down: network.wrongly_down(),
        simulated: network.now().since(from),
    })
}

fn node_id(number: usize) -> NodeId {
    let mut id = [0x5a; 16];
    id[..8].copy_from_slice(&(number as u64 + 1).to_be_bytes());
    NodeId(id)
}
