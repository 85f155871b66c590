//! Modules and deployments.

use bytes::Bytes;

use crate::journal::error::StoreError;
use crate::journal::sqlite::Inner;
use crate::journal::sqlite::fault::damaged;
use crate::journal::sqlite::read::get;
use crate::journal::store::{DeploymentRecord, ModuleRecord, deployment_conflict};
use crate::words::{Digest, Grants, Revision};

pub async fn put_module(
    inner: &Inner,
    record: &ModuleRecord,
    bytes: &Bytes,
) -> Result<(), StoreError> {
    let insert = sqlx::query(
        "INSERT OR IGNORE INTO module (digest, name, bytes, uploaded_at_ms, data) \
         VALUES (?, ?, ?, ?, ?)",
    );
    let insert = insert
        .bind(record.digest.0.to_vec())
        .bind(record.name.clone())
        .bind(record.bytes as i64)
        .bind(record.uploaded_at_ms as i64)
        .bind(bytes.to_vec());
    inner.write_one(insert).await.map(drop)
}

pub async fn module(
    inner: &Inner,
    digest: &Digest,
) -> Result<Option<(ModuleRecord, Bytes)>, StoreError> {
    let query = sqlx::query(
        "SELECT digest, name, bytes, uploaded_at_ms, data FROM module WHERE digest = ?",
    )
    .bind(&digest.0[..]);
    let row = inner.readers.optional(query).await?;
    let Some(row) = row else { return Ok(None) };
    let bytes = Bytes::from(get::<Vec<u8>>(&row, 4)?);
    if Digest::of(&bytes) != *digest {
        return Err(damaged(format!("module {digest}")));
    }
    Ok(Some((module_record(&row)?, bytes)))
}

pub async fn modules(inner: &Inner) -> Result<Vec<ModuleRecord>, StoreError> {
    let query = sqlx::query(
        "SELECT digest, name, bytes, uploaded_at_ms FROM module ORDER BY uploaded_at_ms, digest",
    );
    let rows = inner.readers.all(query).await?;
    rows.iter().map(module_record).collect()
}

pub async fn put_deployment(inner: &Inner, record: &DeploymentRecord) -> Result<(), StoreError> {
    let revision = record.revision.0 as i64;
    let insert = sqlx::query(
        "INSERT INTO deployment (revision, modules, created_at_ms, note, grants) \
         SELECT ?1, ?2, ?3, ?4, ?5 WHERE ?1 = (SELECT coalesce(max(revision), 0) + 1 FROM deployment)",
    );
    let digests: Vec<u8> = record.modules.iter().flat_map(|digest| digest.0).collect();
    let insert = insert
        .bind(revision)
        .bind(digests)
        .bind(record.created_at_ms as i64)
        .bind(record.note.clone())
        .bind(record.grants.encode());
    match inner.write_one(insert).await? {
        0 => Err(deployment_conflict(record.revision)),
        _ => Ok(()),
    }
}

pub async fn deployments(inner: &Inner) -> Result<Vec<DeploymentRecord>, StoreError> {
    let query = sqlx::query(
        "SELECT revision, modules, created_at_ms, note, grants FROM deployment ORDER BY revision",
    );
    let rows = inner.readers.all(query).await?;
    rows.iter().map(deployment_record).collect()
}

pub async fn newest_deployment(inner: &Inner) -> Result<Option<DeploymentRecord>, StoreError> {
    let query = sqlx::query(
        "SELECT revision, modules, created_at_ms, note, grants FROM deployment \
         ORDER BY revision DESC LIMIT 1",
    );
    inner.readers.optional(query).await?.as_ref().map(deployment_record).transpose()
}

fn digest(bytes: &[u8]) -> Result<Digest, StoreError> {
    bytes.try_into().map(Digest).map_err(|_| damaged("a digest is not 32 bytes long"))
}

fn module_record(row: &sqlx::sqlite::SqliteRow) -> Result<ModuleRecord, StoreError> {
    Ok(ModuleRecord {
        digest: digest(get(row, 0)?)?,
        name: get(row, 1)?,
        bytes: get::<i64>(row, 2)? as u64,
        uploaded_at_ms: get::<i64>(row, 3)? as u64,
    })
}

fn deployment_record(row: &sqlx::sqlite::SqliteRow) -> Result<DeploymentRecord, StoreError> {
    let modules: &[u8] = get(row, 1)?;
    Ok(DeploymentRecord {
        revision: Revision(get::<i64>(row, 0)? as u64),
        modules: modules.chunks(32).map(digest).collect::<Result<_, _>>()?,
        created_at_ms: get::<i64>(row, 2)? as u64,
        note: get(row, 3)?,
        grants: Grants::decode(get(row, 4)?)
            .ok_or_else(|| damaged("a deployment's grants cannot be read"))?,
    })
}
