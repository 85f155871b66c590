//! What a node does about a row that does not agree with what it holds. Nothing is inferred from a call
//! that succeeded: a claim whose answer was lost, and a shard that was handed over unheard, are found here.

use crate::cluster::ownership::ShardRow;
use crate::words::{Epoch, Incarnation, NodeId};

/// What this process knows of a shard by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// Under which epoch it is held.
    pub held: Option<Epoch>,
    /// The highest epoch under which it was ever held.
    pub granted: Epoch,
    /// The highest epoch that anybody told of.
    pub known: Epoch,
    pub is_closing: bool,
    /// On its way to another node, or being claimed.
    pub is_moving: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mend {
    /// It is ours: serve it.
    Grant(Epoch),
    /// It is held here under this epoch, and not ours any more.
    Lose(Epoch),
    /// A hand-over came to nothing: serve it again.
    Reopen(Epoch),
    /// It is ours, and we shall never serve it under this epoch again: give it up.
    Release(Epoch),
    /// It is ours by an earlier life of this node.
    Adopt,
}

/// The row may be older than what is known here: an epoch is never held twice by one process, and what a
/// row says of an epoch below the known ones is old news.
pub fn mend(me: NodeId, incarnation: Incarnation, row: &ShardRow, local: &Local) -> Option<Mend> {
    let owner = row.owner.filter(|(owner, _)| *owner == me).map(|(_, incarnation)| incarnation);
    match (local.held, owner) {
        (Some(held), _) if row.epoch < held => None,
        (Some(held), Some(by)) if row.epoch == held && by == incarnation => {
            (local.is_closing && !local.is_moving).then_some(Mend::Reopen(held))
        }
        (Some(held), _) => Some(Mend::Lose(held)),
        (None, None) => None,
        (None, Some(_)) if row.epoch < local.known || local.is_moving => None,
        (None, Some(by)) if by < incarnation => Some(Mend::Adopt),
        // A row of a later life of ours than we know: registration will tell.
        (None, Some(by)) if by > incarnation => None,
        (None, Some(_)) if row.epoch > local.granted => Some(Mend::Grant(row.epoch)),
        (None, Some(_)) => Some(Mend::Release(row.epoch)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::Shard;

    const ME: NodeId = NodeId([1; 16]);
    const OTHER: NodeId = NodeId([2; 16]);
    const INC: Incarnation = Incarnation(5);

    fn row(owner: Option<(NodeId, u64)>, epoch: u64) -> ShardRow {
        let owner = owner.map(|(node, incarnation)| (node, Incarnation(incarnation)));
        ShardRow { shard: Shard(0), owner, epoch: Epoch(epoch), is_halted: false }
    }

    fn held(epoch: u64) -> Local {
        let epoch = Epoch(epoch);
        Local { held: Some(epoch), granted: epoch, known: epoch, ..Local::default() }
    }

    fn gone(epoch: u64, known: u64) -> Local {
        Local { granted: Epoch(epoch), known: Epoch(known), ..Local::default() }
    }

    fn check(row: ShardRow, local: Local) -> Option<Mend> {
        mend(ME, INC, &row, &local)
    }

    #[test]
    fn what_agrees_is_left_alone() {
        assert_eq!(check(row(Some((ME, 5)), 7), held(7)), None);
        assert_eq!(check(row(Some((OTHER, 1)), 7), gone(0, 7)), None);
        assert_eq!(check(row(None, 7), gone(0, 7)), None);
    }

    #[test]
    fn a_claim_that_nobody_told_of_is_found() {
        assert_eq!(check(row(Some((ME, 5)), 8), gone(6, 7)), Some(Mend::Grant(Epoch(8))));
    }

    #[test]
    fn an_epoch_is_not_held_twice() {
        assert_eq!(check(row(Some((ME, 5)), 7), gone(7, 7)), Some(Mend::Release(Epoch(7))));
        // It was handed over: the row was read before that.
        assert_eq!(check(row(Some((ME, 5)), 7), gone(7, 8)), None);
    }

    #[test]
    fn what_others_own_is_lost() {
        assert_eq!(check(row(Some((OTHER, 1)), 8), held(7)), Some(Mend::Lose(Epoch(7))));
        assert_eq!(check(row(None, 8), held(7)), Some(Mend::Lose(Epoch(7))));
        // The store's reconciling steps the epoch, too.
        assert_eq!(check(row(Some((ME, 5)), 8), held(7)), Some(Mend::Lose(Epoch(7))));
        // Old news.
        assert_eq!(check(row(Some((OTHER, 1)), 6), held(7)), None);
    }

    #[test]
    fn one_owner_an_epoch_or_none() {
        assert_eq!(check(row(Some((OTHER, 1)), 7), held(7)), Some(Mend::Lose(Epoch(7))));
    }

    #[test]
    fn a_hand_over_that_came_to_nothing_is_undone_once_it_ended() {
        let closing = Local { is_closing: true, ..held(7) };
        assert_eq!(check(row(Some((ME, 5)), 7), closing), Some(Mend::Reopen(Epoch(7))));
        let moving = Local { is_moving: true, ..closing };
        assert_eq!(check(row(Some((ME, 5)), 7), moving), None);
    }

    #[test]
    fn an_earlier_life_leaves_shards_behind() {
        assert_eq!(check(row(Some((ME, 4)), 7), gone(0, 7)), Some(Mend::Adopt));
    }
}
