//! What a batch stores beside events: more parts for the statement, and the columns of their rows.
//!
//! The statement has the sections that the batch needs, so that a plain batch costs nothing more.

use sqlx::Postgres;
use sqlx::encode::Encode;
use sqlx::postgres::{PgArguments, PgHasArrayType};
use sqlx::query::QueryAs;
use sqlx::types::Type;

use crate::journal::changes::Changes;
use crate::journal::store::views::indexed;
use crate::journal::store::{EffectId, Fence};
use crate::words::Address;

/// Parts that come together, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sections(pub usize);

impl Sections {
    pub const COMBINATIONS: usize = 16;
    const EFFECTS: Self = Self(1);
    const TIMERS: Self = Self(2);
    const GROUPS: Self = Self(4);
    const VIEWS: Self = Self(8);

    fn contains(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// What is done with rows: the types and names of their columns, and the statement, in which `ROWS` stands for
/// the rows whose fences hold.
struct Part {
    section: Sections,
    name: &'static str,
    columns: &'static str,
    statement: &'static str,
}

/// Whose rows they are, and under which epoch they may be written.
const FENCE_COLUMNS: &str = "int shard_id, bigint epoch";

const PARTS: [Part; PART_COUNT] = [
    Part {
        section: Sections::EFFECTS,
        name: "effects",
        columns: "bytea effect, bytea journal, bytea id, bytea call",
        statement: "INSERT INTO outbox (shard_id, effect, journal, id, call, tries, due_ms, error, parked) \
            SELECT e.shard_id, e.effect, e.journal, e.id, e.call, 0, 0, ''::bytea, FALSE FROM ROWS \
            ON CONFLICT (shard_id, effect) DO NOTHING",
    },
    Part {
        section: Sections::EFFECTS,
        name: "effects_changed",
        columns: "bytea effect, bigint tries, bigint due_ms, bytea error, bigint parked",
        statement: "UPDATE outbox o SET tries = e.tries::int, due_ms = e.due_ms, error = e.error, \
            parked = (e.parked = 1) FROM ROWS WHERE o.shard_id = e.shard_id AND o.effect = e.effect",
    },
    Part {
        section: Sections::EFFECTS,
        name: "effects_done",
        columns: "bytea effect",
        statement: "DELETE FROM outbox o USING ROWS WHERE o.shard_id = e.shard_id AND o.effect = e.effect",
    },
    Part {
        section: Sections::TIMERS,
        name: "timers",
        columns: "bytea journal, bytea id, bytea name, bigint due_ms, bigint every_ms, bytea method, \
            bytea payload, bytea token",
        statement: "INSERT INTO timer (shard_id, journal, id, name, due_ms, every_ms, method, payload, token, \
            tries, error) SELECT e.shard_id, e.journal, e.id, e.name, e.due_ms, nullif(e.every_ms, 0), \
            e.method, e.payload, e.token, 0, ''::bytea FROM ROWS \
            ON CONFLICT (shard_id, journal, id, name) DO UPDATE SET due_ms = excluded.due_ms, \
            every_ms = excluded.every_ms, method = excluded.method, payload = excluded.payload, \
            token = excluded.token, tries = excluded.tries, error = excluded.error",
    },
    Part {
        section: Sections::TIMERS,
        name: "timers_gone",
        columns: "bytea journal, bytea id, bytea name",
        statement: "DELETE FROM timer t USING ROWS WHERE t.shard_id = e.shard_id AND t.journal = e.journal \
            AND t.id = e.id AND t.name = e.name",
    },
    Part {
        section: Sections::TIMERS,
        name: "timers_later",
        columns: "bytea journal, bytea id, bytea name, bytea token, bigint due_ms, bigint tries, bytea error",
        statement: "UPDATE timer t SET due_ms = e.due_ms, tries = e.tries::int, error = e.error FROM ROWS \
            WHERE t.shard_id = e.shard_id AND t.journal = e.journal AND t.id = e.id AND t.name = e.name \
            AND t.token = e.token",
    },
    Part {
        section: Sections::TIMERS,
        name: "forgotten_before",
        columns: "bytea journal, bytea id, bigint before",
        statement: "INSERT INTO forgotten AS o (shard_id, journal, id, before) \
            SELECT e.shard_id, e.journal, e.id, e.before FROM ROWS \
            ON CONFLICT (shard_id, journal, id) DO UPDATE SET before = greatest(o.before, excluded.before)",
    },
    Part {
        section: Sections::GROUPS,
        name: "steps",
        columns: "bigint part, bytea grp, bigint expected, bigint off",
        statement: "INSERT INTO consumed (grp, shard_id, off) SELECT e.grp, e.part::int, e.off FROM ROWS \
            ON CONFLICT (grp, shard_id) DO UPDATE SET off = excluded.off",
    },
    Part {
        section: Sections::GROUPS,
        name: "laggards",
        columns: "bigint part, bytea grp, bytea journal, bytea id, bigint seq, bigint tries, bigint due_ms, \
            bytea error, bigint parked",
        statement: "INSERT INTO laggard (grp, shard_id, journal, id, seq, tries, due_ms, error, parked) \
            SELECT e.grp, e.part::int, e.journal, e.id, e.seq, e.tries::int, e.due_ms, e.error, \
            e.parked = 1 FROM ROWS ON CONFLICT (grp, shard_id, journal, id) DO UPDATE SET \
            seq = excluded.seq, tries = excluded.tries, due_ms = excluded.due_ms, error = excluded.error, \
            parked = excluded.parked",
    },
    Part {
        section: Sections::GROUPS,
        name: "laggards_gone",
        columns: "bigint part, bytea grp, bytea journal, bytea id",
        statement: "DELETE FROM laggard l USING ROWS WHERE l.grp = e.grp AND l.shard_id = e.part::int \
            AND l.journal = e.journal AND l.id = e.id",
    },
    Part {
        section: Sections::VIEWS,
        name: "view_rows",
        columns: "bytea view, bytea key, bytea type, bytea data",
        statement: "INSERT INTO view_row (view, key, type, data) \
            SELECT e.view, e.key, e.type, e.data FROM ROWS \
            ON CONFLICT (view, key) DO UPDATE SET type = excluded.type, data = excluded.data",
    },
    Part {
        section: Sections::VIEWS,
        name: "view_rows_gone",
        columns: "bytea view, bytea key",
        statement: "DELETE FROM view_row r USING ROWS WHERE r.view = e.view AND r.key = e.key",
    },
    Part {
        // `fields` has every name that the row still has a value for, between zero bytes.
        section: Sections::VIEWS,
        name: "view_values_gone",
        columns: "bytea view, bytea key, bytea fields",
        statement: "DELETE FROM view_value v USING ROWS WHERE v.view = e.view AND v.key = e.key \
            AND position('\\x00'::bytea || v.field || '\\x00'::bytea IN e.fields) = 0",
    },
    Part {
        section: Sections::VIEWS,
        name: "view_values",
        columns: "bytea view, bytea key, bytea field, bytea value",
        statement: "INSERT INTO view_value (view, key, field, value) \
            SELECT e.view, e.key, e.field, e.value FROM ROWS \
            ON CONFLICT (view, key, field) DO UPDATE SET value = excluded.value",
    },
];

const PART_COUNT: usize = 14;
const EFFECTS: usize = 0;
const EFFECTS_CHANGED: usize = 1;
const EFFECTS_DONE: usize = 2;
const TIMERS: usize = 3;
const TIMERS_GONE: usize = 4;
const TIMERS_LATER: usize = 5;
const FORGOTTEN: usize = 6;
const STEPS: usize = 7;
const LAGGARDS: usize = 8;
const LAGGARDS_GONE: usize = 9;
const VIEW_ROWS: usize = 10;
const VIEW_ROWS_GONE: usize = 11;
const VIEW_VALUES_GONE: usize = 12;
const VIEW_VALUES: usize = 13;

/// Of groups that are elsewhere: refuses the batch as `wrong` does. `STEPS` stands for the steps.
const MOVED: &str = "\
, moved AS (
    SELECT e.place FROM STEPS
    JOIN shard s ON s.shard_id = e.shard_id AND s.epoch = e.epoch AND s.owner IS NOT NULL
        AND s.shard_id = ANY($1)
    WHERE e.expected <> coalesce((
        SELECT c.off FROM consumed c WHERE c.grp = e.grp AND c.shard_id = e.part::int), 0)
)";

pub struct Parts {
    pub text: String,
    /// With steps of groups: what refuses them.
    pub moved: Option<String>,
}

/// The text of sections, whose parameters come after `last`.
pub fn parts(sections: Sections, last: usize) -> Parts {
    let mut next = last;
    let mut parts = Parts { text: String::new(), moved: None };
    for (number, part) in PARTS.iter().enumerate() {
        if !sections.contains(part.section) {
            continue;
        }
        let columns = format!("{FENCE_COLUMNS}, {}", part.columns);
        let columns: Vec<(&str, &str)> =
            columns.split(", ").filter_map(|column| column.split_once(' ')).collect();
        let arrays: Vec<String> = columns
            .iter()
            .map(|(of, _)| {
                next += 1;
                format!("${next}::{of}[]")
            })
            .collect();
        let names: Vec<&str> = columns.iter().map(|(_, name)| *name).collect();
        let (arrays, names) = (arrays.join(", "), names.join(", "));
        if number == STEPS {
            let steps = format!("unnest({arrays}) WITH ORDINALITY AS e ({names}, place)");
            parts.moved = Some(MOVED.replace("STEPS", &steps));
        }
        let rows = format!(
            "unnest({arrays}) AS e ({names}) JOIN fence f ON f.shard_id = e.shard_id AND f.epoch = e.epoch"
        );
        let statement = part.statement.replace("ROWS", &rows);
        parts.text += &format!(", {} AS ({statement})", part.name);
    }
    parts
}

enum Cell {
    Number(i64),
    Bytes(Vec<u8>),
}

#[derive(Default)]
struct Column {
    numbers: Vec<i64>,
    bytes: Vec<Vec<u8>>,
}

/// The rows of a part.
#[derive(Default)]
struct Rows {
    shards: Vec<i32>,
    epochs: Vec<i64>,
    columns: Vec<Column>,
}

impl Rows {
    fn push<const N: usize>(&mut self, fence: &Fence, cells: [Cell; N]) {
        self.shards.push(fence.shard.0 as i32);
        self.epochs.push(fence.epoch.0 as i64);
        self.columns.resize_with(N, Column::default);
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            match cell {
                Cell::Number(number) => column.numbers.push(number),
                Cell::Bytes(bytes) => column.bytes.push(bytes),
            }
        }
    }
}

/// The rows of all parts.
pub struct Aside([Rows; PART_COUNT]);

impl Aside {
    pub fn of(changes: &Changes) -> Self {
        let mut aside = Self(std::array::from_fn(|_| Rows::default()));
        aside.effects(changes);
        aside.timers(changes);
        for (write, before) in &changes.forgotten {
            let [journal, id] = address(&write.address);
            aside.0[FORGOTTEN].push(&write.fence, [journal, id, number(before.0)]);
        }
        aside.steps(changes);
        aside.view_rows(changes);
        aside
    }

    fn effects(&mut self, changes: &Changes) {
        let effect = |id: &EffectId| bytes(&id.0);
        for (write, new) in &changes.effects {
            let [journal, id] = address(&write.address);
            let call = Cell::Bytes(new.call.encode());
            self.0[EFFECTS].push(&write.fence, [effect(&new.id), journal, id, call]);
        }
        for (fence, change) in &changes.effects_changed {
            self.0[EFFECTS_CHANGED].push(
                fence,
                [
                    effect(&change.id),
                    number(change.tries.into()),
                    number(change.due_ms),
                    bytes(change.error.as_bytes()),
                    number(change.parked.into()),
                ],
            );
        }
        for (fence, id) in &changes.effects_done {
            self.0[EFFECTS_DONE].push(fence, [effect(id)]);
        }
    }

    fn timers(&mut self, changes: &Changes) {
        for (write, change) in &changes.timers {
            let [journal, id] = address(&write.address);
            let name = bytes(change.name.as_bytes());
            let Some(timer) = &change.set else {
                self.0[TIMERS_GONE].push(&write.fence, [journal, id, name]);
                continue;
            };
            self.0[TIMERS].push(
                &write.fence,
                [
                    journal,
                    id,
                    name,
                    number(timer.due_ms),
                    number(timer.every_ms.unwrap_or(0)),
                    bytes(timer.method.as_bytes()),
                    bytes(&timer.payload),
                    bytes(&timer.token),
                ],
            );
        }
        for (fence, later) in &changes.timers_later {
            let [journal, id] = address(later.address);
            self.0[TIMERS_LATER].push(
                fence,
                [
                    journal,
                    id,
                    bytes(later.name.as_bytes()),
                    bytes(later.token),
                    number(later.due_ms),
                    number(later.tries.into()),
                    bytes(later.error.as_bytes()),
                ],
            );
        }
    }

    fn steps(&mut self, changes: &Changes) {
        for step in &changes.steps {
            let place = &step.place;
            self.0[STEPS].push(
                &place.fence,
                [
                    number(place.partition.0.into()),
                    bytes(place.group.as_bytes()),
                    number(step.expected_off),
                    number(step.off),
                ],
            );
        }
        for (place, of, laggard) in &changes.laggards {
            let part = number(place.partition.0.into());
            let group = bytes(place.group.as_bytes());
            let [journal, id] = address(of);
            let Some(laggard) = laggard else {
                self.0[LAGGARDS_GONE].push(&place.fence, [part, group, journal, id]);
                continue;
            };
            self.0[LAGGARDS].push(
                &place.fence,
                [
                    part,
                    group,
                    journal,
                    id,
                    number(laggard.next.0),
                    number(laggard.tries.into()),
                    number(laggard.due_ms),
                    bytes(laggard.error.as_bytes()),
                    number(laggard.parked.into()),
                ],
            );
        }
    }

    fn view_rows(&mut self, changes: &Changes) {
        for (fence, change) in &changes.rows {
            let place = || [bytes(change.view.as_bytes()), bytes(change.key.as_bytes())];
            let mut fields = vec![0];
            let index = change.row.as_ref().map_or(&[][..], |row| &row.index);
            for (at, (field, value)) in index.iter().enumerate() {
                // Of a field that comes twice the last value counts.
                if index[at + 1..].iter().any(|(later, _)| later == field) {
                    continue;
                }
                fields.extend_from_slice(field.as_bytes());
                fields.push(0);
                let [view, key] = place();
                let (field, value) = (bytes(field.as_bytes()), bytes(indexed(value)));
                self.0[VIEW_VALUES].push(fence, [view, key, field, value]);
            }
            let [view, key] = place();
            self.0[VIEW_VALUES_GONE].push(fence, [view, key, Cell::Bytes(fields)]);
            let [view, key] = place();
            match &change.row {
                Some(row) => {
                    let of = bytes(row.message.type_name.as_bytes());
                    let cells = [view, key, of, bytes(&row.message.data)];
                    self.0[VIEW_ROWS].push(fence, cells);
                }
                None => self.0[VIEW_ROWS_GONE].push(fence, [view, key]),
            }
        }
    }

    /// Those that have rows.
    pub fn sections(&self) -> Sections {
        let with_rows = PARTS.iter().zip(&self.0).filter(|(_, rows)| !rows.shards.is_empty());
        with_rows.fold(Sections::default(), |all, (part, _)| Sections(all.0 | part.section.0))
    }

    /// Adds the parameters of the sections, in the order of their parts.
    pub fn bind<'q, O>(
        &'q self,
        mut query: QueryAs<'q, Postgres, O, PgArguments>,
    ) -> QueryAs<'q, Postgres, O, PgArguments> {
        let sections = self.sections();
        for (part, rows) in PARTS.iter().zip(&self.0) {
            if !sections.contains(part.section) {
                continue;
            }
            query = query.bind(&rows.shards).bind(&rows.epochs);
            for (place, column) in part.columns.split(", ").enumerate() {
                let cells = rows.columns.get(place);
                query = match column.starts_with("bytea ") {
                    true => bound(query, cells.map(|column| &column.bytes)),
                    false => bound(query, cells.map(|column| &column.numbers)),
                };
            }
        }
        query
    }
}

/// A part without rows has no columns yet.
fn bound<'q, O, T>(
    query: QueryAs<'q, Postgres, O, PgArguments>,
    cells: Option<&'q Vec<T>>,
) -> QueryAs<'q, Postgres, O, PgArguments>
where
    T: Type<Postgres> + PgHasArrayType + for<'e> Encode<'e, Postgres>,
{
    match cells {
        Some(cells) => query.bind(cells),
        None => query.bind(Vec::<T>::new()),
    }
}

fn address(of: &Address) -> [Cell; 2] {
    [bytes(of.journal.as_str().as_bytes()), bytes(of.id.as_str().as_bytes())]
}

fn bytes(of: &[u8]) -> Cell {
    Cell::Bytes(of.to_vec())
}

/// The database's numbers end at 2⁶³ - 1.
fn number(value: u64) -> Cell {
    Cell::Number(i64::try_from(value).unwrap_or(i64::MAX))
}
