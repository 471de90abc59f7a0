//! The table of operations: what is validated.

use crate::case::{Kind, Operation};
use crate::{absorb, combine, copy_pages, decode, gather, head_norm, layer, rope_append, schedule, up_project};

/// In the order of [`Kind`].
const OPERATIONS: [&Operation; 18] = [
    &rope_append::ROPE_APPEND,
    &rope_append::ROPE_APPEND_NORM,
    &absorb::ABSORB_QUERY_FEW,
    &absorb::ABSORB_QUERY_MANY,
    &absorb::EXPAND_OUTPUT_FEW,
    &absorb::EXPAND_OUTPUT_MANY,
    &schedule::SCHEDULE_BALANCED,
    &schedule::SCHEDULE_FIXED,
    &decode::DECODE_BALANCED,
    &decode::DECODE_FIXED,
    &combine::COMBINE,
    &up_project::UP_PROJECT,
    &layer::LAYER,
    &gather::GATHER,
    &absorb::ABSORB_QUERY_INVARIANT,
    &absorb::EXPAND_OUTPUT_INVARIANT,
    &copy_pages::COPY_PAGES,
    &head_norm::HEAD_NORM,
];

impl Kind {
    /// All of them, in the order in which they run.
    pub const ALL: [Self; OPERATIONS.len()] = {
        let mut all = [Self::RopeAppend; OPERATIONS.len()];
        let mut i = 0;
        while i < OPERATIONS.len() {
            all[i] = OPERATIONS[i].kind;
            assert!(all[i] as usize == i, "the table is in the order of `Kind`");
            i += 1;
        }
        all
    };

    /// Its row of the table.
    pub(crate) fn operation(self) -> &'static Operation {
        OPERATIONS[self as usize]
    }

    /// Its name in the report, and of its file in a dump.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.operation().name
    }
}
