//! The settings of an entity type beyond those that every kind has.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::Faults;
use crate::wasm::{EntityType, InstanceLimits, Setting};
use crate::words::limits::{
    GUEST_DEADLINE_DEFAULT, GUEST_DEADLINE_MAX, GUEST_MEMORY_BYTES_DEFAULT, GUEST_MEMORY_BYTES_MAX,
    MIB,
};

const MEMORY_MAX_MIB: &str = "memory-max-mib";
const DEADLINE_MS: &str = "deadline-ms";

pub(super) fn limits(entity_type: &EntityType, faults: &mut Faults) -> InstanceLimits {
    let mut limits = InstanceLimits {
        memory_bytes_max: GUEST_MEMORY_BYTES_DEFAULT,
        deadline: GUEST_DEADLINE_DEFAULT,
    };
    let service = &entity_type.service;
    let mut seen = Vec::new();
    for setting in &entity_type.settings {
        let name = setting.name.as_str();
        if seen.contains(&name) {
            faults.add(format!("{service}: the setting {name} is given twice"));
            continue;
        }
        let result = match name {
            MEMORY_MAX_MIB => number(setting, 1..=(GUEST_MEMORY_BYTES_MAX / MIB) as u64)
                .map(|mib| limits.memory_bytes_max = mib as usize * MIB),
            DEADLINE_MS => number(setting, 1..=GUEST_DEADLINE_MAX.as_millis() as u64)
                .map(|ms| limits.deadline = Duration::from_millis(ms)),
            unknown => Err(format!(
                "this host has no setting {unknown:?}; those it knows: {MEMORY_MAX_MIB}, {DEADLINE_MS}"
            )),
        };
        match result {
            Ok(()) => seen.push(name),
            Err(fault) => faults.add(format!("{service}: {fault}")),
        }
    }
    limits
}

fn number(setting: &Setting, range: RangeInclusive<u64>) -> Result<u64, String> {
    let Setting { name, value } = setting;
    match value.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!(
            "the setting {name} is {value:?}; it must be a number from {} to {}",
            range.start(),
            range.end()
        )),
    }
}
