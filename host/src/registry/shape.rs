//! The shape of a message type: enough to tell in one pass whether bytes are a valid encoding of it.
//!
//! A reply of a guest is checked before anything of its command is stored, so that no client gets
//! bytes that it cannot decode. Nothing is decoded or copied.

use std::collections::HashMap;
use std::sync::Arc;

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

/// Protobuf's own bound on nesting.
const DEPTH_MAX: usize = 100;

/// Cheap to clone.
#[derive(Clone)]
pub struct Shape {
    messages: Arc<[Fields]>,
    root: usize,
    name: Arc<str>,
}

/// The shapes of all messages of a module, which share what they have in common: a module with many
/// methods stays small.
pub struct Shapes {
    messages: Arc<[Fields]>,
    known: HashMap<String, usize>,
}

/// Sorted by number.
type Fields = Vec<(u32, Field)>;

#[derive(Clone, Copy)]
struct Field {
    wire: Wire,
    repeated: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wire {
    Varint,
    Fixed64,
    Fixed32,
    Bytes,
    Text,
    Message(usize),
    Group(usize),
}

impl Shapes {
    pub fn of(descriptors: impl IntoIterator<Item = MessageDescriptor>) -> Self {
        let mut builder = Builder::default();
        for descriptor in descriptors {
            builder.index(descriptor);
        }
        builder.build();
        Self { messages: builder.messages.into(), known: builder.known }
    }

    /// None for a message that they were not made of.
    pub fn shape(&self, descriptor: &MessageDescriptor) -> Option<Shape> {
        let name = descriptor.full_name();
        let root = *self.known.get(name)?;
        Some(Shape { messages: Arc::clone(&self.messages), root, name: name.into() })
    }
}

impl Shape {
    /// Whether `bytes` decode; if not, why.
    pub fn check(&self, bytes: &[u8]) -> Result<(), String> {
        let mut rest = bytes;
        self.fields(&mut rest, self.root, None, 0)
            .map_err(|reason| format!("the reply is not a valid {}: {reason}", self.name))
    }

    fn fields(
        &self,
        rest: &mut &[u8],
        message: usize,
        group: Option<u32>,
        depth: usize,
    ) -> Result<(), &'static str> {
        if depth > DEPTH_MAX {
            return Err("it is nested too deeply");
        }
        let fields = &self.messages[message];
        while !rest.is_empty() {
            let (number, wire) = key(rest)?;
            if wire == 4 {
                return if group == Some(number) { Ok(()) } else { Err("a group ends twice") };
            }
            match fields.binary_search_by_key(&number, |field| field.0) {
                Ok(at) => self.known(rest, fields[at].1, number, wire, depth)?,
                Err(_) => skip(rest, number, wire, depth)?,
            }
        }
        if group.is_some() { Err("a group does not end") } else { Ok(()) }
    }

    fn known(
        &self,
        rest: &mut &[u8],
        field: Field,
        number: u32,
        wire: u8,
        depth: usize,
    ) -> Result<(), &'static str> {
        match (field.wire, wire) {
            (Wire::Varint, 0) => varint(rest).map(drop),
            (Wire::Fixed64, 1) => take(rest, 8).map(drop),
            (Wire::Fixed32, 5) => take(rest, 4).map(drop),
            (Wire::Bytes, 2) => delimited(rest).map(drop),
            (Wire::Text, 2) => match std::str::from_utf8(delimited(rest)?) {
                Ok(_) => Ok(()),
                Err(_) => Err("a string is not UTF-8"),
            },
            (Wire::Message(message), 2) => {
                let mut inner = delimited(rest)?;
                self.fields(&mut inner, message, None, depth + 1)
            }
            (Wire::Group(message), 3) => self.fields(rest, message, Some(number), depth + 1),
            (Wire::Varint, 2) if field.repeated => {
                let mut packed = delimited(rest)?;
                while !packed.is_empty() {
                    varint(&mut packed)?;
                }
                Ok(())
            }
            (Wire::Fixed64, 2) if field.repeated => whole(delimited(rest)?, 8),
            (Wire::Fixed32, 2) if field.repeated => whole(delimited(rest)?, 4),
            (
                Wire::Varint
                | Wire::Fixed64
                | Wire::Fixed32
                | Wire::Bytes
                | Wire::Text
                | Wire::Message(_)
                | Wire::Group(_),
                _,
            ) => Err("a field has the wrong wire type"),
        }
    }
}

/// Not recursive: a chain of message types may be as long as its module wants.
#[derive(Default)]
struct Builder {
    messages: Vec<Fields>,
    /// The types that were met, in the order of their indexes.
    met: Vec<MessageDescriptor>,
    known: HashMap<String, usize>,
}

impl Builder {
    fn build(&mut self) {
        while let Some(descriptor) = self.met.get(self.messages.len()).cloned() {
            let mut fields: Fields =
                descriptor.fields().map(|field| (field.number(), self.field(&field))).collect();
            fields.sort_unstable_by_key(|field| field.0);
            self.messages.push(fields);
        }
    }

    fn index(&mut self, descriptor: MessageDescriptor) -> usize {
        if let Some(index) = self.known.get(descriptor.full_name()) {
            return *index;
        }
        let index = self.met.len();
        self.known.insert(descriptor.full_name().to_owned(), index);
        self.met.push(descriptor);
        index
    }

    fn field(&mut self, field: &FieldDescriptor) -> Field {
        let wire = match field.kind() {
            Kind::Message(inner) if field.is_group() => Wire::Group(self.index(inner)),
            Kind::Message(inner) => Wire::Message(self.index(inner)),
            Kind::String => Wire::Text,
            Kind::Bytes => Wire::Bytes,
            Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => Wire::Fixed64,
            Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => Wire::Fixed32,
            Kind::Int32
            | Kind::Int64
            | Kind::Uint32
            | Kind::Uint64
            | Kind::Sint32
            | Kind::Sint64
            | Kind::Bool
            | Kind::Enum(_) => Wire::Varint,
        };
        Field { wire, repeated: field.is_list() }
    }
}

fn skip(rest: &mut &[u8], number: u32, wire: u8, depth: usize) -> Result<(), &'static str> {
    if depth > DEPTH_MAX {
        return Err("it is nested too deeply");
    }
    match wire {
        0 => varint(rest).map(drop),
        1 => take(rest, 8).map(drop),
        2 => delimited(rest).map(drop),
        3 => loop {
            let (inner, wire) = key(rest)?;
            match wire {
                4 if inner == number => return Ok(()),
                4 => return Err("a group ends twice"),
                wire => skip(rest, inner, wire, depth + 1)?,
            }
        },
        5 => take(rest, 4).map(drop),
        _ => Err("a wire type is unknown"),
    }
}

/// The number and the wire type of a field.
fn key(rest: &mut &[u8]) -> Result<(u32, u8), &'static str> {
    let key = u32::try_from(varint(rest)?).map_err(|_| "a field number is too large")?;
    match key >> 3 {
        0 => Err("a field number is 0"),
        number => Ok((number, (key & 7) as u8)),
    }
}

fn varint(rest: &mut &[u8]) -> Result<u64, &'static str> {
    let mut value = 0_u64;
    for (index, byte) in rest.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if index == 9 && *byte > 1 {
            return Err("a number is too large");
        }
        if byte & 0x80 == 0 {
            *rest = &rest[index + 1..];
            return Ok(value);
        }
    }
    Err("a number does not end")
}

fn take<'a>(rest: &mut &'a [u8], bytes: usize) -> Result<&'a [u8], &'static str> {
    let (taken, left) = rest.split_at_checked(bytes).ok_or("it ends in the middle of a field")?;
    *rest = left;
    Ok(taken)
}

fn delimited<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], &'static str> {
    let bytes = usize::try_from(varint(rest)?).map_err(|_| "a length is too large")?;
    take(rest, bytes)
}

fn whole(packed: &[u8], width: usize) -> Result<(), &'static str> {
    if packed.len().is_multiple_of(width) { Ok(()) } else { Err("a packed field is cut short") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost_reflect::prost::Message as _;
    use prost_reflect::{DescriptorPool, DynamicMessage};

    /// `google.protobuf.FileDescriptorProto`: nested, recursive, with every kind of field but groups.
    fn descriptor() -> MessageDescriptor {
        DescriptorPool::global().get_message_by_name("google.protobuf.FileDescriptorProto").unwrap()
    }

    fn shape() -> Shape {
        Shapes::of([descriptor()]).shape(&descriptor()).unwrap()
    }

    fn sample() -> Vec<u8> {
        descriptor().parent_file().file_descriptor_proto().encode_to_vec()
    }

    #[test]
    fn accepts_a_valid_encoding() {
        shape().check(&sample()).unwrap();
    }

    #[test]
    fn refuses_a_truncated_encoding() {
        let sample = sample();
        shape().check(&sample[..sample.len() - 1]).unwrap_err();
    }

    #[test]
    fn refuses_text_that_is_not_utf8() {
        let error = shape().check(b"\x0a\x02\xff\xfe").unwrap_err();
        assert!(error.contains("UTF-8"), "{error}");
    }

    #[test]
    fn skips_unknown_fields_and_groups() {
        // Field 1000: a varint; field 1001: a group with a fixed32 in it.
        shape().check(b"\xc0\x3e\x01\xcb\x3e\x0d\x00\x00\x00\x00\xcc\x3e").unwrap();
    }

    #[test]
    fn refuses_numbers_that_no_decoder_takes() {
        let refused = |bytes: &[u8]| shape().check(bytes).unwrap_err();
        assert!(refused(b"\xff\xff\xff\xff\x1f\x01").contains("too large"));
        assert!(refused(b"\xc0\x3e\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02").contains("too large"));
        // Field 0 within the unknown group 1001.
        assert!(refused(b"\xcb\x3e\x00\x01\xcc\x3e").contains("is 0"));
    }

    #[test]
    fn a_long_chain_of_types_does_not_overflow_the_stack() {
        use prost_types::field_descriptor_proto::{Label, Type};
        use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto};
        let message = |n: u32| DescriptorProto {
            name: Some(format!("M{n}")),
            field: vec![FieldDescriptorProto {
                name: Some("next".to_owned()),
                number: Some(1),
                label: Some(Label::Optional as i32),
                r#type: Some(Type::Message as i32),
                type_name: Some(format!(".M{}", (n + 1) % 30_000)),
                ..Default::default()
            }],
            ..Default::default()
        };
        let mut pool = DescriptorPool::new();
        pool.add_file_descriptor_proto(FileDescriptorProto {
            name: Some("chain.proto".to_owned()),
            message_type: (0..30_000).map(message).collect(),
            ..Default::default()
        })
        .unwrap();
        let first = pool.get_message_by_name("M0").unwrap();
        let shape = Shapes::of([first.clone()]).shape(&first).unwrap();
        shape.check(b"\x0a\x02\x0a\x00").unwrap();
        shape.check(b"\x0a\x02\x0a\x01").unwrap_err();
    }

    proptest! {
        #[test]
        fn what_it_accepts_can_be_decoded(
            mut bytes in Just(sample()),
            at in 0_usize..100_000,
            flip in 0_u8..=255,
        ) {
            let at = at % bytes.len();
            bytes[at] ^= flip;
            let accepted = shape().check(&bytes).is_ok();
            let decodes = DynamicMessage::decode(descriptor(), &bytes[..]).is_ok();
            prop_assert!(!accepted || decodes);
        }
    }
}
