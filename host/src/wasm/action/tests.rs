use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::*;
use crate::wasm::fixtures::{Guest, command, engine, instance_limits};
use crate::wasm::{Call, Gone, Pool, PoolError};
use crate::words::{Code, clock};

/// Replies with how many calls the instance has had; traps when the payload is empty.
const COUNT: &str = "
    (if (i32.eqz (local.get $payload_len)) (then unreachable))
    (global.set $count (i32.add (global.get $count) (i32.const 1)))
    (i32.store8 (i32.const 512) (global.get $count))
    (call $pair (i32.const 24) (i32.const 512) (i32.const 1))
    (i32.const 16)";

/// Sends back every message that it receives, and concludes with none.
const ECHO: &str = "
    (block $end
      (loop $next
        (call $receive (i32.const 200))
        (br_if $end (i32.load8_u (i32.const 200)))
        (br_if $end (i32.eqz (i32.load8_u (i32.const 204))))
        (call $send
          (i32.const 0) (i32.load (i32.const 208)) (i32.load (i32.const 212))
          (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
          (i32.const 0) (i32.const 0) (i32.const 300))
        (br_if $end (i32.load8_u (i32.const 300)))
        (br $next)))
    (i32.store8 (i32.const 20) (i32.const 2))
    (i32.const 16)";

/// Calls `svc/met` with the payload and replies with what comes, or with one byte: the code.
const CALL: &str = r#"
    (call $call
      (i32.const 1024) (i32.const 4) (i32.const 1024) (i32.const 4)
      (local.get $payload) (local.get $payload_len) (i32.const 0) (i32.const 0) (i32.const 200))
    (if (i32.load8_u (i32.const 200))
      (then (call $pair (i32.const 24) (i32.const 204) (i32.const 1)))
      (else (call $pair (i32.const 24) (i32.load (i32.const 204)) (i32.load (i32.const 208)))))
    (i32.const 16)"#;

#[derive(Clone, Default)]
struct Script {
    /// What the guest receives; then the end, or nothing ever.
    messages: Arc<Mutex<VecDeque<Bytes>>>,
    never_ends: bool,
    /// Before each message.
    pause: Duration,
    sent: Arc<Mutex<Vec<Bytes>>>,
}

impl Script {
    fn of(messages: &[&'static str]) -> Self {
        let messages = messages.iter().map(|text| Bytes::from_static(text.as_bytes())).collect();
        Self { messages: Arc::new(Mutex::new(messages)), ..Self::default() }
    }
}

impl Conversation for Script {
    fn receive(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, Gone>> {
        async {
            tokio::time::sleep(self.pause).await;
            let message = self.messages.lock().pop_front();
            if message.is_none() && self.never_ends {
                std::future::pending::<()>().await;
            }
            Ok(message)
        }
        .boxed()
    }

    fn send(
        &mut self,
        answer: Answer,
        effects: Vec<Effect>,
    ) -> BoxFuture<'_, Result<Result<(), Gone>, String>> {
        assert!(effects.is_empty());
        if let Answer::Reply(reply) = answer {
            if reply == "bad" {
                return async { Err("bad is no message".to_owned()) }.boxed();
            }
            self.sent.lock().push(reply);
        }
        async { Ok(Ok(())) }.boxed()
    }

    fn call(&mut self, call: Call) -> BoxFuture<'_, Result<Bytes, Rejection>> {
        let result = match &call.payload[..] {
            b"fail" => Err(Rejection {
                code: Code::NotFound,
                message: "no such thing".into(),
                details: Vec::new(),
            }),
            _ => Ok(Bytes::from(format!("{}/{}", call.service, call.method))),
        };
        async { result }.boxed()
    }
}

fn pool(handle: &str, limits: InstanceLimits, at_once_max: usize) -> Pool<ActionInstance> {
    let component = Guest::acting().with("handle", handle).load(&engine());
    Pool::bounded(component, "test.v1.Actions".into(), limits, 4, at_once_max)
}

fn run<R>(future: impl Future<Output = R>) -> R {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

fn soon() -> clock::Instant {
    clock::now() + Duration::from_secs(20)
}

async fn call(
    pool: &Pool<ActionInstance>,
    payload: &'static [u8],
    script: Script,
) -> Result<Conclusion, Failure> {
    let (mut instance, place) = pool.take(soon()).await.expect("an instance");
    let result =
        instance.handle("test.v1.Actions", &command(payload), Some(Box::new(script))).await;
    place.keep(instance);
    result
}

fn reply(conclusion: Result<Conclusion, Failure>) -> Bytes {
    match conclusion.expect("concludes").answer {
        Ok(Answer::Reply(reply)) => reply,
        other => panic!("a reply is expected: {other:?}"),
    }
}

#[test]
fn an_instance_that_ended_well_serves_again_and_one_that_trapped_does_not() {
    let pool = pool(COUNT, instance_limits(), 4);
    run(async {
        assert_eq!(reply(call(&pool, b"x", Script::default()).await), [1][..]);
        assert_eq!(reply(call(&pool, b"x", Script::default()).await), [2][..]);
        assert_eq!(pool.idle(), 1);
        let failure = call(&pool, b"", Script::default()).await.expect_err("traps");
        assert!(matches!(failure, Failure::Trap { .. }), "{failure}");
        assert_eq!(pool.idle(), 0);
        assert_eq!(reply(call(&pool, b"x", Script::default()).await), [1][..]);
    });
}

#[test]
fn an_instance_that_has_grown_large_is_not_kept() {
    let grow = "(drop (memory.grow (i32.const 130))) (i32.store8 (i32.const 20) (i32.const 2))
        (i32.const 16)";
    let pool = pool(grow, instance_limits(), 4);
    run(async {
        call(&pool, b"x", Script::default()).await.expect("concludes");
        assert_eq!(pool.idle(), 0);
    });
}

#[test]
fn over_the_bound_a_call_waits_for_another_to_end_or_for_its_deadline() {
    let pool = pool(COUNT, instance_limits(), 1);
    run(async {
        let (first, place) = pool.take(soon()).await.expect("an instance");
        let full = pool.take(clock::now()).await.err().expect("there is only one place");
        assert_eq!(full, PoolError::Full { max: 1 });
        let waiting = tokio::spawn({
            let pool = pool.clone();
            async move { pool.take(soon()).await.map(drop) }
        });
        tokio::task::yield_now().await;
        place.keep(first);
        waiting.await.expect("no panic").expect("has its turn");
        pool.take(clock::now()).await.map(drop).expect("a place that was given back");
    });
}

#[test]
fn messages_go_both_ways() {
    let pool = pool(ECHO, instance_limits(), 1);
    run(async {
        let script = Script::of(&["one", "", "three"]);
        let sent = script.sent.clone();
        let conclusion = call(&pool, b"", script).await.expect("concludes");
        assert!(matches!(conclusion.answer, Ok(Answer::None)));
        assert_eq!(*sent.lock(), ["one", "", "three"]);
        assert_eq!(pool.idle(), 1);
    });
}

#[test]
fn a_message_that_the_host_refuses_is_a_crash() {
    let pool = pool(ECHO, instance_limits(), 1);
    run(async {
        let failure = call(&pool, b"", Script::of(&["bad"])).await.expect_err("fails");
        assert_eq!(failure, Failure::Malformed { reason: "bad is no message".into() });
        assert_eq!(pool.idle(), 0);
    });
}

#[test]
fn other_functions_answer_or_reject() {
    let pool = pool(CALL, instance_limits(), 1);
    run(async {
        assert_eq!(reply(call(&pool, b"x", Script::default()).await), "test/test");
        assert_eq!(reply(call(&pool, b"fail", Script::default()).await), [5][..]);
    });
}

#[test]
fn a_call_that_is_dropped_ends_the_guest_where_it_waits() {
    let pool = pool(ECHO, instance_limits(), 1);
    run(async {
        let script = Script { never_ends: true, ..Script::of(&["one"]) };
        let sent = script.sent.clone();
        let mut running = Box::pin(call(&pool, b"", script));
        while sent.lock().is_empty() {
            assert!(futures_util::poll!(&mut running).is_pending());
            tokio::task::yield_now().await;
        }
        drop(running);
        assert_eq!(pool.idle(), 0);
        let script = Script::of(&["two"]);
        let sent = script.sent.clone();
        call(&pool, b"", script).await.expect("concludes");
        assert_eq!(*sent.lock(), ["two"]);
    });
}

#[test]
fn what_a_guest_waits_is_not_its_own_time() {
    let limits = InstanceLimits { deadline: limits::EPOCH_TICK * 3, ..instance_limits() };
    let pool = pool(ECHO, limits, 1);
    run(async {
        let script =
            Script { pause: limits::EPOCH_TICK * 10, ..Script::of(&["one", "two", "three"]) };
        let sent = script.sent.clone();
        call(&pool, b"", script).await.expect("concludes");
        assert_eq!(sent.lock().len(), 3);
    });
}

#[test]
fn an_endless_loop_ends_at_its_deadline_and_others_go_on_meanwhile() {
    let pool = pool("(loop $forever (br $forever)) unreachable", instance_limits(), 8);
    run(async {
        // On the one thread that there is.
        let loops: Vec<_> = (0..4)
            .map(|_| {
                let pool = pool.clone();
                tokio::spawn(async move { call(&pool, b"", Script::default()).await })
            })
            .collect();
        let mut turns = 0;
        while loops.iter().any(|running| !running.is_finished()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
            turns += 1;
        }
        assert!(turns > 10, "{turns}");
        for running in loops {
            let failure = running.await.expect("no panic").expect_err("ends");
            assert_eq!(failure, Failure::Deadline { deadline: instance_limits().deadline });
        }
    });
}

#[test]
fn a_module_without_calls_needs_no_fiber() {
    let guest = Guest::acting();
    let start = guest.wat().find("  (import \"stead:function/calls").expect("an import");
    let end = guest.wat().find("  (memory").expect("the memory");
    let imports = guest.wat()[start..end].to_owned();
    let component = guest.replacing(&imports, "").load(&engine());
    let pool: Pool<ActionInstance> =
        Pool::bounded(component, "test.v1.Actions".into(), instance_limits(), 4, 4);
    run(async {
        let (mut instance, place) = pool.take(soon()).await.expect("an instance");
        assert!(!instance.waits());
        let command = command(b"payload");
        let concluded = instance.handle("test.v1.Actions", &command, None);
        // It is there at the first look.
        let concluded = concluded.now_or_never().expect("does not wait");
        assert_eq!(reply(concluded), "payload");
        place.keep(instance);
        assert_eq!(pool.idle(), 1);
    });
}
