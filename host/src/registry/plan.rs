//! What a deployment would change, as pure code over the entity types of modules.

use std::collections::BTreeMap;

use crate::registry::live::{Kind, Service};
use crate::words::{Digest, Grants, JournalName, Revision, ServiceName};

/// What a deployment changes (or would change).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub revision: Revision,
    /// Ordered by service.
    pub changes: Vec<Change>,
    /// What the modules of the revision may reach.
    pub grants: Grants,
}

/// What a deployment does to a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub action: Action,
    /// As it will be; of a removed service, as it was.
    pub entity_type: TypeName,
    /// The module that serves it from now on; of a removed service, the one that did.
    pub module: Digest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Added,
    /// Another module serves it now.
    Replaced,
    Removed,
    Unchanged,
}

/// An entity type in three words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeName {
    pub service: ServiceName,
    pub kind: Kind,
    pub journal: JournalName,
}

impl TypeName {
    pub fn of(service: &Service) -> Self {
        let (service, kind, journal) = (&service.name, service.kind, &service.journal);
        Self { service: service.clone(), kind, journal: journal.clone() }
    }
}

/// A module as planning sees it.
#[derive(Clone, Debug)]
pub struct Outline {
    pub digest: Digest,
    pub name: String,
    pub types: Vec<TypeName>,
    /// Groups that its services consume event logs with, as `LOG/GROUP`; each service names a group once.
    pub groups: Vec<(String, ServiceName)>,
}

/// A journal whose events nobody could read any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    pub journal: JournalName,
    /// What the deployment does to it.
    pub change: String,
}

impl Outline {
    /// What both want to have, for which they cannot be live together.
    pub fn clash(&self, other: &Outline) -> Option<String> {
        for own in &self.types {
            for theirs in &other.types {
                if own.service == theirs.service {
                    return Some(format!("the service {}", own.service));
                }
                if own.journal == theirs.journal {
                    return Some(format!("the journal name {}", own.journal));
                }
            }
        }
        None
    }

    fn title(&self) -> String {
        format!("{} ({})", self.name, self.digest.short())
    }
}

/// One sentence for each two modules of one deployment that cannot be live together.
pub fn conflicts(modules: &[Outline]) -> Vec<String> {
    let mut found = Vec::new();
    for (index, one) in modules.iter().enumerate() {
        for other in &modules[index + 1..] {
            if let Some(what) = one.clash(other) {
                let (one, other) = (one.title(), other.title());
                found.push(format!("{what} is in both {one} and {other}; deploy one of them"));
            }
        }
    }
    found
}

/// One sentence for each group that a service would share with another one: the events that one of them consumed
/// would never come to the other.
pub fn shared_groups(modules: &[&Outline]) -> Vec<String> {
    let mut found = Vec::new();
    let mut owners: BTreeMap<&str, &ServiceName> = BTreeMap::new();
    for (group, service) in modules.iter().flat_map(|module| &module.groups) {
        let owner = *owners.entry(group).or_insert(service);
        if owner != service {
            let (one, other) = (owner.min(service), owner.max(service));
            found.push(format!(
                "{one} and {other} both consume as the group {group}, which one service can do; name another \
                 group in one of them, or deploy a module without it"
            ));
        }
    }
    found
}

/// Whether a live module stays when `new` ones come: one that shares a service or a journal name with a
/// new one is replaced by it as a whole.
pub fn stays(module: &Outline, new: &[Outline]) -> bool {
    new.iter().all(|new| new.digest != module.digest && new.clash(module).is_none())
}

/// What becomes of every service, ordered by service.
pub fn changes(before: &[&Outline], after: &[&Outline]) -> Vec<Change> {
    let (before, after) = (by_service(before), by_service(after));
    let mut changes = Vec::with_capacity(after.len());
    for (service, &(entity_type, module)) in &after {
        let action = match before.get(service) {
            None => Action::Added,
            Some(&(was, from)) if was == entity_type && from == module => Action::Unchanged,
            Some(_) => Action::Replaced,
        };
        changes.push(Change { action, entity_type: entity_type.clone(), module });
    }
    for (service, &(entity_type, module)) in &before {
        if !after.contains_key(service) {
            let entity_type = entity_type.clone();
            changes.push(Change { action: Action::Removed, entity_type, module });
        }
    }
    changes.sort_by(|one, other| one.entity_type.service.cmp(&other.entity_type.service));
    changes
}

/// The journals that are orphaned if they have entities. A service may be renamed as long as its journal
/// goes on under the same kind.
pub fn orphans(before: &[&Outline], after: &[&Outline]) -> Vec<Orphan> {
    let mut orphans = Vec::new();
    for was in before.iter().flat_map(|module| &module.types) {
        let mut types = after.iter().flat_map(|module| &module.types);
        let change = match types.find(|is| is.journal == was.journal) {
            Some(is) if is.kind == was.kind => continue,
            Some(is) => format!("changes its kind from {} to {}", was.kind, is.kind),
            None => match by_service(after).get(&was.service) {
                Some((is, _)) => format!("moves {} to the journal {}", was.service, is.journal),
                None => format!("removes its service {}", was.service),
            },
        };
        orphans.push(Orphan { journal: was.journal.clone(), change });
    }
    orphans
}

fn by_service<'a>(modules: &[&'a Outline]) -> BTreeMap<&'a ServiceName, (&'a TypeName, Digest)> {
    let types = modules.iter().flat_map(|module| {
        module.types.iter().map(|entity_type| (&entity_type.service, (entity_type, module.digest)))
    });
    types.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A module from `service/journal` pairs.
    fn module(name: &str, types: &[&str]) -> Outline {
        let entity_type = |text: &&str| {
            let (service, journal) = text.split_once('/').unwrap();
            TypeName { service: service.into(), kind: Kind::EventSourced, journal: journal.into() }
        };
        Outline {
            digest: Digest::of(name.as_bytes()),
            name: name.to_owned(),
            types: types.iter().map(entity_type).collect(),
            groups: Vec::new(),
        }
    }

    fn consuming(name: &str, groups: &[(&str, &str)]) -> Outline {
        let groups = groups.iter().map(|(group, service)| ((*group).to_owned(), (*service).into()));
        Outline { groups: groups.collect(), ..module(name, &[]) }
    }

    fn told(changes: &[Change]) -> Vec<String> {
        changes.iter().map(|c| format!("{:?} {}", c.action, c.entity_type.service)).collect()
    }

    #[test]
    fn a_module_that_shares_a_service_or_a_journal_is_replaced_as_a_whole() {
        let current = [module("a", &["A/a", "B/b"]), module("c", &["C/c"]), module("d", &["D/d"])];
        let new = [module("a2", &["A/x", "E/e"]), module("c2", &["C2/c"])];
        let kept: Vec<_> = current.iter().filter(|module| stays(module, &new)).collect();
        assert_eq!(kept.iter().map(|module| &*module.name).collect::<Vec<_>>(), ["d"]);

        let before: Vec<_> = current.iter().collect();
        let after: Vec<_> = kept.into_iter().chain(&new).collect();
        assert_eq!(
            told(&changes(&before, &after)),
            ["Replaced A", "Removed B", "Removed C", "Added C2", "Unchanged D", "Added E"]
        );
        let orphans = orphans(&before, &after);
        let orphans: Vec<_> =
            orphans.iter().map(|o| format!("{}: {}", o.journal, o.change)).collect();
        assert_eq!(orphans, ["a: moves A to the journal x", "b: removes its service B"]);
    }

    #[test]
    fn the_same_module_again_changes_nothing() {
        let current = [module("a", &["A/a"]), module("b", &["B/b"])];
        let again = [module("a", &["A/a"])];
        let kept = current.iter().filter(|module| stays(module, &again));
        let after: Vec<_> = kept.chain(&again).collect();
        let before: Vec<_> = current.iter().collect();
        assert_eq!(told(&changes(&before, &after)), ["Unchanged A", "Unchanged B"]);
        assert!(orphans(&before, &after).is_empty());
    }

    #[test]
    fn services_that_share_a_group_are_both_named() {
        let modules = [
            consuming("a", &[("cart/hot", "B"), ("cart/mail", "B"), ("stock/hot", "C")]),
            consuming("b", &[("cart/hot", "A")]),
        ];
        let [fault] = &shared_groups(&modules.iter().collect::<Vec<_>>())[..] else {
            panic!("one fault");
        };
        assert!(fault.starts_with("A and B both consume as the group cart/hot, "), "{fault}");
        assert_eq!(shared_groups(&[&modules[0]]), [""; 0]);
    }

    #[test]
    fn two_new_modules_with_the_same_service_or_journal_conflict() {
        let modules = [module("a", &["A/a"]), module("b", &["A/b", "C/c"]), module("c", &["D/c"])];
        let title = |name: &str| format!("{name} ({})", Digest::of(name.as_bytes()).short());
        let (a, b, c) = (title("a"), title("b"), title("c"));
        assert_eq!(
            conflicts(&modules),
            [
                format!("the service A is in both {a} and {b}; deploy one of them"),
                format!("the journal name c is in both {b} and {c}; deploy one of them"),
            ]
        );
    }
}
