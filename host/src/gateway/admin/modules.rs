//! Modules, revisions and the services that they make live.

use std::collections::HashMap;

use stead_proto::admin::v1 as api;

use crate::gateway::admin::entities::crash_report;
use crate::gateway::admin::errors::{from_deploy, from_store};
use crate::gateway::admin::{Admin, page, time};
use crate::journal::ModuleRecord;
use crate::registry::plan::{Action, Change, Plan};
use crate::registry::{DeployRequest, Method, Service, descriptor};
use crate::words::{Digest, Grants, Origin, Revision, Status};

impl Admin {
    pub(super) async fn deploy(
        &self,
        request: api::DeployRequest,
    ) -> Result<api::DeployResponse, Status> {
        let request = deploy_request(request)?;
        let plan = self.registry.deploy(request).await.map_err(from_deploy)?;
        let (revision, grants) = (plan.revision.0, grants(&plan.grants));
        Ok(api::DeployResponse { revision, changes: changes(plan), grants })
    }

    pub(super) async fn roll_back(
        &self,
        request: api::RollBackRequest,
    ) -> Result<api::RollBackResponse, Status> {
        let to = Some(Revision(request.revision)).filter(|revision| revision.0 > 0);
        let plan = self.registry.roll_back(to, request.force).await.map_err(from_deploy)?;
        Ok(api::RollBackResponse { revision: plan.revision.0, changes: changes(plan) })
    }

    pub(super) async fn list_revisions(
        &self,
        request: api::ListRevisionsRequest,
    ) -> Result<api::ListRevisionsResponse, Status> {
        let size = page::size(request.page_size)?;
        let below = match request.page_token.as_str() {
            "" => u64::MAX,
            token => token.parse().map_err(|_| {
                Status::invalid_argument(
                    "page_token is not one that this host gave; start with an empty one",
                )
            })?,
        };
        let live = self.registry.live().revision;
        let known: HashMap<Digest, ModuleRecord> = self
            .journal
            .modules()
            .await
            .map_err(from_store)?
            .into_iter()
            .map(|module| (module.digest, module))
            .collect();
        let mut records = self.registry.revisions().await.map_err(from_deploy)?;
        records.retain(|record| record.revision.0 < below);
        records.sort_unstable_by_key(|record| std::cmp::Reverse(record.revision));
        let more = records.len() > size;
        records.truncate(size);
        let last = records.last().map(|record| record.revision.to_string());
        let revisions = records.into_iter().map(|record| api::Revision {
            revision: record.revision.0,
            live: record.revision == live,
            create_time: Some(time::timestamp(record.created_at_ms)),
            note: record.note,
            grants: grants(&record.grants),
            modules: record.modules.iter().map(|digest| module(digest, &known)).collect(),
        });
        Ok(api::ListRevisionsResponse {
            revisions: revisions.collect(),
            next_page_token: last.filter(|_| more).unwrap_or_default(),
        })
    }

    pub(super) async fn list_services(
        &self,
        _request: api::ListServicesRequest,
    ) -> Result<api::ListServicesResponse, Status> {
        let live = self.registry.live();
        let mut broken_modules = Vec::new();
        if !live.broken.is_empty() {
            let records = self.journal.modules().await.map_err(from_store)?;
            for (digest, reason) in &live.broken {
                let record = records.iter().find(|record| record.digest == *digest);
                broken_modules.push(api::BrokenModule {
                    digest: digest.to_string(),
                    name: record.map(|record| record.name.clone()).unwrap_or_default(),
                    reason: reason.clone(),
                });
            }
        }
        Ok(api::ListServicesResponse {
            revision: live.revision.0,
            services: live.services.values().map(|service| self.described(service)).collect(),
            broken_modules,
        })
    }
}

impl Admin {
    fn described(&self, service: &Service) -> api::Service {
        let crash = self.actions.crash(service.name.as_str());
        api::Service { last_crash: crash.map(crash_report), ..describe_service(service) }
    }
}

fn deploy_request(request: api::DeployRequest) -> Result<DeployRequest, Status> {
    if request.modules.is_empty() {
        return Err(Status::invalid_argument(
            "modules is empty; name at least one uploaded module by its digest",
        ));
    }
    let modules: Result<Vec<Digest>, Status> = request
        .modules
        .iter()
        .enumerate()
        .map(|(index, text)| digest(&format!("modules[{index}]"), text))
        .collect();
    let allow: Result<Vec<Origin>, Status> =
        request.allow.iter().map(|text| allowed(text).map_err(Status::invalid_argument)).collect();
    Ok(DeployRequest {
        modules: modules?,
        plan: request.plan,
        force: request.force,
        note: request.note,
        allow: allow?,
    })
}

fn allowed(text: &str) -> Result<Origin, String> {
    match text.split_once('=') {
        Some(("http", origin)) => Origin::parse(origin),
        _ => Err(format!(
            "allow has {text:?}; write it like http=https://api.example.com, the one thing that can \
             be granted"
        )),
    }
}

fn grants(grants: &Grants) -> Vec<api::Grant> {
    let of_module = |(module, origins): (&Digest, &Vec<Origin>)| {
        let module_digest = module.to_string();
        let grant = |origin: &Origin| api::Grant {
            module_digest: module_digest.clone(),
            allow: format!("http={origin}"),
        };
        origins.iter().map(grant).collect::<Vec<_>>()
    };
    grants.0.iter().flat_map(of_module).collect()
}

pub(super) fn digest(field: &str, text: &str) -> Result<Digest, Status> {
    Digest::parse(text).ok_or_else(|| {
        Status::invalid_argument(format!(
            "{field} is not a SHA-256; write its 64 hexadecimal digits, with or without `sha256:`"
        ))
    })
}

fn changes(plan: Plan) -> Vec<api::Change> {
    plan.changes.into_iter().map(change).collect()
}

fn change(change: Change) -> api::Change {
    let action = match change.action {
        Action::Added => api::change::Action::Added,
        Action::Replaced => api::change::Action::Replaced,
        Action::Removed => api::change::Action::Removed,
        Action::Unchanged => api::change::Action::Unchanged,
    };
    api::Change {
        action: action.into(),
        service: change.entity_type.service.to_string(),
        kind: change.entity_type.kind.name().into(),
        journal: change.entity_type.journal.to_string(),
        module_digest: change.module.to_string(),
    }
}

fn module(digest: &Digest, known: &HashMap<Digest, ModuleRecord>) -> api::Module {
    let record = known.get(digest);
    api::Module {
        digest: digest.to_string(),
        name: record.map(|record| record.name.clone()).unwrap_or_default(),
        bytes: record.map_or(0, |record| record.bytes),
        upload_time: record.map(|record| time::timestamp(record.uploaded_at_ms)),
    }
}

/// A service as the API tells it, without what happened to it on a node.
pub fn describe_service(service: &Service) -> api::Service {
    api::Service {
        name: service.name.to_string(),
        kind: service.kind.name().into(),
        journal: service.journal.to_string(),
        module_digest: service.module.digest.to_string(),
        module_name: service.module.name.clone(),
        methods: service.methods.values().map(|method| describe_method(method)).collect(),
        snapshot_every: service.snapshot_every,
        passivate_after: Some(time::duration(service.passivate_after)),
        memory_bytes_max: service.limits.memory_bytes_max as u64,
        deadline: Some(time::duration(service.limits.deadline)),
        last_crash: None,
    }
}

fn describe_method(method: &Method) -> api::Method {
    api::Method {
        name: method.name.to_string(),
        input_type: method.descriptor.input().full_name().into(),
        output_type: method.descriptor.output().full_name().into(),
        http: descriptor::http_rule(&method.descriptor).map(bindings).unwrap_or_default(),
    }
}

fn bindings(mut rule: stead_proto::google::api::HttpRule) -> Vec<api::HttpBinding> {
    use stead_proto::google::api::http_rule::Pattern;

    let more = std::mem::take(&mut rule.additional_bindings);
    std::iter::once(rule)
        .chain(more)
        .filter_map(|rule| {
            let (method, path) = match rule.pattern? {
                Pattern::Get(path) => ("GET".into(), path),
                Pattern::Put(path) => ("PUT".into(), path),
                Pattern::Post(path) => ("POST".into(), path),
                Pattern::Delete(path) => ("DELETE".into(), path),
                Pattern::Patch(path) => ("PATCH".into(), path),
                Pattern::Custom(custom) => (custom.kind, custom.path),
            };
            Some(api::HttpBinding { method, path, body: rule.body })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use prost_reflect::DescriptorPool;

    use super::*;
    use crate::registry::Kind;
    use crate::registry::plan::TypeName;

    #[test]
    fn a_deployment_needs_modules_that_are_digests() {
        let refused = |modules: &[&str]| {
            let modules = modules.iter().map(|text| text.to_string()).collect();
            deploy_request(api::DeployRequest { modules, ..Default::default() })
                .unwrap_err()
                .message
        };
        let digest = Digest::of(b"cart").to_string();
        assert!(refused(&[]).starts_with("modules is empty"));
        assert!(refused(&[&digest, "cart"]).starts_with("modules[1] is not a SHA-256"));
    }

    #[test]
    fn a_plan_keeps_its_words() {
        let plan = Plan {
            grants: Grants::default(),
            revision: Revision(3),
            changes: vec![Change {
                action: Action::Replaced,
                entity_type: TypeName {
                    service: "shop.Cart".into(),
                    kind: Kind::EventSourced,
                    journal: "carts".into(),
                },
                module: Digest::of(b"cart"),
            }],
        };
        let changes = changes(plan);
        assert_eq!(changes[0].action(), api::change::Action::Replaced);
        assert_eq!(changes[0].service, "shop.Cart");
        assert_eq!(changes[0].kind, "event-sourced");
        assert_eq!(changes[0].journal, "carts");
        assert_eq!(changes[0].module_digest, Digest::of(b"cart").to_string());
    }

    #[test]
    fn http_bindings_are_listed_with_their_body() {
        let pool = DescriptorPool::decode(stead_proto::DESCRIPTORS).unwrap();
        let service = pool.get_service_by_name("stead.admin.v1.Admin").unwrap();
        let deploy = service.methods().find(|method| method.name() == "Deploy").unwrap();
        let bindings = bindings(descriptor::http_rule(&deploy).unwrap());
        assert_eq!(bindings.len(), 1);
        assert_eq!(
            (bindings[0].method.as_str(), bindings[0].path.as_str(), bindings[0].body.as_str()),
            ("POST", "/v1/deployments", "*")
        );
    }
}
