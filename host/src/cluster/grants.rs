//! Which epochs this process has been given, so that none is ever held twice: a row that was read before
//! a shard left must not bring it back.

use std::collections::HashSet;

use parking_lot::Mutex;

use crate::journal::Holdings;
use crate::words::{Epoch, Incarnation, Shard};

pub struct GrantedEpochs(Mutex<State>);

struct State {
    /// None: this node has no life in the store at the moment.
    incarnation: Option<Incarnation>,
    /// By number of the shard: the highest epoch that was ever granted; 0 for none.
    granted: Vec<Epoch>,
    /// On their way to other nodes.
    moving: HashSet<Shard>,
}

impl GrantedEpochs {
    pub fn new(shards: u32) -> Self {
        let granted = vec![Epoch(0); shards as usize];
        Self(Mutex::new(State { incarnation: None, granted, moving: HashSet::new() }))
    }

    pub fn begin(&self, incarnation: Incarnation) {
        self.0.lock().incarnation = Some(incarnation);
    }

    /// The life ends: nothing is held, and nothing can be granted. Returns what was held.
    pub fn end(&self, holdings: &Holdings) -> Vec<(Shard, Epoch)> {
        let mut state = self.0.lock();
        state.incarnation = None;
        holdings.revoke_all()
    }

    /// Serves a shard from now on. False: the incarnation is over, or the epoch was granted before.
    pub fn grant(
        &self,
        holdings: &Holdings,
        incarnation: Incarnation,
        shard: Shard,
        epoch: Epoch,
    ) -> bool {
        let mut state = self.0.lock();
        if state.incarnation != Some(incarnation) {
            return false;
        }
        let Some(granted) = state.granted.get_mut(shard.0 as usize) else { return false };
        if *granted >= epoch {
            return false;
        }
        *granted = epoch;
        holdings.grant(shard, epoch)
    }

    pub fn granted(&self, shard: Shard) -> Epoch {
        self.0.lock().granted.get(shard.0 as usize).copied().unwrap_or_default()
    }

    /// False if the shard is on its way already.
    pub fn begin_move(&self, shard: Shard) -> bool {
        self.0.lock().moving.insert(shard)
    }

    pub fn end_move(&self, shard: Shard) {
        self.0.lock().moving.remove(&shard);
    }

    pub fn is_moving(&self, shard: Shard) -> bool {
        self.0.lock().moving.contains(&shard)
    }

    pub fn moving(&self) -> Vec<Shard> {
        self.0.lock().moving.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: Shard = Shard(2);

    #[test]
    fn an_epoch_is_granted_once_and_only_to_the_life_that_has_it() {
        let (grants, holdings) = (GrantedEpochs::new(4), Holdings::of_member(4));
        let grant = |incarnation, epoch| {
            grants.grant(&holdings, Incarnation(incarnation), SHARD, Epoch(epoch))
        };
        assert!(!grant(1, 5));
        grants.begin(Incarnation(1));
        assert!(grant(1, 5));
        assert!(holdings.revoke(SHARD, Epoch(5)));
        assert!(!grant(1, 5));
        assert!(grant(1, 6));
        assert_eq!(grants.end(&holdings), [(SHARD, Epoch(6))]);
        assert!(!grant(1, 7));
        grants.begin(Incarnation(2));
        assert!(!grant(1, 7) && grant(2, 7));
    }
}
