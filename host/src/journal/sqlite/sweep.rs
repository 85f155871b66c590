//! Places in the feed of events that were forgotten after they were packed.
//!
//! They are found by going over the feed, some rows in each round of packing: an index that finds those of an
//! entity would cost more with every event than they do.

use crate::journal::error::StoreError;
use crate::journal::sqlite::Inner;
use crate::journal::sqlite::read::get;
use crate::words::limits::FEED_SWEPT_ROWS;

/// Places behind an offset, and how many of them are of forgotten events.
const SLICE: &str = "\
SELECT max(off), total(is_gone) FROM ( \
    SELECT f.off, coalesce(f.seq < g.before, 0) AS is_gone \
    FROM feed f LEFT JOIN forgotten g ON g.entity = f.entity WHERE f.off > ? ORDER BY f.off LIMIT ? + 0)";

const DELETE: &str = "\
DELETE FROM feed WHERE off > ? AND off <= ? \
AND seq < (SELECT before FROM forgotten g WHERE g.entity = feed.entity)";

impl Inner {
    /// Goes over the next rows behind `swept`. False at the end of the feed, where it begins again.
    ///
    /// The newest place of all stays, from which offsets go on: an entity's newest event is never forgotten.
    pub async fn sweep_feed_slice(&self, swept: &mut i64) -> Result<bool, StoreError> {
        let slice = sqlx::query(SLICE).bind(*swept).bind(FEED_SWEPT_ROWS);
        let slice = self.readers.one(slice).await?;
        let Some(last) = get::<Option<i64>>(&slice, 0)? else {
            *swept = 0;
            return Ok(false);
        };
        if get::<f64>(&slice, 1)? > 0.0 {
            self.write_one(sqlx::query(DELETE).bind(*swept).bind(last)).await?;
        }
        *swept = last;
        Ok(true)
    }
}
