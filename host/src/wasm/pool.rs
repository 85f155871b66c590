//! Instances of a service whose calls need none in particular: some are kept idle, and only so many run
//! at once.

use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::wasm::component::Component;
use crate::wasm::failure::Failure;
use crate::wasm::instance::{InstanceLimits, StateChange};
use crate::wasm::view::ViewInstance;
use crate::words::clock::Instant;
use crate::words::{Message, limits};

/// What a pool keeps.
pub trait Pooled: Send + Sized + 'static {
    fn start(
        component: &Component,
        service: &str,
        limits: InstanceLimits,
    ) -> impl Future<Output = Result<Self, Failure>> + Send;

    /// Whether another call may have it.
    fn is_reusable(&self) -> bool;
}

/// Cheap to clone.
pub struct Pool<I> {
    inner: Arc<Inner<I>>,
}

struct Inner<I> {
    component: Component,
    service: Arc<str>,
    limits: InstanceLimits,
    /// The one that ran last is at the end: its memory is warm.
    idle: Mutex<Vec<I>>,
    idle_max: usize,
    at_once: Arc<Semaphore>,
    at_once_max: usize,
}

/// Why there is no instance.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    #[error("{max} calls of the service already run on this node")]
    Full { max: usize },
    #[error("{0}")]
    Failed(#[from] Failure),
}

/// The right to run an instance, of which there are only so many.
pub struct Place<I> {
    pool: Arc<Inner<I>>,
    _permit: OwnedSemaphorePermit,
}

impl<I> Clone for Pool<I> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<I: Pooled> Pool<I> {
    /// With the host's bounds: [`limits::INSTANCES_IDLE_MAX`] and [`limits::INSTANCES_AT_ONCE_MAX`].
    pub fn new(component: Component, service: Arc<str>, limits: InstanceLimits) -> Self {
        let (idle, at_once) = (limits::INSTANCES_IDLE_MAX, limits::INSTANCES_AT_ONCE_MAX);
        Self::bounded(component, service, limits, idle, at_once)
    }

    pub fn bounded(
        component: Component,
        service: Arc<str>,
        limits: InstanceLimits,
        idle_max: usize,
        at_once_max: usize,
    ) -> Self {
        let at_once = Arc::new(Semaphore::new(at_once_max));
        let idle = Mutex::default();
        let inner = Inner { component, service, limits, idle, idle_max, at_once, at_once_max };
        Self { inner: Arc::new(inner) }
    }

    /// An idle instance, or a fresh one. Where too many run, waits for one to end, until the deadline.
    /// After the call, [`Place::keep`] gives it back.
    pub async fn take(&self, deadline: Instant) -> Result<(I, Place<I>), PoolError> {
        let inner = &self.inner;
        let permit = match inner.at_once.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => self.wait(deadline).await?,
        };
        let idle = inner.idle.lock().pop();
        let instance = match idle {
            Some(instance) => instance,
            None => I::start(&inner.component, &inner.service, inner.limits).await?,
        };
        Ok((instance, Place { pool: inner.clone(), _permit: permit }))
    }

    async fn wait(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, PoolError> {
        let waiting = self.inner.at_once.clone().acquire_owned();
        match tokio::time::timeout_at(deadline, waiting).await {
            Ok(Ok(permit)) => Ok(permit),
            // Never closed.
            Ok(Err(_)) | Err(_) => Err(PoolError::Full { max: self.inner.at_once_max }),
        }
    }

    /// How many instances wait for a call.
    pub fn idle(&self) -> usize {
        self.inner.idle.lock().len()
    }
}

impl Pool<ViewInstance> {
    /// [`ViewInstance::update`] on an instance of the pool.
    pub async fn update(
        &self,
        deadline: Instant,
        entity_id: &str,
        row: Option<&Message>,
        events: &[Message],
    ) -> Result<Result<StateChange, String>, PoolError> {
        let (mut instance, place) = self.take(deadline).await?;
        let update = instance.update(&self.inner.service, entity_id, row, events)?;
        place.keep(instance);
        Ok(update)
    }
}

impl<I: Pooled> Place<I> {
    /// Keeps the instance for another call, unless it is spent or has grown large, or there are enough.
    pub fn keep(self, instance: I) {
        if !instance.is_reusable() {
            return;
        }
        let mut idle = self.pool.idle.lock();
        if idle.len() < self.pool.idle_max {
            idle.push(instance);
        }
    }
}
