//! What an action asks of the host while it runs: the imports of the contract, or in a test what
//! stands in for them.

#[cfg(target_arch = "wasm32")]
pub(crate) use crate::guest::{call, receive, send};

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use native::*;

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use std::cell::RefCell;
    use std::rc::Rc;

    use crate::action::Gone;
    use crate::call::{Answer, Effect, Request};
    use crate::rejection::{Code, Rejection};

    pub(crate) trait Host {
        fn receive(&mut self) -> Result<Option<Vec<u8>>, Gone>;
        fn send(&mut self, answer: Answer<Vec<u8>>, effects: Vec<Effect>) -> Result<(), Gone>;
        fn call(&mut self, call: Request) -> Result<Vec<u8>, Rejection>;
    }

    thread_local! {
        static HOST: RefCell<Option<Rc<RefCell<dyn Host>>>> = const { RefCell::new(None) };
    }

    /// Lets `host` stand in while `f` runs.
    pub(crate) fn with<T>(host: Rc<RefCell<dyn Host>>, f: impl FnOnce() -> T) -> T {
        HOST.set(Some(host));
        let result = f();
        HOST.set(None);
        result
    }

    fn current() -> Option<Rc<RefCell<dyn Host>>> {
        HOST.with_borrow(Clone::clone)
    }

    pub(crate) fn receive() -> Result<Option<Vec<u8>>, Gone> {
        current().map_or(Err(Gone::Cancelled), |host| host.borrow_mut().receive())
    }

    pub(crate) fn send(answer: Answer<Vec<u8>>, effects: Vec<Effect>) -> Result<(), Gone> {
        current().map_or(Err(Gone::Cancelled), |host| host.borrow_mut().send(answer, effects))
    }

    pub(crate) fn call(call: Request) -> Result<Vec<u8>, Rejection> {
        let absent = || Rejection::new(Code::Unavailable, "there is no host to call anything");
        current().map_or_else(|| Err(absent()), |host| host.borrow_mut().call(call))
    }
}
