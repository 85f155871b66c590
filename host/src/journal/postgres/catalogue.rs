//! Modules and deployments.

use bytes::Bytes;
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use tokio::time::timeout;

use crate::journal::error::StoreError;
use crate::journal::postgres::fault::{self, Fault, damaged};
use crate::journal::postgres::read::rows;
use crate::journal::store::{DeploymentRecord, ModuleRecord, deployment_conflict};
use crate::words::limits::{STORE_MODULE_MAX, STORE_READ_MAX};
use crate::words::{Digest, Grants, Revision};

pub async fn put_module(
    pool: &PgPool,
    record: &ModuleRecord,
    bytes: &Bytes,
) -> Result<(), StoreError> {
    let insert = sqlx::query(
        "INSERT INTO module (digest, name, bytes, uploaded_at_ms, data) \
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (digest) DO NOTHING",
    )
    .bind(&record.digest.0[..])
    .bind(&record.name)
    .bind(record.bytes as i64)
    .bind(record.uploaded_at_ms as i64)
    .bind(&bytes[..]);
    let done = timeout(STORE_MODULE_MAX, insert.execute(pool)).await;
    done.map_err(|_| fault::timed_out())?.map_err(fault::read).map(drop)
}

pub async fn module(
    pool: &PgPool,
    digest: &Digest,
) -> Result<Option<(ModuleRecord, Bytes)>, StoreError> {
    let query = sqlx::query(
        "SELECT digest, name, bytes, uploaded_at_ms, data FROM module WHERE digest = $1",
    )
    .bind(&digest.0[..]);
    let rows = rows(pool, query, STORE_MODULE_MAX).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let bytes = Bytes::from(row.try_get::<Vec<u8>, _>(4).map_err(fault::read)?);
    if Digest::of(&bytes) != *digest {
        return Err(damaged(format!("module {digest}")));
    }
    Ok(Some((module_record(row)?, bytes)))
}

pub async fn modules(pool: &PgPool) -> Result<Vec<ModuleRecord>, StoreError> {
    let query = sqlx::query(
        "SELECT digest, name, bytes, uploaded_at_ms FROM module ORDER BY uploaded_at_ms, digest",
    );
    rows(pool, query, STORE_READ_MAX).await?.iter().map(module_record).collect()
}

pub async fn put_deployment(pool: &PgPool, record: &DeploymentRecord) -> Result<(), StoreError> {
    let digests: Vec<u8> = record.modules.iter().flat_map(|digest| digest.0).collect();
    let insert = sqlx::query(
        "INSERT INTO deployment (revision, modules, created_at_ms, note, grants) SELECT $1, $2, $3, $4, $5 \
         WHERE $1 = (SELECT coalesce(max(revision), 0) + 1 FROM deployment)",
    )
    .bind(record.revision.0 as i64)
    .bind(&digests)
    .bind(record.created_at_ms as i64)
    .bind(&record.note)
    .bind(record.grants.encode());
    let error = match timeout(STORE_READ_MAX, insert.execute(pool)).await {
        Ok(Ok(done)) if done.rows_affected() == 1 => return Ok(()),
        Ok(Ok(_)) => return Err(deployment_conflict(record.revision)),
        // Another node added the same revision at the same time.
        Ok(Err(error)) if fault::of(&error) == Fault::Duplicate => {
            return Err(deployment_conflict(record.revision));
        }
        Ok(Err(error)) if fault::of(&error) != Fault::Unknown => return Err(fault::read(error)),
        Ok(Err(error)) => fault::read(error),
        Err(_) => fault::timed_out(),
    };
    // The answer was lost: the revision is this one if it is equal in everything.
    match deployments(pool).await?.iter().any(|found| found == record) {
        true => Ok(()),
        false => Err(error),
    }
}

pub async fn deployments(pool: &PgPool) -> Result<Vec<DeploymentRecord>, StoreError> {
    let query = sqlx::query(
        "SELECT revision, modules, created_at_ms, note, grants FROM deployment ORDER BY revision",
    );
    rows(pool, query, STORE_READ_MAX).await?.iter().map(deployment_record).collect()
}

pub async fn newest_deployment(pool: &PgPool) -> Result<Option<DeploymentRecord>, StoreError> {
    let query = sqlx::query(
        "SELECT revision, modules, created_at_ms, note, grants FROM deployment \
         ORDER BY revision DESC LIMIT 1",
    );
    rows(pool, query, STORE_READ_MAX).await?.first().map(deployment_record).transpose()
}

fn digest(bytes: &[u8]) -> Result<Digest, StoreError> {
    bytes.try_into().map(Digest).map_err(|_| damaged("a digest is not 32 bytes long"))
}

fn module_record(row: &PgRow) -> Result<ModuleRecord, StoreError> {
    Ok(ModuleRecord {
        digest: digest(row.try_get(0).map_err(fault::read)?)?,
        name: row.try_get(1).map_err(fault::read)?,
        bytes: row.try_get::<i64, _>(2).map_err(fault::read)? as u64,
        uploaded_at_ms: row.try_get::<i64, _>(3).map_err(fault::read)? as u64,
    })
}

fn deployment_record(row: &PgRow) -> Result<DeploymentRecord, StoreError> {
    let modules: &[u8] = row.try_get(1).map_err(fault::read)?;
    Ok(DeploymentRecord {
        revision: Revision(row.try_get::<i64, _>(0).map_err(fault::read)? as u64),
        modules: modules.chunks(32).map(digest).collect::<Result<_, _>>()?,
        created_at_ms: row.try_get::<i64, _>(2).map_err(fault::read)? as u64,
        note: row.try_get(3).map_err(fault::read)?,
        grants: Grants::decode(row.try_get(4).map_err(fault::read)?)
            .ok_or_else(|| damaged("a deployment's grants cannot be read"))?,
    })
}
