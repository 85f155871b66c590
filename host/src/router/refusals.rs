//! Handshakes that failed on the peer port: each address is told of once in a while.

use std::collections::HashMap;
use std::net::IpAddr;

use parking_lot::Mutex;

use crate::words::clock::{self, Instant};
use crate::words::limits;

#[derive(Default)]
pub struct Refusals(Mutex<HashMap<IpAddr, Instant>>);

impl Refusals {
    /// Whether it is time for a line about this address.
    pub fn tell(&self, address: IpAddr) -> bool {
        let now = clock::now();
        let every = limits::PEER_REFUSAL_LOGGED_EVERY;
        let mut told = self.0.lock();
        if told.get(&address).is_some_and(|at| now - *at < every) {
            return false;
        }
        if told.len() >= limits::PEER_REFUSALS_KNOWN_MAX {
            told.retain(|_, at| now - *at < every);
        }
        // More addresses than that within a minute are no mistake of an operator.
        if told.len() >= limits::PEER_REFUSALS_KNOWN_MAX {
            return false;
        }
        told.insert(address, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_address_is_told_of_once_a_minute() {
        let refusals = Refusals::default();
        let address = |n: u32| IpAddr::from(n.to_be_bytes());
        assert!(refusals.tell(address(1)));
        assert!(!refusals.tell(address(1)));
        assert!(refusals.tell(address(2)));
        tokio::time::advance(limits::PEER_REFUSAL_LOGGED_EVERY).await;
        assert!(refusals.tell(address(1)));
        for n in 0..5_000 {
            refusals.tell(address(n));
        }
        assert!(refusals.0.lock().len() <= limits::PEER_REFUSALS_KNOWN_MAX);
    }
}
