//! Puts the file descriptor sets of several services together.

use std::collections::HashSet;

use miniz_oxide::inflate::decompress_to_vec;
use prost::encoding::{WireType, decode_key, decode_varint};

/// One `google.protobuf.FileDescriptorSet` with every file of the deflated `sets` once. Serialized
/// sets can be concatenated as they are; what this adds is that a file they share is not sent twice.
pub fn merge(sets: impl Iterator<Item = &'static [u8]>) -> Vec<u8> {
    let mut seen = HashSet::new();
    let mut merged = Vec::new();
    for set in sets {
        // The build helper has deflated it; damaged or not, the host judges what comes of it.
        let set = decompress_to_vec(set).unwrap_or_default();
        for file in files(&set) {
            if seen.insert(file.to_vec()) {
                merged.extend_from_slice(file);
            }
        }
    }
    merged
}

/// The entries of a set, each with its key and length. What is not such an entry ends the set: the
/// build helper has written it, and the host says what is wrong with a damaged one.
fn files(mut set: &[u8]) -> impl Iterator<Item = &[u8]> {
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

    fn set(names: &[&str]) -> Vec<u8> {
        let file = |name: &&str| FileDescriptorProto {
            name: Some(name.to_string()),
            ..Default::default()
        };
        FileDescriptorSet { file: names.iter().map(file).collect() }.encode_to_vec()
    }

    fn deflated(names: &[&str]) -> &'static [u8] {
        miniz_oxide::deflate::compress_to_vec(&set(names), 9).leak()
    }

    #[test]
    fn a_file_of_two_sets_is_sent_once() {
        let merged = merge(
            [deflated(&["empty.proto", "cart.proto"]), deflated(&["empty.proto", "x.proto"])]
                .into_iter(),
        );
        assert_eq!(merged, set(&["empty.proto", "cart.proto", "x.proto"]));
    }
}
