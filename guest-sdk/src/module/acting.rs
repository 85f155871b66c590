//! An action in memory.

use crate::context::Context;
use crate::module::{Acting, Command, Conclusion};
use crate::service::Dispatch;

pub(super) struct Live<A> {
    pub service: &'static str,
    pub action: A,
    pub dispatch: Dispatch<A>,
}

impl<A: 'static> Acting for Live<A> {
    fn handle(&self, mut command: Command) -> Conclusion {
        command.invocation.service = self.service;
        let mut ctx = Context::new(command.invocation);
        let answer = (self.dispatch)(&self.action, &mut ctx, &command.method, &command.payload)
            .map(|reply| reply.answer(&self.action));
        // An action that fails keeps its effects.
        Conclusion { answer, effects: ctx.consequences().effects }
    }
}
