//! The packets of the gossip between nodes: sealed with a key that follows from the cluster key.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version: 1 |
//! | 1 | key id, which follows from the key |
//! | 24 | nonce: 16 random bytes of the sender's process, then a counter (big endian) |
//! | n | the message, encrypted with XChaCha20 |
//! | 16 | Poly1305 tag |
//!
//! The cluster's id, the version and the key id are associated data, so that clusters which share a key
//! still do not understand each other. The key is HKDF-SHA256 of the cluster key.
//!
//! The counter makes each nonce unique, and lets the receiver refuse what it has seen before: for each
//! sending process it keeps the highest counter and a window of the 128 before it. A packet recorded before
//! the *receiver* started is refused by SWIM instead, for it names an addressee that is gone. What that
//! leaves is an `Announce`, which is answered to the address that the sender had, and nothing else.

use std::collections::HashMap;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use sha2::Sha256;

use crate::words::config::Secret;
use crate::words::limits::{GOSSIP_PACKET_BYTES_MAX, GOSSIP_SENDERS_MAX};

const VERSION: u8 = 1;
const NONCE: usize = 24;
const SESSION: usize = 16;
const TAG: usize = 16;
const OVERHEAD: usize = 2 + NONCE + TAG;
/// What fits into one packet.
pub const MESSAGE_BYTES: usize = GOSSIP_PACKET_BYTES_MAX - OVERHEAD;
const WINDOW: u64 = 128;

/// Why a packet was dropped. The membership is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// Shorter than any packet, or longer than the longest.
    Size,
    Version,
    /// Sealed with a key that is neither the current nor the previous one.
    Key,
    /// Changed on its way, from another cluster, or plain garbage.
    Seal,
    /// Seen before, or older than the window of its sender.
    Replay,
    /// Well sealed, but not what members say to each other.
    Content,
}

impl Refusal {
    pub fn name(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Version => "version",
            Self::Key => "key",
            Self::Seal => "seal",
            Self::Replay => "replay",
            Self::Content => "content",
        }
    }
}

pub struct Sealer {
    cluster: Vec<u8>,
    key: Key,
    previous: Option<Key>,
    session: [u8; SESSION],
    sent: u64,
    senders: HashMap<[u8; SESSION], Seen>,
    opened: u64,
}

struct Key {
    id: u8,
    cipher: XChaCha20Poly1305,
}

/// What came from one process.
struct Seen {
    highest: u64,
    /// Bit n: `highest - n` was seen.
    window: u128,
    /// Place in the order of all packets, to forget who was silent the longest.
    last: u64,
}

impl Sealer {
    /// `session` must be random: nonces repeat if two processes have the same.
    pub fn new(
        cluster: &[u8],
        key: &Secret,
        previous: Option<&Secret>,
        session: [u8; SESSION],
    ) -> Self {
        Self {
            cluster: cluster.to_vec(),
            key: Key::new(key),
            previous: previous.map(Key::new),
            session,
            sent: 0,
            senders: HashMap::new(),
            opened: 0,
        }
    }

    /// None if the message does not fit into a packet.
    pub fn seal(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        if message.len() > MESSAGE_BYTES {
            return None;
        }
        self.sent += 1;
        let mut nonce = [0; NONCE];
        nonce[..SESSION].copy_from_slice(&self.session);
        nonce[SESSION..].copy_from_slice(&self.sent.to_be_bytes());
        let aad = self.associated(self.key.id);
        let payload = Payload { msg: message, aad: &aad };
        let sealed = self.key.cipher.encrypt(&XNonce::from(nonce), payload).ok()?;
        let mut packet = Vec::with_capacity(OVERHEAD + message.len());
        packet.extend_from_slice(&[VERSION, self.key.id]);
        packet.extend_from_slice(&nonce);
        packet.extend_from_slice(&sealed);
        Some(packet)
    }

    pub fn open(&mut self, packet: &[u8]) -> Result<Vec<u8>, Refusal> {
        if packet.len() < OVERHEAD || packet.len() > GOSSIP_PACKET_BYTES_MAX {
            return Err(Refusal::Size);
        }
        let (version, id) = (packet[0], packet[1]);
        if version != VERSION {
            return Err(Refusal::Version);
        }
        let nonce: [u8; NONCE] = packet[2..2 + NONCE].try_into().map_err(|_| Refusal::Size)?;
        let aad = self.associated(id);
        let payload = Payload { msg: &packet[2 + NONCE..], aad: &aad };
        let mut keys = std::iter::once(&self.key).chain(&self.previous).filter(|key| key.id == id);
        let Some(first) = keys.next() else { return Err(Refusal::Key) };
        let nonced = XNonce::from(nonce);
        let message = match first.cipher.decrypt(&nonced, payload) {
            Ok(message) => message,
            // Both keys may have the same id.
            Err(_) => {
                let payload = Payload { msg: &packet[2 + NONCE..], aad: &aad };
                let second = keys.next().ok_or(Refusal::Seal)?;
                second.cipher.decrypt(&nonced, payload).map_err(|_| Refusal::Seal)?
            }
        };
        if self.is_new(&nonce) { Ok(message) } else { Err(Refusal::Replay) }
    }

    fn associated(&self, key_id: u8) -> Vec<u8> {
        let mut aad = b"stead gossip".to_vec();
        aad.extend_from_slice(&[VERSION, key_id]);
        aad.extend_from_slice(&self.cluster);
        aad
    }

    /// Only for packets whose seal is good: others must not get to move a window.
    fn is_new(&mut self, nonce: &[u8; NONCE]) -> bool {
        let (Ok(session), Ok(counter)) = (nonce[..SESSION].try_into(), nonce[SESSION..].try_into())
        else {
            return false;
        };
        let session: [u8; SESSION] = session;
        let counter = u64::from_be_bytes(counter);
        self.opened += 1;
        if !self.senders.contains_key(&session) && self.senders.len() >= GOSSIP_SENDERS_MAX {
            let silent = self.senders.iter().min_by_key(|(_, seen)| seen.last);
            if let Some(silent) = silent.map(|(session, _)| *session) {
                self.senders.remove(&silent);
            }
        }
        let opened = self.opened;
        let seen = self.senders.entry(session).or_insert(Seen { highest: 0, window: 0, last: 0 });
        seen.last = opened;
        seen.accepts(counter)
    }
}

impl Key {
    fn new(secret: &Secret) -> Self {
        let hkdf = Hkdf::<Sha256>::new(Some(b"stead"), secret.expose().as_bytes());
        let mut bytes = [0; 33];
        // 33 bytes are far below what HKDF can give; a key of zeros would not open anything of others.
        let derived = hkdf.expand(b"gossip xchacha20poly1305 v1", &mut bytes);
        debug_assert!(derived.is_ok());
        let mut key = [0; 32];
        key.copy_from_slice(&bytes[..32]);
        Self { id: bytes[32], cipher: XChaCha20Poly1305::new(&key.into()) }
    }
}

impl Seen {
    fn accepts(&mut self, counter: u64) -> bool {
        if counter > self.highest {
            let ahead = counter - self.highest;
            self.window = if ahead < WINDOW { self.window << ahead | 1 } else { 1 };
            self.highest = counter;
            return true;
        }
        let behind = self.highest - counter;
        if counter == 0 || behind >= WINDOW || self.window & (1 << behind) != 0 {
            return false;
        }
        self.window |= 1 << behind;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(key: &str, previous: Option<&str>, session: u8) -> Sealer {
        let previous = previous.map(Secret::new);
        Sealer::new(b"a cluster", &Secret::new(key), previous.as_ref(), [session; SESSION])
    }

    #[test]
    fn what_is_sealed_is_opened_once() {
        let (mut one, mut two) = (sealer("key", None, 1), sealer("key", None, 2));
        let packet = one.seal(b"hello").unwrap();
        assert_eq!(two.open(&packet).unwrap(), b"hello");
        assert_eq!(two.open(&packet), Err(Refusal::Replay));
        let longest = one.seal(&[7; MESSAGE_BYTES]).unwrap();
        assert_eq!(longest.len(), GOSSIP_PACKET_BYTES_MAX);
        assert_eq!(two.open(&longest).unwrap().len(), MESSAGE_BYTES);
        assert_eq!(one.seal(&[7; MESSAGE_BYTES + 1]), None);
    }

    #[test]
    fn packets_may_overtake_each_other_within_the_window() {
        let (mut one, mut two) = (sealer("key", None, 1), sealer("key", None, 2));
        let packets: Vec<_> = (0..300_u32).map(|n| one.seal(&n.to_be_bytes()).unwrap()).collect();
        for n in [200, 150, 199, 73] {
            assert!(two.open(&packets[n]).is_ok(), "{n}");
        }
        assert_eq!(two.open(&packets[150]), Err(Refusal::Replay));
        assert_eq!(two.open(&packets[72]), Err(Refusal::Replay));
        assert!(two.open(&packets[299]).is_ok());
        assert_eq!(two.open(&packets[200]), Err(Refusal::Replay));
    }

    #[test]
    fn other_keys_clusters_and_changed_bytes_are_refused() {
        let mut mine = sealer("key", None, 1);
        let packet = sealer("other", None, 2).seal(b"hello").unwrap();
        assert!(matches!(mine.open(&packet), Err(Refusal::Key | Refusal::Seal)));
        let mut elsewhere = Sealer::new(b"b cluster", &Secret::new("key"), None, [3; SESSION]);
        assert_eq!(mine.open(&elsewhere.seal(b"hello").unwrap()), Err(Refusal::Seal));
        let packet = sealer("key", None, 4).seal(b"hello").unwrap();
        for at in 0..packet.len() {
            let mut changed = packet.clone();
            changed[at] ^= 1;
            assert!(mine.open(&changed).is_err(), "byte {at}");
        }
        for length in 0..packet.len() {
            assert!(mine.open(&packet[..length]).is_err(), "{length} bytes");
        }
        assert_eq!(mine.open(&[1; 5_000]), Err(Refusal::Size));
        assert!(mine.open(&packet).is_ok(), "refused packets leave no trace");
    }

    #[test]
    fn keys_are_replaced_in_three_steps() {
        let mut old = sealer("old", None, 1);
        let mut prepared = sealer("old", Some("new"), 2);
        let mut switched = sealer("new", Some("old"), 3);
        let mut done = sealer("new", None, 4);
        let from_old = old.seal(b"x").unwrap();
        let from_prepared = prepared.seal(b"x").unwrap();
        let from_switched = switched.seal(b"x").unwrap();
        assert!(prepared.open(&from_old).is_ok() && old.open(&from_prepared).is_ok());
        assert!(prepared.open(&from_switched).is_ok() && switched.open(&from_prepared).is_ok());
        assert!(done.open(&from_switched).is_ok());
        assert!(done.open(&from_old).is_err());
    }

    #[test]
    fn senders_are_bounded() {
        let mut mine = sealer("key", None, 1);
        for n in 0..GOSSIP_SENDERS_MAX as u64 + 10 {
            let mut session = [9; SESSION];
            session[..8].copy_from_slice(&n.to_be_bytes());
            let mut other = Sealer::new(b"a cluster", &Secret::new("key"), None, session);
            assert!(mine.open(&other.seal(b"x").unwrap()).is_ok());
        }
        assert_eq!(mine.senders.len(), GOSSIP_SENDERS_MAX);
    }
}
