//! Judges what a module says of itself. All faults are found, not only the first, and each is a
//! sentence that names service, method and field.

mod settings;
mod template;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prost_reflect::{DescriptorPool, MethodDescriptor, ServiceDescriptor};

use crate::registry::consume::Consume;
use crate::registry::descriptor;
use crate::registry::key::KeyReader;
use crate::registry::live::{Kind, Method, Module, Service};
use crate::registry::plan::TypeName;
use crate::registry::shape::Shapes;
use crate::registry::view::View;
use crate::wasm::{Component, Description, EntityType, InstanceLimits, Interfaces, Pool};
use crate::words::limits::{
    ENTITY_TYPES_PER_MODULE_MAX, FAULTS_TOLD_MAX, JOURNAL_NAME_BYTES_MAX, METHODS_PER_SERVICE_MAX,
    PASSIVATE_AFTER_DEFAULT, SDK_NAME_BYTES_MAX, SNAPSHOT_EVERY_DEFAULT,
};
use crate::words::{Digest, JournalName, ServiceName};

/// Packages whose services the host itself serves.
const RESERVED_PACKAGES: [&str; 2] = ["grpc.", "stead.admin."];

/// A description without a fault.
pub struct Checked {
    pub sdk: String,
    pub pool: DescriptorPool,
    pub entity_types: Vec<CheckedType>,
}

pub struct CheckedType {
    pub name: TypeName,
    pub snapshot_every: u32,
    pub passivate_after: Duration,
    pub limits: InstanceLimits,
    pub history: u32,
    pub view: Option<View>,
    pub methods: BTreeMap<Arc<str>, Arc<Method>>,
}

/// Judges a description; an error has one sentence per fault.
pub fn check(description: &Description) -> Result<Checked, Vec<String>> {
    let mut faults = Faults::default();
    let pool = match descriptor::read(&description.file_descriptor_set) {
        Ok(pool) => Some(pool),
        Err(fault) => {
            faults.add(fault);
            None
        }
    };
    let types = &description.entity_types;
    if types.is_empty() {
        faults.add("the module describes no entity type".to_owned());
    }
    if types.len() > ENTITY_TYPES_PER_MODULE_MAX {
        let count = types.len();
        faults.add(format!(
            "the module describes {count} entity types; the limit is {ENTITY_TYPES_PER_MODULE_MAX}"
        ));
        return Err(faults.told());
    }
    find_duplicates(types, &mut faults);
    let source = pool.as_ref().map(|pool| (pool, Shapes::of(pool.all_messages())));
    let mut checked = Vec::with_capacity(types.len());
    for entity_type in types {
        checked.extend(check_type(
            entity_type,
            description.interfaces,
            source.as_ref(),
            &mut faults,
        ));
    }
    match pool {
        Some(pool) if faults.is_empty() => {
            let mut sdk = description.sdk.clone();
            sdk.truncate(sdk.floor_char_boundary(SDK_NAME_BYTES_MAX));
            Ok(Checked { sdk, pool, entity_types: checked })
        }
        _ => Err(faults.told()),
    }
}

/// A module and its services, ready to be made live.
pub fn assemble(
    digest: Digest,
    name: &str,
    component: Component,
    description: &Description,
    checked: Checked,
) -> (Arc<Module>, Vec<Arc<Service>>) {
    let module = Arc::new(Module {
        digest,
        name: name.to_owned(),
        sdk: checked.sdk,
        component,
        pool: checked.pool,
        file_descriptor_set: description.file_descriptor_set.clone().into(),
    });
    let service = |checked: CheckedType| {
        let pooled = || (module.component.clone(), checked.name.service.to_arc(), checked.limits);
        let pool_of = |kind: Kind| (checked.name.kind == kind).then(pooled);
        let some_method =
            checked.methods.values().next().filter(|_| checked.name.kind == Kind::Workflow);
        Arc::new(Service {
            result: some_method
                .map(|method| Arc::new(Method::of_results(method, &checked.name.service))),
            action_pool: pool_of(Kind::Action)
                .map(|(component, name, limits)| Pool::new(component, name, limits)),
            view_pool: pool_of(Kind::View)
                .map(|(component, name, limits)| Pool::new(component, name, limits)),
            name: checked.name.service,
            kind: checked.name.kind,
            journal: checked.name.journal,
            module: Arc::clone(&module),
            snapshot_every: checked.snapshot_every,
            passivate_after: checked.passivate_after,
            limits: checked.limits,
            history: checked.history,
            view: checked.view,
            methods: checked.methods,
        })
    };
    let services = checked.entity_types.into_iter().map(service).collect();
    (module, services)
}

/// Sentences for the author of a module, bounded in number and length.
#[derive(Default)]
struct Faults {
    told: Vec<String>,
    untold: usize,
}

impl Faults {
    fn add(&mut self, fault: String) {
        if self.told.len() < FAULTS_TOLD_MAX {
            self.told.push(descriptor::shorten(fault));
        } else {
            self.untold += 1;
        }
    }

    fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    fn told(mut self) -> Vec<String> {
        if self.untold > 0 {
            self.told.push(format!("and {} more", self.untold));
        }
        self.told
    }
}

fn find_duplicates(types: &[EntityType], faults: &mut Faults) {
    let (mut services, mut journals) = (HashSet::new(), HashSet::new());
    for entity_type in types {
        let (service, journal) = (&entity_type.service, &entity_type.journal_name);
        if !services.insert(service) {
            faults.add(format!("{service}: the module describes this service twice"));
        }
        if !journals.insert(journal) {
            faults.add(format!(
                "{service}: another entity type has the journal name {journal:?} too"
            ));
        }
    }
}

fn check_type(
    entity_type: &EntityType,
    interfaces: Interfaces,
    source: Option<&(&DescriptorPool, Shapes)>,
    faults: &mut Faults,
) -> Option<CheckedType> {
    let service = &entity_type.service;
    let journal = &entity_type.journal_name;
    if let Some(package) = RESERVED_PACKAGES.iter().find(|package| service.starts_with(**package)) {
        faults.add(format!("{service}: the package {package}* belongs to the host"));
    }
    if !is_journal_name(journal) {
        faults.add(format!(
            "{service}: the journal name {journal:?} is not 1 to {JOURNAL_NAME_BYTES_MAX} characters \
             of A-Za-z0-9._-"
        ));
    }
    let kind = kind(entity_type, interfaces, faults);
    let settings = settings::settings(entity_type, kind, faults);
    let (pool, shapes) = source?;
    let Some(descriptor) = pool.get_service_by_name(service) else {
        faults.add(format!("{service}: no such service in the file descriptor set"));
        return None;
    };
    let methods = check_methods(&descriptor, shapes, kind, faults);
    let view = match (kind, settings.source) {
        (Some(Kind::View), Some(source)) => View::of(&descriptor, source, settings.version)
            .map_err(|found| found.into_iter().for_each(|fault| faults.add(fault)))
            .ok(),
        _ => None,
    };
    Some(CheckedType {
        name: TypeName {
            service: ServiceName::from(descriptor.full_name()),
            kind: kind?,
            journal: JournalName::from(journal.as_str()),
        },
        snapshot_every: match entity_type.snapshot_every {
            0 => SNAPSHOT_EVERY_DEFAULT,
            every => every,
        },
        passivate_after: match entity_type.passivate_after_ms {
            0 => PASSIVATE_AFTER_DEFAULT,
            ms => Duration::from_millis(ms.into()),
        },
        limits: settings.limits,
        history: settings.history,
        view,
        methods,
    })
}

/// The kinds that this host runs.
const KINDS: [Kind; 5] = Kind::ALL;

fn kind(entity_type: &EntityType, interfaces: Interfaces, faults: &mut Faults) -> Option<Kind> {
    let (service, name) = (&entity_type.service, &entity_type.kind);
    let kind = Kind::parse(name).filter(|kind| KINDS.contains(kind));
    let Some(kind) = kind else {
        let known = KINDS.map(Kind::name).join(", ");
        faults
            .add(format!("{service}: this host has no kind {name:?}; the kinds it knows: {known}"));
        return None;
    };
    let (interface, exported) = match kind {
        Kind::EventSourced | Kind::Value | Kind::Workflow => ("entity", interfaces.entity),
        Kind::Action => ("action", interfaces.action),
        Kind::View => ("view", interfaces.view),
    };
    if !exported {
        faults.add(format!(
            "{service}: its kind {kind} needs the interface stead:function/{interface}, which the \
             component does not export"
        ));
    }
    Some(kind)
}

pub fn is_journal_name(name: &str) -> bool {
    let may_be = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=JOURNAL_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(may_be)
}

fn check_methods(
    service: &ServiceDescriptor,
    shapes: &Shapes,
    kind: Option<Kind>,
    faults: &mut Faults,
) -> BTreeMap<Arc<str>, Arc<Method>> {
    let name = service.full_name();
    let count = service.methods().len();
    if count == 0 {
        faults.add(format!("{name}: the service has no method"));
    }
    if count > METHODS_PER_SERVICE_MAX {
        faults.add(format!(
            "{name}: the service has {count} methods; the limit is {METHODS_PER_SERVICE_MAX}"
        ));
        return BTreeMap::new();
    }
    let mut methods = BTreeMap::new();
    for descriptor in service.methods() {
        if let Some(method) = check_method(descriptor, shapes, kind, faults) {
            methods.insert(Arc::clone(&method.name), Arc::new(method));
        }
    }
    methods
}

fn check_method(
    descriptor: MethodDescriptor,
    shapes: &Shapes,
    kind: Option<Kind>,
    faults: &mut Faults,
) -> Option<Method> {
    let has_entities = kind.is_none_or(Kind::has_entities);
    let full_name = descriptor.full_name().to_owned();
    let mut add = |fault: String| faults.add(format!("{full_name}: {fault}"));
    if has_entities && (descriptor.is_client_streaming() || descriptor.is_server_streaming()) {
        add("it streams, which an entity cannot; make it unary".to_owned());
    }
    match descriptor::try_http_rule(&descriptor) {
        Ok(None) => {}
        Ok(Some(_)) if descriptor.is_client_streaming() => {
            add("its request streams, which HTTP/JSON cannot carry; take its google.api.http away"
                .to_owned())
        }
        Ok(Some(rule)) => template::check(&rule, &descriptor).into_iter().for_each(&mut add),
        Err(error) => add(format!("its google.api.http cannot be read: {error}")),
    }
    let consume = match kind {
        Some(Kind::Action) => Consume::of(&descriptor).unwrap_or_else(|found| {
            found.into_iter().for_each(&mut add);
            None
        }),
        _ => None,
    };
    let is_get = kind == Some(Kind::View)
        && descriptor.input().fields().any(|field| descriptor::is_entity_key(&field));
    let has_key = has_entities || is_get;
    let key = match has_key.then(|| KeyReader::new(&descriptor.input())).transpose() {
        Ok(key) => key,
        Err(found) => {
            found.into_iter().for_each(&mut add);
            return None;
        }
    };
    let service = descriptor.parent_service().full_name();
    Some(Method {
        name: descriptor.name().into(),
        path: format!("/{service}/{}", descriptor.name()).into(),
        key,
        consume,
        response: shapes.shape(&descriptor.output())?,
        metrics: OnceLock::new(),
        descriptor,
    })
}

#[cfg(test)]
mod tests;
