//! What the live modules consume.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::registry::{Kind, Live, Method, Service, Start};
use crate::wasm::{Pool, ViewInstance};
use crate::words::{JournalName, ServiceName, limits};

/// One group, and what its events are for.
#[derive(Clone)]
pub struct Subscription {
    /// `LOG/GROUP` of a consumer, `view:SERVICE@VERSION` of a view.
    pub group: Arc<str>,
    pub log: JournalName,
    pub start: Start,
    pub target: Target,
}

#[derive(Clone)]
pub enum Target {
    Action(Takers),
    View(Projection),
}

/// A view's guest.
#[derive(Clone)]
pub struct Projection {
    pub service: Arc<Service>,
    pub pool: Pool<ViewInstance>,
}

/// The methods of a group.
#[derive(Clone)]
pub struct Takers {
    pub service: Arc<Service>,
    /// By the type of the event.
    pub by_type: BTreeMap<Arc<str>, Arc<Method>>,
    /// Takes whatever no other does.
    pub any: Option<Arc<Method>>,
}

impl Takers {
    pub fn of(&self, event_type: &str) -> Option<&Arc<Method>> {
        self.by_type.get(event_type).or(self.any.as_ref())
    }
}

impl Subscription {
    /// Those of a revision, by group. A deployment in which two services name the same group is refused; if there
    /// is one all the same, the first service by name has it.
    pub fn all(live: &Live) -> BTreeMap<Arc<str>, Self> {
        let mut all = BTreeMap::new();
        for service in live.services.values() {
            let subscriptions = match service.kind {
                Kind::Action => consumers(service),
                Kind::View => view(service).into_iter().collect(),
                Kind::EventSourced | Kind::Value | Kind::Workflow => Vec::new(),
            };
            for subscription in subscriptions {
                if all.len() < limits::CONSUMER_GROUPS_MAX {
                    all.entry(subscription.group.clone()).or_insert(subscription);
                } else {
                    tracing::error!(
                        group = &*subscription.group,
                        max = limits::CONSUMER_GROUPS_MAX,
                        "there are too many groups; this one consumes nothing"
                    );
                }
            }
        }
        all
    }

    /// Who consumes.
    pub fn service(&self) -> &ServiceName {
        match &self.target {
            Target::Action(takers) => &takers.service.name,
            Target::View(projection) => &projection.service.name,
        }
    }

    /// Whether two subscriptions of a group run the same code.
    pub fn is_same(&self, other: &Self) -> bool {
        let digest = |target: &Target| match target {
            Target::Action(takers) => takers.service.module.digest,
            Target::View(projection) => projection.service.module.digest,
        };
        self.log == other.log && digest(&self.target) == digest(&other.target)
    }
}

/// The name of a view's group.
pub fn view_group(service: &str, version: u32) -> String {
    format!("view:{service}@{version}")
}

fn view(service: &Arc<Service>) -> Option<Subscription> {
    let view = service.view.as_ref()?;
    let pool = service.view_pool.clone()?;
    Some(Subscription {
        group: view_group(service.name.as_str(), view.version).into(),
        log: view.source.clone(),
        start: Start::Beginning,
        target: Target::View(Projection { service: service.clone(), pool }),
    })
}

fn consumers(service: &Arc<Service>) -> Vec<Subscription> {
    let mut groups: BTreeMap<Arc<str>, Subscription> = BTreeMap::new();
    for method in service.methods.values() {
        let Some(consume) = &method.consume else { continue };
        let group: Arc<str> = consume.group_of_log().into();
        let subscription = groups.entry(group.clone()).or_insert_with(|| Subscription {
            group,
            log: consume.event_log.as_str().into(),
            start: consume.start,
            target: Target::Action(Takers {
                service: service.clone(),
                by_type: BTreeMap::new(),
                any: None,
            }),
        });
        let Target::Action(takers) = &mut subscription.target else { continue };
        match &consume.event_type {
            Some(event_type) => {
                takers.by_type.insert(event_type.as_str().into(), method.clone());
            }
            None => takers.any = Some(method.clone()),
        }
    }
    groups.into_values().collect()
}
