//! Puts the file descriptor sets of several services together.

use std::collections::HashSet;

use prost::encoding::{WireType, decode_key, decode_varint};

/// One `google.protobuf.FileDescriptorSet` with every file of `sets` once. Serialized sets can be
/// concatenated as they are; what this adds is that a file they share is not sent twice.
pub fn merge(sets: impl Iterator<Item = &'static [u8]>) -> Vec<u8> {
    let mut seen = HashSet::new();
    let mut merged = Vec::new();
    for set in sets {
        for file in files(set) {
            if seen.insert(file) {
                merged.extend_from_slice(file);
            }
        }
    }
    merged
}

/// The entries of a set, each with its key and length. What is not such an entry ends the set: the
/// build helper has written it, and the host says what is wrong with a damaged one.
fn files(mut set: &'static [u8]) -> impl Iterator<Item = &'static [u8]> {
    std::iter::from_fn(move || {
        let mut rest = set;
        if decode_key(&mut rest).ok()? != (1, WireType::LengthDelimited) {
            return None;
        }
        let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
        let header = set.len() - rest.len();
        let (file, next) = set.split_at_checked(header.checked_add(length)?)?;
        set = next;
        Some(file)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use prost_types::{FileDescriptorProto, FileDescriptorSet};

    fn set(names: &[&str]) -> &'static [u8] {
        let file = |name: &&str| FileDescriptorProto {
            name: Some(name.to_string()),
            ..Default::default()
        };
        let set = FileDescriptorSet { file: names.iter().map(file).collect() };
        set.encode_to_vec().leak()
    }

    #[test]
    fn a_file_of_two_sets_is_sent_once() {
        let merged = merge(
            [set(&["empty.proto", "cart.proto"]), set(&["empty.proto", "x.proto"])].into_iter(),
        );
        assert_eq!(merged, set(&["empty.proto", "cart.proto", "x.proto"]));
    }
}
