//! Reminders that ring when they are due, whatever restarts in between.

mod api {
    stead_sdk::include_proto!("com.example.reminders");
}
mod stored {
    stead_sdk::include_proto!("com.example.reminders.stored");
}

use std::collections::BTreeMap;
use std::time::Duration;

use api::{Forget, GetReminders, Remind, ReminderService, ReminderServiceClient, Reminders, Ring};
use stead_sdk::{Context, EventSourced, Events, Outcome, reject};
use stored::{Forgotten, Reminder, Rung, Set, Snapshot};

/// The reminders of a person.
#[derive(Default)]
pub struct Person {
    reminders: BTreeMap<String, Reminder>,
}

#[derive(Events)]
pub enum Event {
    Set(Set),
    Rung(Rung),
    Forgotten(Forgotten),
}

impl ReminderService for Person {
    fn remind(&self, ctx: &mut Context<Self>, command: Remind) -> Outcome<Self, ()> {
        let Remind { user_id, id, text, after_seconds, every_seconds } = command;
        if id.is_empty() || id.len() > 200 {
            reject!(InvalidArgument, "the id of a reminder is 1 to 200 bytes");
        }
        let mut timer = ctx.timer(&id).after(Duration::from_secs(after_seconds));
        if every_seconds > 0 {
            timer = timer.every(Duration::from_secs(every_seconds));
        }
        timer.command(ReminderServiceClient::ring(Ring { user_id, id: id.clone() }));
        ctx.emit(Set { id, text, repeats: every_seconds > 0 });
        ctx.reply(())
    }

    fn forget(&self, ctx: &mut Context<Self>, command: Forget) -> Outcome<Self, ()> {
        let id = command.id;
        if !self.reminders.contains_key(&id) {
            reject!(NotFound, "there is no reminder {id}");
        }
        ctx.cancel_timer(&id);
        ctx.emit(Forgotten { id });
        ctx.reply(())
    }

    fn list(&self, ctx: &mut Context<Self>, _: GetReminders) -> Outcome<Self, Reminders> {
        let shown = |(id, reminder): (&String, &Reminder)| api::Reminder {
            id: id.clone(),
            text: reminder.text.clone(),
            rung: reminder.rung,
            rung_at_ms: reminder.rung_at_ms,
            pending: reminder.repeats || reminder.rung == 0,
        };
        ctx.reply(Reminders { reminders: self.reminders.iter().map(shown).collect() })
    }

    fn ring(&self, ctx: &mut Context<Self>, command: Ring) -> Outcome<Self, ()> {
        if ctx.fired_timer() != Some(&command.id) {
            reject!(PermissionDenied, "a reminder is rung by its timer alone");
        }
        ctx.emit(Rung { id: command.id, at_ms: ctx.now_ms() });
        ctx.reply(())
    }
}

impl EventSourced for Person {
    type Event = Event;
    type Snapshot = Snapshot;

    fn apply(&mut self, event: Event) {
        match event {
            Event::Set(Set { id, text, repeats }) => {
                self.reminders.insert(id, Reminder { text, repeats, ..Reminder::default() });
            }
            Event::Rung(Rung { id, at_ms }) => {
                if let Some(reminder) = self.reminders.get_mut(&id) {
                    reminder.rung = reminder.rung.saturating_add(1);
                    reminder.rung_at_ms = at_ms;
                }
            }
            Event::Forgotten(Forgotten { id }) => drop(self.reminders.remove(&id)),
        }
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot { reminders: self.reminders.clone() })
    }

    fn restore(&mut self, snapshot: Snapshot) -> Result<(), String> {
        self.reminders = snapshot.reminders;
        Ok(())
    }
}

stead_sdk::export!(Person: ReminderService, journal = "reminders");

#[cfg(test)]
mod tests;
