//! How events lie on the disk: a sealed row in the tail, and many rows of one entity in a segment.
//!
//! A segment is: version (1 byte), CRC-32 of what follows and of its key (4 bytes, little endian),
//! then for every event, numbered from the key's: type, time as a difference to the event before
//! (zigzag), length (all LEB128), and the event's bytes.

use bytes::{Buf, BufMut, Bytes};
use flate2::Crc;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 5;
pub const CHECKSUM_BYTES: usize = 4;

/// An event as it is stored: its type is a number in `message_type`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    pub at_ms: u64,
    pub type_no: i64,
    pub data: Bytes,
}

/// Bytes that were not written by this code, or have changed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

fn checksum(key: &[u64], parts: &[&[u8]]) -> u32 {
    let mut crc = Crc::new();
    for number in key {
        crc.update(&number.to_le_bytes());
    }
    for part in parts {
        crc.update(part);
    }
    crc.sum()
}

/// Data followed by a checksum of it and of what it belongs to.
pub fn seal(key: &[u64], data: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(data.len() + CHECKSUM_BYTES);
    sealed.extend_from_slice(data);
    sealed.put_u32_le(checksum(key, &[data]));
    sealed
}

pub fn unseal(key: &[u64], sealed: Vec<u8>) -> Result<Bytes, Damaged> {
    let mut data = Bytes::from(sealed);
    let at = data.len().checked_sub(CHECKSUM_BYTES).ok_or(Damaged)?;
    let sum = data.split_off(at).get_u32_le();
    if sum == checksum(key, &[&data]) { Ok(data) } else { Err(Damaged) }
}

/// Writes one segment, event by event.
pub struct Encoder {
    entity: i64,
    seq_first: u64,
    count: u64,
    last_ms: u64,
    buffer: Vec<u8>,
}

impl Encoder {
    pub fn new(entity: i64, seq_first: u64) -> Self {
        let mut buffer = Vec::with_capacity(1024);
        buffer.extend_from_slice(&[VERSION, 0, 0, 0, 0]);
        Self { entity, seq_first, count: 0, last_ms: 0, buffer }
    }

    pub fn push(&mut self, event: &Packed) {
        put_varint(&mut self.buffer, event.type_no as u64);
        put_varint(&mut self.buffer, zigzag(event.at_ms.wrapping_sub(self.last_ms) as i64));
        put_varint(&mut self.buffer, event.data.len() as u64);
        self.buffer.extend_from_slice(&event.data);
        self.last_ms = event.at_ms;
        self.count += 1;
    }

    pub fn bytes(&self) -> usize {
        self.buffer.len()
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn finish(mut self) -> Segment {
        let sum = checksum(
            &[self.entity as u64, self.seq_first, self.count],
            &[&self.buffer[HEADER_BYTES..]],
        );
        self.buffer[1..HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
        Segment {
            entity: self.entity,
            seq_first: self.seq_first,
            seq_last: self.seq_first + self.count - 1,
            data: self.buffer,
        }
    }
}

/// A row of the table of the same name. Never empty.
#[derive(Clone, Debug)]
pub struct Segment {
    pub entity: i64,
    pub seq_first: u64,
    pub seq_last: u64,
    pub data: Vec<u8>,
}

impl Segment {
    pub fn decode(self) -> Result<Vec<Packed>, Damaged> {
        let mut rest = Bytes::from(self.data);
        if rest.len() < HEADER_BYTES || rest.get_u8() != VERSION || self.seq_last < self.seq_first {
            return Err(Damaged);
        }
        let sum = rest.get_u32_le();
        let count = self.seq_last - self.seq_first + 1;
        if sum != checksum(&[self.entity as u64, self.seq_first, count], &[&rest]) {
            return Err(Damaged);
        }
        // Every event takes three bytes at least, so a wrong count cannot ask for much.
        let mut events = Vec::with_capacity((count as usize).min(rest.len() / 3 + 1));
        let mut at_ms = 0u64;
        for _ in 0..count {
            let type_no = get_varint(&mut rest)? as i64;
            at_ms = at_ms.wrapping_add(unzigzag(get_varint(&mut rest)?) as u64);
            let length = get_varint(&mut rest)? as usize;
            if length > rest.len() {
                return Err(Damaged);
            }
            events.push(Packed { at_ms, type_no, data: rest.split_to(length) });
        }
        if rest.is_empty() { Ok(events) } else { Err(Damaged) }
    }
}

fn put_varint(buffer: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        buffer.push(value as u8 | 0x80);
        value >>= 7;
    }
    buffer.push(value as u8);
}

fn get_varint(rest: &mut Bytes) -> Result<u64, Damaged> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = rest.try_get_u8().map_err(|_| Damaged)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Damaged)
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events() -> impl Strategy<Value = Vec<Packed>> {
        let event = (any::<u64>(), 1..i64::MAX, prop::collection::vec(any::<u8>(), 0..300));
        let event =
            event.prop_map(|(at_ms, type_no, data)| Packed { at_ms, type_no, data: data.into() });
        prop::collection::vec(event, 1..40)
    }

    fn encode(entity: i64, seq_first: u64, events: &[Packed]) -> Segment {
        let mut encoder = Encoder::new(entity, seq_first);
        events.iter().for_each(|event| encoder.push(event));
        encoder.finish()
    }

    proptest! {
        #[test]
        fn segment_round_trips(entity in 1..i64::MAX, first in 1..u64::MAX / 2, events in events()) {
            let segment = encode(entity, first, &events);
            prop_assert_eq!(segment.seq_last, first + events.len() as u64 - 1);
            prop_assert_eq!(segment.decode(), Ok(events));
        }

        #[test]
        fn segment_with_a_flipped_bit_is_damaged(events in events(), at: prop::sample::Index, bit in 0..8u8) {
            let mut segment = encode(7, 1, &events);
            let at = at.index(segment.data.len());
            segment.data[at] ^= 1u8 << bit;
            prop_assert_eq!(segment.decode(), Err(Damaged));
        }

        #[test]
        fn random_bytes_are_damaged(data in prop::collection::vec(any::<u8>(), 0..100), last in 1..u64::MAX) {
            let segment = Segment { entity: 1, seq_first: 1, seq_last: last, data };
            prop_assert_eq!(segment.decode(), Err(Damaged));
        }

        #[test]
        fn seal_belongs_to_its_key(data in prop::collection::vec(any::<u8>(), 0..100), key: u64) {
            let sealed = seal(&[key, 2], &data);
            prop_assert_eq!(unseal(&[key, 2], sealed.clone()), Ok(Bytes::from(data)));
            prop_assert_eq!(unseal(&[key, 3], sealed), Err(Damaged));
        }
    }

    #[test]
    fn segment_of_another_entity_or_place_is_damaged() {
        let events = [Packed { at_ms: 1, type_no: 1, data: Bytes::from_static(b"x") }];
        let segment = encode(7, 3, &events);
        assert_eq!(Segment { entity: 8, ..segment.clone() }.decode(), Err(Damaged));
        assert_eq!(Segment { seq_first: 4, seq_last: 4, ..segment.clone() }.decode(), Err(Damaged));
        assert_eq!(Segment { seq_last: 4, ..segment }.decode(), Err(Damaged));
    }
}
