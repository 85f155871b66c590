//! Modules and deployments.

use super::*;
use crate::journal::store::{DeploymentRecord, ModuleRecord};
use crate::words::{Digest, Grants, Revision};

pub async fn keeps_modules_by_digest(mut fixture: impl Fixture) {
    let bytes = [Bytes::from_static(b"one"), Bytes::from_static(b"two")];
    let records = [1, 2].map(|n: usize| ModuleRecord {
        digest: Digest::of(&bytes[n - 1]),
        name: format!("cart-{n}.wasm"),
        bytes: 3,
        uploaded_at_ms: n as u64,
    });
    for (record, bytes) in records.iter().zip(&bytes).rev() {
        fixture.store().put_module(record, bytes).await.unwrap();
    }
    let again = ModuleRecord { name: "other.wasm".into(), ..records[0].clone() };
    fixture.store().put_module(&again, &bytes[0]).await.unwrap();
    fixture.settle().await;
    let store = fixture.store();
    assert_eq!(store.modules().await.unwrap(), records);
    let found = store.module(&records[1].digest).await.unwrap();
    assert_eq!(found, Some((records[1].clone(), bytes[1].clone())));
    assert_eq!(store.module(&Digest([0; 32])).await.unwrap(), None);
}

pub async fn keeps_deployments_in_order(mut fixture: impl Fixture) {
    let record = |revision| DeploymentRecord {
        revision: Revision(revision),
        modules: (0..revision as u8).map(|n| Digest([n; 32])).collect(),
        created_at_ms: revision * 10,
        note: format!("deploy {revision}"),
        grants: Grants::decode(&format!("{} http=https://{revision}.test\n", Digest([7; 32])))
            .unwrap(),
    };
    assert_eq!(fixture.store().newest_deployment().await.unwrap(), None);
    for revision in [1, 2, 3] {
        fixture.store().put_deployment(&record(revision)).await.unwrap();
    }
    for revision in [0, 2, 3, 5] {
        let error = fixture.store().put_deployment(&record(revision)).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    }
    fixture.settle().await;
    let found = fixture.store().deployments().await.unwrap();
    assert_eq!(found, [record(1), record(2), record(3)]);
    assert_eq!(fixture.store().newest_deployment().await.unwrap(), Some(record(3)));
}
