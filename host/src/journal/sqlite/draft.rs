//! A batch turned into rows.

use std::collections::HashMap;
use std::sync::Arc;

use crate::journal::changes::Changes;
use crate::journal::sqlite::Inner;
use crate::journal::sqlite::index::{Known, Row};
use crate::journal::sqlite::rows::{Rows, Table, Value};
use crate::journal::sqlite::segment::seal;
use crate::journal::sqlite::writer::Writer;
use crate::journal::store::views::indexed;
use crate::journal::store::{EffectId, StoredEvent, Write};
use crate::words::{Address, Message, Seq};

/// The rows of a batch, and what it makes true once they are stored.
pub struct Draft {
    pub tables: [Rows; Table::ALL.len()],
    pub heads: HashMap<Address, Known>,
    pub tail: Vec<(i64, Row)>,
    pub types: Vec<(Arc<str>, i64)>,
    new_types: HashMap<Arc<str>, i64>,
}

impl Inner {
    /// Events, snapshots and receipts of a batch, whose entities are at these numbers.
    pub fn draft(
        &self,
        writer: &mut Writer,
        batch: &[Write],
        mut heads: HashMap<Address, Known>,
    ) -> Draft {
        let mut draft = Draft {
            tables: Table::ALL.map(Rows::new),
            heads: HashMap::new(),
            tail: Vec::new(),
            types: Vec::new(),
            new_types: HashMap::new(),
        };
        for write in batch {
            let Some(head) = heads.get_mut(&write.address) else { continue };
            if head.is_absent() {
                head.no = writer.next_entity;
                writer.next_entity += 1;
                draft.rows(Table::Entity).push([
                    Value::Int(head.no),
                    Value::Text(write.address.journal.as_str().into()),
                    Value::Blob(write.address.id.as_str().as_bytes().to_vec()),
                ]);
            }
            let no = head.no;
            for (seq, event) in (write.after.0 + 1..).zip(&write.events) {
                let type_no = self.type_number(&mut draft, &event.type_name);
                let off = writer.next_off;
                writer.next_off += 1;
                draft.event(no, seq, off, type_no, write.at_ms, event);
            }
            let seq = write.after.plus(write.events.len());
            if let Some(state) = &write.snapshot {
                let type_no = self.type_number(&mut draft, &state.type_name);
                let key = [no as u64, seq.0, type_no as u64];
                draft.rows(Table::Snapshot).push([
                    Value::Int(no),
                    Value::Int(seq.0 as i64),
                    Value::Int(type_no),
                    Value::Blob(seal(&key, &state.data)),
                ]);
            }
            if let Some(receipt) = &write.receipt {
                draft.rows(Table::Receipt).push([
                    Value::Int(no),
                    Value::Text(receipt.key.as_str().into()),
                    Value::Blob(receipt.request_hash.to_vec()),
                    Value::Blob(seal(&[no as u64, receipt.expires_at_ms], &receipt.reply)),
                    Value::Int(receipt.expires_at_ms as i64),
                ]);
            }
        }
        draft.heads = heads;
        draft
    }

    fn type_number(&self, draft: &mut Draft, name: &Arc<str>) -> i64 {
        let types = self.types();
        if let Some(number) = types.number(name).or_else(|| draft.new_types.get(name).copied()) {
            return number;
        }
        let number = types.next_number() + draft.types.len() as i64;
        draft.types.push((name.clone(), number));
        draft.new_types.insert(name.clone(), number);
        draft.rows(Table::MessageType).push([Value::Int(number), Value::Text(name.clone())]);
        number
    }
}

impl Draft {
    fn rows(&mut self, table: Table) -> &mut Rows {
        &mut self.tables[table as usize]
    }

    fn event(&mut self, no: i64, seq: u64, off: i64, type_no: i64, at_ms: u64, event: &Message) {
        let sealed = seal(&[no as u64, seq, at_ms, type_no as u64], &event.data);
        // A copy: the guest's buffer may be much larger than the event.
        let data = bytes::Bytes::copy_from_slice(&event.data);
        self.rows(Table::Journal).push([
            Value::Int(off),
            Value::Int(no),
            Value::Int(seq as i64),
            Value::Int(at_ms as i64),
            Value::Int(type_no),
            Value::Blob(sealed),
        ]);
        let event = Message { type_name: event.type_name.clone(), data };
        let bytes = event.data.len();
        let event = Some(StoredEvent { seq: Seq(seq), at_ms, event });
        self.tail.push((no, Row { seq, off, bytes, event }));
    }

    /// The number of an entity that the batch writes to.
    fn number(&self, address: &Address) -> i64 {
        self.heads.get(address).map_or(0, |head| head.no)
    }

    /// Adds what is stored beside events.
    pub fn changes(&mut self, changes: &Changes) {
        for (write, effect) in &changes.effects {
            let no = self.number(&write.address);
            let key = id_key(&effect.id);
            self.rows(Table::Outbox).push([
                Value::Blob(effect.id.0.to_vec()),
                Value::Int(write.fence.shard.0.into()),
                Value::Int(no),
                Value::Blob(seal(&key, &effect.call.encode())),
            ]);
        }
        for (_, change) in &changes.effects_changed {
            self.rows(Table::OutboxChanged).push([
                Value::Blob(change.id.0.to_vec()),
                Value::Int(change.tries.into()),
                Value::from(change.due_ms),
                Value::from(change.error),
                Value::Int(change.parked.into()),
            ]);
        }
        for (_, id) in &changes.effects_done {
            self.rows(Table::OutboxGone).push([Value::Blob(id.0.to_vec())]);
        }
        self.timers(changes);
        for (write, before) in &changes.forgotten {
            let no = self.number(&write.address);
            self.rows(Table::Forgotten).push([Value::Int(no), Value::from(before.0)]);
        }
        self.steps(changes);
        self.view_rows(changes);
    }

    fn timers(&mut self, changes: &Changes) {
        for (write, change) in &changes.timers {
            let no = self.number(&write.address);
            let name = Value::from(change.name.as_str());
            let Some(timer) = &change.set else {
                self.rows(Table::TimerGone).push([Value::Int(no), name]);
                continue;
            };
            self.rows(Table::Timer).push([
                Value::Int(no),
                name,
                Value::Int(write.fence.shard.0.into()),
                Value::from(timer.due_ms),
                timer.every_ms.map_or(Value::Null, Value::from),
                Value::from(timer.method.as_str()),
                Value::Blob(seal(&id_key(&EffectId(timer.token)), &timer.payload)),
                Value::Blob(timer.token.to_vec()),
            ]);
        }
        for (_, later) in &changes.timers_later {
            self.rows(Table::TimerLater).push([
                Value::from(later.address.journal.as_str()),
                Value::Blob(later.address.id.as_str().into()),
                Value::from(later.name),
                Value::Blob(later.token.to_vec()),
                Value::from(later.due_ms),
                Value::Int(later.tries.into()),
                Value::from(later.error),
            ]);
        }
    }

    fn steps(&mut self, changes: &Changes) {
        for step in &changes.steps {
            self.rows(Table::Position).push([
                Value::from(step.place.group),
                Value::Int(step.place.partition.0.into()),
                Value::from(step.off),
            ]);
        }
        for (place, address, laggard) in &changes.laggards {
            let group = Value::from(place.group);
            let partition = Value::Int(place.partition.0.into());
            let journal = Value::from(address.journal.as_str());
            let id = Value::Blob(address.id.as_str().into());
            match laggard {
                Some(laggard) => self.rows(Table::Laggard).push([
                    group,
                    partition,
                    journal,
                    id,
                    Value::from(laggard.next.0),
                    Value::Int(laggard.tries.into()),
                    Value::from(laggard.due_ms),
                    Value::from(laggard.error.as_str()),
                    Value::Int(laggard.parked.into()),
                ]),
                None => self.rows(Table::LaggardGone).push([group, partition, journal, id]),
            }
        }
    }

    fn view_rows(&mut self, changes: &Changes) {
        for (_, change) in &changes.rows {
            let view: Arc<str> = change.view.as_str().into();
            let key: Arc<str> = change.key.as_str().into();
            let place = || [Value::Text(view.clone()), Value::Text(key.clone())];
            self.rows(Table::ViewValueGone).push(place());
            let Some(row) = &change.row else {
                self.rows(Table::ViewRowGone).push(place());
                continue;
            };
            self.rows(Table::ViewRow).push([
                Value::Text(view.clone()),
                Value::Text(key.clone()),
                Value::Text(row.message.type_name.clone()),
                Value::Blob(seal(&[], &row.message.data)),
            ]);
            for (field, value) in &row.index {
                self.rows(Table::ViewValue).push([
                    Value::Text(view.clone()),
                    Value::Text(key.clone()),
                    Value::from(field.as_str()),
                    Value::Blob(indexed(value).to_vec()),
                ]);
            }
        }
    }
}

/// What the checksum of an effect's call, or of a timer's payload, belongs to.
pub fn id_key(id: &EffectId) -> [u64; 2] {
    let (clock, random) = id.0.split_at(8);
    [clock, random].map(|half| half.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}
