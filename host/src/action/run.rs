//! One call, from the pool to its end.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::action::talk::Talk;
use crate::action::{Actions, Inner, Input, Output, Request, stopping};
use crate::entity::CrashReport;
use crate::registry::{Method, Service};
use crate::wasm::{
    ActionInstance, Answer, Command, Conclusion, Conversation, Failure, Pool, PoolError,
};
use crate::words::telemetry::CrashLabels;
use crate::words::{Code, Status, clock, limits};

impl Actions {
    /// A call with one answer; the request streams if there is an input. Dropping the future ends the
    /// guest where it waits; effects that were started go on.
    pub async fn call(&self, request: Request, input: Option<Input>) -> Result<Bytes, Status> {
        let started = clock::now();
        let (service, method) = (request.service.clone(), request.method.clone());
        let result = self.inner.run(request, input, None).await;
        let result = result.map(|reply| reply.unwrap_or_default());
        let code = result.as_ref().err().map_or(Code::Ok, |status| status.code);
        self.inner.metrics_of(&service, &method).answered(code, clock::now() - started);
        result
    }

    /// A call whose answer streams into `output`. It has ended when this returns; dropping the future, or
    /// the output's other end, ends the guest where it waits.
    pub async fn stream(
        &self,
        request: Request,
        input: Option<Input>,
        output: Output,
    ) -> Result<(), Status> {
        let open = Open::new(&self.inner);
        let (service, method) = (request.service.clone(), request.method.clone());
        let result = self.inner.run(request, input, Some(output)).await;
        drop(open);
        let code = result.as_ref().err().map_or(Code::Ok, |status| status.code);
        self.inner.metrics_of(&service, &method).ended(code);
        result.map(drop)
    }
}

/// Counts a stream for as long as it is open.
struct Open(Arc<Inner>);

impl Open {
    fn new(actions: &Arc<Inner>) -> Self {
        actions.metrics.streams.inc();
        Self(actions.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.metrics.streams.dec();
    }
}

impl Inner {
    fn metrics_of<'a>(
        &self,
        service: &Service,
        method: &'a Method,
    ) -> &'a crate::words::telemetry::CommandMetrics {
        method.metrics.get_or_init(|| self.metrics.command(&service.name.to_arc(), &method.name))
    }

    async fn run(
        self: &Arc<Self>,
        request: Request,
        input: Option<Input>,
        output: Option<Output>,
    ) -> Result<Option<Bytes>, Status> {
        let _guest = self.admit()?;
        let Some(pool) = &request.service.action_pool else {
            let name = &request.service.name;
            return Err(Status::internal(format!("{name} is no service of actions")));
        };
        let until = request.deadline + limits::ACTION_GRACE;
        let pool = pool.clone();
        tokio::select! {
            biased;
            ended = tokio::time::timeout_at(until, self.serve(&pool, request, input, output)) => {
                ended.unwrap_or_else(|_| Err(late()))
            }
            () = self.stop.cancelled() => Err(stopping()),
        }
    }

    async fn serve(
        self: &Arc<Self>,
        pool: &Pool<ActionInstance>,
        request: Request,
        input: Option<Input>,
        output: Option<Output>,
    ) -> Result<Option<Bytes>, Status> {
        let patience = (clock::now() + limits::CALL_DEADLINE_DEFAULT).min(request.deadline);
        let (mut instance, place) = match pool.take(patience).await {
            Ok(taken) => taken,
            Err(error @ PoolError::Full { .. }) => {
                return Err(Status::resource_exhausted(format!("{error}; try again later")));
            }
            Err(PoolError::Failed(failure)) => return Err(self.crashed(&request, &failure)),
        };
        let command = Command {
            method: request.method.name.clone(),
            payload: request.payload.clone(),
            metadata: request.metadata.clone(),
            id: request.idempotency_key.clone().unwrap_or_else(|| format!("{:016x}", self.seed())),
            now_ms: clock::unix_ms(),
            seed: self.seed(),
        };
        let request = Arc::new(request);
        let output = output.map(Arc::new);
        let broken = Arc::new(Mutex::new(None));
        let conversation: Option<Box<dyn Conversation>> = match instance.waits() {
            true => Some(Box::new(Talk {
                actions: self.clone(),
                request: request.clone(),
                input,
                output: output.clone(),
                broken: broken.clone(),
            })),
            false => None,
        };
        let service = request.service.name.as_str();
        let conclusion = match instance.handle(service, &command, conversation).await {
            Ok(conclusion) => conclusion,
            Err(failure) => return Err(self.crashed(&request, &failure)),
        };
        place.keep(instance);
        self.conclude(&request, conclusion, output.as_deref(), &broken).await
    }

    /// What the guest's conclusion means for the caller.
    async fn conclude(
        self: &Arc<Self>,
        request: &Request,
        conclusion: Conclusion,
        output: Option<&Output>,
        broken: &Mutex<Option<Status>>,
    ) -> Result<Option<Bytes>, Status> {
        self.perform(request, conclusion.effects).await;
        if let Some(status) = broken.lock().take() {
            return Err(status);
        }
        let answer = conclusion.answer?;
        if clock::now() >= request.deadline {
            return Err(late());
        }
        let message = match answer {
            Answer::Reply(reply) => reply,
            Answer::Forward(call) => self.forward(request, call).await?,
            Answer::None if output.is_some() => return Ok(None),
            Answer::None => Bytes::new(),
        };
        if let Err(reason) = request.method.response.check(&message) {
            return Err(self.crashed(request, &Failure::Malformed { reason }));
        }
        let Some(output) = output else { return Ok(Some(message)) };
        match tokio::time::timeout_at(request.deadline, output.send(message)).await {
            Ok(Ok(())) => {
                self.metrics.stream_messages_out.inc();
                Ok(None)
            }
            Ok(Err(_)) => Err(Status::new(Code::Cancelled, "the caller went away")),
            Err(_) => Err(late()),
        }
    }

    fn crashed(&self, request: &Request, failure: &Failure) -> Status {
        let (service, method) = (request.service.name.to_arc(), &request.method.name);
        let report = CrashReport::of(failure, format!("handle {method}"));
        if let Some(left_out) = self.crash_warnings.tell(&service, clock::now()) {
            tracing::warn!(
                service = &*service,
                what = report.what,
                during = report.during,
                reason = report.reason,
                request_id = &*request.request_id,
                left_out,
                "action crashed"
            );
        }
        let labels = CrashLabels { service: service.clone(), what: report.what };
        self.metrics.crashes.get_or_create(&labels).inc();
        let mut crashes = self.crashes.lock();
        if crashes.len() < limits::CRASH_REPORTS_MAX || crashes.contains_key(&service) {
            crashes.insert(service, report);
        }
        failure.to_status(|| {
            format!("the action crashed while it handled {method}; the node's log shows why")
        })
    }
}

fn late() -> Status {
    Status::deadline_exceeded("the call took longer than its deadline allows")
}
