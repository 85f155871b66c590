//! The events of a workflow.

use crate::Events;
use crate::workflow::v1::{
    Compensating, Completed, Signalled, Started, StepCompleted, StepFailed, StepScheduled,
    TimerFired, TimerSet,
};

#[derive(Clone, Debug, PartialEq, Events)]
pub enum Event {
    Started(Started),
    Scheduled(StepScheduled),
    Failed(StepFailed),
    Stepped(StepCompleted),
    TimerSet(TimerSet),
    TimerFired(TimerFired),
    Signalled(Signalled),
    Compensating(Compensating),
    Completed(Completed),
}

impl Event {
    /// Whether the code asks for the same thing here as it did there. What may change with the code:
    /// durations, requests, results.
    pub fn asks_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Scheduled(a), Self::Scheduled(b)) => a == b,
            (Self::TimerSet(a), Self::TimerSet(b)) => a.step == b.step,
            (Self::Compensating(_), Self::Compensating(_)) => true,
            (Self::Completed(a), Self::Completed(b)) => (a.code == 0) == (b.code == 0),
            _ => false,
        }
    }

    /// For people.
    pub fn described(&self) -> String {
        match self {
            Self::Scheduled(step) => {
                let undo = if step.compensation { "to undo " } else { "" };
                let StepScheduled { name, service, method, step, .. } = step;
                format!("{undo}step {step} {name:?} ({service}/{method})")
            }
            Self::TimerSet(timer) => format!("to wait for a time, as step {}", timer.step),
            Self::Compensating(_) => "to be undone".to_owned(),
            Self::Completed(completed) if completed.code == 0 => "to complete".to_owned(),
            Self::Completed(_) => "to fail".to_owned(),
            Self::Started(_)
            | Self::Failed(_)
            | Self::Stepped(_)
            | Self::TimerFired(_)
            | Self::Signalled(_) => "for nothing".to_owned(),
        }
    }
}
