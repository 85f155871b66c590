//! The settings of an entity type beyond those that every kind has.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::Faults;
use crate::registry::live::Kind;
use crate::wasm::{EntityType, InstanceLimits, Setting};
use crate::words::JournalName;
use crate::words::limits::{
    GUEST_DEADLINE_DEFAULT, GUEST_DEADLINE_MAX, GUEST_MEMORY_BYTES_DEFAULT, GUEST_MEMORY_BYTES_MAX,
    HISTORY_DEFAULT, HISTORY_MAX, MIB, VIEW_VERSION_MAX,
};

const MEMORY_MAX_MIB: &str = "memory-max-mib";
const DEADLINE_MS: &str = "deadline-ms";

/// Of a value entity.
const HISTORY: &str = "history";
/// Of a view.
const SOURCE: &str = "source";
const VERSION: &str = "version";

pub(super) struct Settings {
    pub(super) limits: InstanceLimits,
    pub(super) history: u32,
    /// Of a view: the journal name of the entity type of whose events it is made.
    pub(super) source: Option<JournalName>,
    pub(super) version: u32,
}

/// `kind` is none if the module names one that this host does not run: then every setting may be there.
pub(super) fn settings(
    entity_type: &EntityType,
    kind: Option<Kind>,
    faults: &mut Faults,
) -> Settings {
    let mut limits = InstanceLimits {
        memory_bytes_max: GUEST_MEMORY_BYTES_DEFAULT,
        deadline: GUEST_DEADLINE_DEFAULT,
    };
    let mut history = HISTORY_DEFAULT;
    let mut source = None;
    let mut version = 1;
    let is_view = kind.is_none_or(|kind| kind == Kind::View);
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
            HISTORY if kind.is_none_or(|kind| kind == Kind::Value) => {
                number(setting, 1..=HISTORY_MAX.into()).map(|states| history = states as u32)
            }
            HISTORY => Err(format!("the setting {HISTORY} is for value entities alone")),
            SOURCE if is_view => match super::is_journal_name(&setting.value) {
                true => {
                    source = Some(setting.value.as_str().into());
                    Ok(())
                }
                false => Err(format!(
                    "the setting {SOURCE} is {:?}; it must be a journal name",
                    setting.value
                )),
            },
            VERSION if is_view => {
                number(setting, 1..=VIEW_VERSION_MAX.into()).map(|number| version = number as u32)
            }
            SOURCE | VERSION => Err(format!("the setting {name} is for views alone")),
            unknown => Err(format!(
                "this host has no setting {unknown:?}; those it knows: {MEMORY_MAX_MIB}, \
                 {DEADLINE_MS}, {HISTORY}, {SOURCE}, {VERSION}"
            )),
        };
        match result {
            Ok(()) => seen.push(name),
            Err(fault) => faults.add(format!("{service}: {fault}")),
        }
    }
    if kind == Some(Kind::View) && source.is_none() {
        faults.add(format!(
            "{service}: a view needs the setting {SOURCE}, the journal name of the entity type of whose \
             events it is made"
        ));
    }
    Settings { limits, history, source, version }
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
