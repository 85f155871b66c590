//! The admin API over HTTP/JSON, as far as the tests need it.

use std::path::Path;

use http::Method;
use serde_json::{Value, json};

use crate::client::Answer;
use crate::files;
use crate::host::Host;

impl Host {
    /// Uploads and deploys a guest that `cargo xtask guests` built.
    pub async fn deploy(&self, guest: &str) -> Value {
        self.deploy_file(&files::guest(guest)).await
    }

    pub async fn deploy_file(&self, file: &Path) -> Value {
        let digest = self.upload(file).await;
        self.deploy_digest(&digest, false).await.ok()
    }

    pub async fn upload(&self, file: &Path) -> String {
        let bytes = std::fs::read(file).expect("the component can be read");
        let uploaded = self.upload_bytes(bytes).await.ok();
        uploaded["digest"].as_str().expect("a digest").to_owned()
    }

    pub async fn upload_bytes(&self, bytes: Vec<u8>) -> Answer {
        self.admin.send(Method::PUT, "/v1/modules?name=test.wasm", "application/wasm", bytes).await
    }

    pub async fn deploy_digest(&self, digest: &str, force: bool) -> Answer {
        self.admin.post("/v1/deployments", &json!({"modules": [digest], "force": force})).await
    }

    pub async fn entity(&self, entity_type: &str, id: &str) -> Value {
        self.admin.get(&format!("/v1/entities/{entity_type}/{id}")).await.ok()
    }

    pub async fn state(&self, entity_type: &str, id: &str, at: Option<u64>) -> Value {
        let query = at.map(|at| format!("?at={at}")).unwrap_or_default();
        self.admin.get(&format!("/v1/entities/{entity_type}/{id}/state{query}")).await.ok()
    }

    pub async fn passivate(&self, entity_type: &str, id: &str) -> Value {
        self.admin
            .post(&format!("/v1/entities/{entity_type}/{id}:passivate"), &json!({}))
            .await
            .ok()
    }

    /// The whole journal of an entity, empty if there is no such entity. Its numbers are checked: 1, 2, 3, .. without gap.
    pub async fn events(&self, entity_type: &str, id: &str) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            let from = events.len() + 1;
            let path = format!("/v1/entities/{entity_type}/{id}/events?from={from}&pageSize=1000");
            let page = self.admin.get(&path).await;
            if page.status == 404 && events.is_empty() {
                return events;
            }
            let page = page.ok();
            let page = page["events"].as_array().cloned().unwrap_or_default();
            if page.is_empty() {
                return events;
            }
            for event in page {
                let seq = event["seq"].as_str().and_then(|seq| seq.parse::<usize>().ok());
                assert_eq!(seq, Some(events.len() + 1), "a gap or a duplicate in {id}: {event}");
                events.push(event);
            }
        }
    }
}
