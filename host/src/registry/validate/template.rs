//! Whether the fields that a `google.api.http` rule names exist. The rest of a template's grammar is
//! the gateway's.

use prost_reflect::{Kind, MessageDescriptor, MethodDescriptor};
use stead_proto::google::api::HttpRule;
use stead_proto::google::api::http_rule::Pattern;

/// One sentence per fault, without the method's name.
pub(super) fn check(rule: &HttpRule, method: &MethodDescriptor) -> Vec<String> {
    let mut faults = Vec::new();
    check_binding(rule, method, &mut faults);
    for binding in &rule.additional_bindings {
        check_binding(binding, method, &mut faults);
    }
    faults
}

fn check_binding(rule: &HttpRule, method: &MethodDescriptor, faults: &mut Vec<String>) {
    let (request, response) = (method.input(), method.output());
    let template = match &rule.pattern {
        Some(
            Pattern::Get(path)
            | Pattern::Put(path)
            | Pattern::Post(path)
            | Pattern::Delete(path)
            | Pattern::Patch(path),
        ) => path.as_str(),
        Some(Pattern::Custom(custom)) => custom.path.as_str(),
        None => "",
    };
    for name in variables(template) {
        if let Err(reason) = find(&request, name) {
            faults.push(format!("its http template {template} names the field {name}, {reason}"));
        }
    }
    if !matches!(rule.body.as_str(), "" | "*") && request.get_field_by_name(&rule.body).is_none() {
        let (body, name) = (&rule.body, request.full_name());
        faults.push(format!("its http body names the field {body}, which {name} does not have"));
    }
    let body = &rule.response_body;
    if !body.is_empty() && response.get_field_by_name(body).is_none() {
        let name = response.full_name();
        faults.push(format!(
            "its http response_body names the field {body}, which {name} does not have"
        ));
    }
}

/// `user_id` and `item.id` of `/carts/{user_id}/items/{item.id=a/*}`.
fn variables(template: &str) -> impl Iterator<Item = &str> {
    template.split('{').skip(1).map(|rest| rest.split(['=', '}']).next().unwrap_or_default().trim())
}

/// A variable of a path stands for a single value, perhaps deep inside of the request.
fn find(request: &MessageDescriptor, path: &str) -> Result<(), String> {
    let mut message = request.clone();
    let mut names = path.split('.').peekable();
    while let Some(name) = names.next() {
        let Some(field) = message.get_field_by_name(name) else {
            return Err(format!("which {} does not have", message.full_name()));
        };
        if field.is_list() || field.is_map() {
            return Err("which is repeated".to_owned());
        }
        match (field.kind(), names.peek()) {
            (Kind::Message(inner), Some(_)) => message = inner,
            (_, Some(_)) => return Err(format!("but {} is not a message", field.full_name())),
            (_, None) => {}
        }
    }
    Ok(())
}
