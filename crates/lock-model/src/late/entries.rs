//! The models of late requests, with their bounds.

use super::{Late, Rules};
use crate::catalogue::Entry;

const RULES: Rules =
    Rules { compares_owners: true, renews_only: true, remembers_undone: true, counts_from_sending: true };

const LATE: Late = Late { rules: RULES, attempts: [2, 1], renewals: 1, copies: 1, horizon: 3 };

pub(crate) fn entries() -> Vec<Entry> {
    let broken = |rules| Late { rules, ..LATE };
    let belief = &["no two beliefs"];
    let undone = &["what was undone is not held"];
    vec![
        Entry::new("L1", "renewals, releases and undos that are late, doubled and out of order", LATE)
            .holds(),
        Entry::new("L2", "the same for longer", Late { horizon: 5, ..LATE }).holds().long(),
        Entry::new(
            "L3",
            "a release that deletes whatever is there",
            broken(Rules { compares_owners: false, ..RULES }),
        )
        .breaks(belief),
        Entry::new("L4", "a renewal that sets the key anew", broken(Rules { renews_only: false, ..RULES }))
            .breaks(belief),
        Entry::new(
            "L5",
            "an undo that the server forgets once it is executed",
            broken(Rules { remembers_undone: false, ..RULES }),
        )
        .breaks(undone)
        .keeps_the_rest(),
        Entry::new(
            "L6",
            "an answered renewal counts from its answer",
            broken(Rules { counts_from_sending: false, ..RULES }),
        )
        .breaks(belief),
    ]
}
