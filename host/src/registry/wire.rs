//! The top level of an encoded message, field by field, without knowing its type.

use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

pub struct Field<'a> {
    pub number: u32,
    pub value: Value<'a>,
    /// Key and value as they were read.
    pub raw: &'a [u8],
}

#[derive(Clone, Copy)]
pub enum Value<'a> {
    Varint(u64),
    Fixed32([u8; 4]),
    Fixed64([u8; 8]),
    Bytes(&'a [u8]),
    Group,
}

/// The fields in the order in which they were written. Ends after the first error.
pub fn fields(message: &[u8]) -> Fields<'_> {
    Fields { rest: message }
}

pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = read(&mut self.rest);
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

fn read<'a>(rest: &mut &'a [u8]) -> Result<Field<'a>, DecodeError> {
    let start = *rest;
    let (number, wire_type) = decode_key(rest)?;
    let mut encoded = *rest;
    skip_field(wire_type, number, rest, DecodeContext::default())?;
    encoded = &encoded[..encoded.len() - rest.len()];
    let value = match wire_type {
        WireType::Varint => Value::Varint(decode_varint(&mut encoded)?),
        WireType::ThirtyTwoBit => Value::Fixed32(array(encoded)),
        WireType::SixtyFourBit => Value::Fixed64(array(encoded)),
        WireType::LengthDelimited => {
            decode_varint(&mut encoded)?;
            Value::Bytes(encoded)
        }
        WireType::StartGroup | WireType::EndGroup => Value::Group,
    };
    Ok(Field { number, value, raw: &start[..start.len() - rest.len()] })
}

/// `skip_field` found exactly so many bytes.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.first_chunk().copied().unwrap_or([0; N])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_every_wire_type_apart() {
        let message =
            [0x08, 0x96, 0x01, 0x15, 1, 0, 0, 0, 0x19, 2, 0, 0, 0, 0, 0, 0, 0, 0x22, 1, b'x'];
        let fields: Vec<_> = fields(&message).map(Result::unwrap).collect();
        assert_eq!(fields.iter().map(|field| field.number).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert!(matches!(fields[0].value, Value::Varint(150)));
        assert!(matches!(fields[1].value, Value::Fixed32([1, 0, 0, 0])));
        assert!(matches!(fields[2].value, Value::Fixed64([2, 0, 0, 0, 0, 0, 0, 0])));
        assert!(matches!(fields[3].value, Value::Bytes(b"x")));
        assert_eq!(fields[3].raw, [0x22, 1, b'x']);
    }

    #[test]
    fn ends_after_the_first_error() {
        let mut fields = fields(&[0x08, 0x01, 0x22, 0x05, b'x']);
        assert!(fields.next().is_some_and(|field| field.is_ok()));
        assert!(fields.next().is_some_and(|field| field.is_err()));
        assert!(fields.next().is_none());
    }
}
