//! What can be asked about, and the answers.
//!
//! Modules are compiled apart from each other, so two of them may have different files of the same
//! name. A name is looked up in the module that owns it, and an answer carries all files that the one
//! asked for needs, so that a client hardly ever has to ask by file name.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, FileDescriptor};

use crate::registry::Live;
use crate::words::{Code, Digest};

pub(super) enum Query {
    File(String),
    Symbol(String),
    Extension(String, i32),
    ExtensionNumbers(String),
    Services,
    Nothing,
}

pub(super) enum Answer {
    /// The one asked for comes first.
    Files(Vec<Vec<u8>>),
    ExtensionNumbers(String, Vec<i32>),
    Services(Vec<String>),
    Error(Code, String),
}

/// Cheap to make.
pub(super) struct Catalogue {
    /// Live services and the modules that serve them.
    services: BTreeMap<String, Digest>,
    modules: Vec<(Digest, DescriptorPool)>,
}

/// The services that the host itself serves on this port.
static OWN: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(stead_proto::DESCRIPTORS).ok());

/// The others of its packages are served elsewhere.
const OWN_FILES: &str = "grpc/";

impl Catalogue {
    pub(super) fn of(live: &Live) -> Self {
        let services = live.services.values();
        Self {
            services: services
                .map(|service| (service.name.to_string(), service.module.digest))
                .collect(),
            modules: live
                .modules
                .iter()
                .map(|module| (module.digest, module.pool.clone()))
                .collect(),
        }
    }

    pub(super) fn new(services: &[(&str, Digest)], modules: Vec<(Digest, DescriptorPool)>) -> Self {
        let services =
            services.iter().map(|&(service, digest)| (service.to_owned(), digest)).collect();
        Self { services, modules }
    }

    fn names(&self) -> Vec<String> {
        let own = own_files().flat_map(|file| {
            file.services().map(|service| service.full_name().to_owned()).collect::<Vec<_>>()
        });
        let mut names: Vec<_> = self.services.keys().cloned().chain(own).collect();
        names.sort();
        names
    }

    /// The module of the live service that the symbol is, or is part of.
    fn owner(&self, symbol: &str) -> Option<Digest> {
        let service = symbol.rsplit_once('.').map_or(symbol, |(parent, _)| parent);
        self.services.get(symbol).or_else(|| self.services.get(service)).copied()
    }
}

fn own_files() -> impl Iterator<Item = FileDescriptor> {
    let files = OWN.iter().flat_map(|pool| pool.files());
    files.filter(|file| file.name().starts_with(OWN_FILES))
}

/// One stream of questions.
#[derive(Default)]
pub(super) struct Session {
    /// The module that answered last is asked first: a client that follows imports by name goes on
    /// within it.
    last: Option<Digest>,
}

impl Session {
    pub(super) fn answer(&mut self, catalogue: &Catalogue, query: Query) -> Answer {
        match query {
            Query::Services => Answer::Services(catalogue.names()),
            Query::Nothing => {
                Answer::Error(Code::InvalidArgument, "the request asks for nothing".to_owned())
            }
            Query::File(name) => {
                let found = self.find(catalogue, None, |pool| pool.get_file_by_name(&name));
                found.unwrap_or_else(|| not_found(format!("no file {name} is known")))
            }
            Query::Symbol(symbol) => {
                let symbol = symbol.trim_start_matches('.');
                let owner = catalogue.owner(symbol);
                let found = self.find(catalogue, owner, |pool| file_of(pool, symbol));
                found.unwrap_or_else(|| not_found(format!("no {symbol} is known")))
            }
            Query::Extension(extended, number) => {
                let found = self.find(catalogue, None, |pool| {
                    let number = u32::try_from(number).ok()?;
                    let message = pool.get_message_by_name(&extended)?;
                    Some(message.get_extension(number)?.parent_file())
                });
                let message = format!("{extended} has no extension {number} that is known");
                found.unwrap_or_else(|| not_found(message))
            }
            Query::ExtensionNumbers(name) => extension_numbers(catalogue, name),
        }
    }

    fn find(
        &mut self,
        catalogue: &Catalogue,
        owner: Option<Digest>,
        file: impl Fn(&DescriptorPool) -> Option<FileDescriptor>,
    ) -> Option<Answer> {
        let modules = || catalogue.modules.iter();
        let of = |digest: Option<Digest>| modules().filter(move |(d, _)| Some(*d) == digest);
        for (digest, pool) in of(owner).chain(of(self.last)).chain(modules()) {
            if let Some(found) = file(pool) {
                self.last = Some(*digest);
                return Some(with_imports(&found));
            }
        }
        let found = file(OWN.as_ref()?)?;
        let served = own_files().any(|own| own == found || imports(&own, &found));
        served.then(|| with_imports(&found))
    }
}

fn not_found(message: String) -> Answer {
    Answer::Error(Code::NotFound, message)
}

fn extension_numbers(catalogue: &Catalogue, name: String) -> Answer {
    let pools = catalogue.modules.iter().map(|(_, pool)| pool);
    let mut known = false;
    let mut numbers = Vec::new();
    for message in pools.filter_map(|pool| pool.get_message_by_name(&name)) {
        known = true;
        numbers.extend(message.extensions().map(|extension| extension.number() as i32));
    }
    if !known {
        return not_found(format!("no message {name} is known"));
    }
    numbers.sort_unstable();
    numbers.dedup();
    Answer::ExtensionNumbers(name, numbers)
}

fn file_of(pool: &DescriptorPool, symbol: &str) -> Option<FileDescriptor> {
    if let Some(service) = pool.get_service_by_name(symbol) {
        return Some(service.parent_file());
    }
    if let Some(message) = pool.get_message_by_name(symbol) {
        return Some(message.parent_file());
    }
    if let Some(kind) = pool.get_enum_by_name(symbol) {
        return Some(kind.parent_file());
    }
    if let Some(extension) = pool.get_extension_by_name(symbol) {
        return Some(extension.parent_file());
    }
    let (parent, name) = symbol.rsplit_once('.')?;
    if let Some(service) = pool.get_service_by_name(parent) {
        return service.methods().any(|m| m.name() == name).then(|| service.parent_file());
    }
    if let Some(message) = pool.get_message_by_name(parent) {
        let is_member = message.get_field_by_name(name).is_some()
            || message.oneofs().any(|oneof| oneof.name() == name)
            || message.child_enums().any(|kind| kind.get_value_by_name(name).is_some());
        return is_member.then(|| message.parent_file());
    }
    // The values of an enum are its siblings by name; some clients name them as its children.
    if let Some(kind) = pool.get_enum_by_name(parent) {
        return kind.get_value_by_name(name).map(|_| kind.parent_file());
    }
    let mut files = pool.files().filter(|file| file.package_name() == parent);
    files.find(|file| file.enums().any(|kind| kind.get_value_by_name(name).is_some()))
}

fn imports(file: &FileDescriptor, wanted: &FileDescriptor) -> bool {
    closure(file).contains(wanted)
}

fn with_imports(file: &FileDescriptor) -> Answer {
    Answer::Files(closure(file).iter().map(FileDescriptor::encode_to_vec).collect())
}

/// A file and all that it imports, directly or not. Each is there once.
fn closure(file: &FileDescriptor) -> Vec<FileDescriptor> {
    let mut seen = vec![false; file.parent_pool().files().len()];
    let mut files = Vec::new();
    let mut waiting = vec![file.clone()];
    while let Some(file) = waiting.pop() {
        if !std::mem::replace(&mut seen[file.index()], true) {
            waiting.extend(file.dependencies());
            files.push(file);
        }
    }
    files
}
