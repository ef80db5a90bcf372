//! The models of a moving slot, with their bounds.

use super::{Looks, RULES, Rules, Slots};
use crate::catalogue::Entry;

const ONE: Slots = Slots {
    rules: RULES,
    looks: Looks::AtBoth,
    asks: [1, 1],
    moves: 1,
    aborts: 0,
    losses: 0,
    wipes: 0,
    restores: 0,
    movers: 1,
};

const TWO: Slots = Slots { movers: 2, ..ONE };

pub(crate) fn entries() -> Vec<Entry> {
    let mut entries = vec![
        Entry::new("S1", "one move, a mover that may be killed anywhere", ONE).holds(),
        Entry::new("S2", "two movers, each of which may act on what it read long ago", TWO).holds(),
        Entry::new("S3", "a move that is given up while another mover opens", Slots { aborts: 1, ..TWO })
            .holds()
            .long(),
        Entry::new(
            "S4",
            "a move back, or a second one after one that was given up",
            Slots { moves: 2, aborts: 1, ..ONE },
        )
        .holds(),
        Entry::new(
            "S5",
            "lost replies, adoptions that land late or before the slot is open",
            Slots { losses: 2, ..ONE },
        )
        .holds(),
        Entry::new(
            "S6",
            "a cluster restarts without data, and is opened again when all leases are over",
            Slots { wipes: 1, ..ONE },
        )
        .holds(),
        Entry::new("S7", "the same with two movers", Slots { wipes: 1, ..TWO }).holds().long(),
        Entry::new("S8", "a cluster restarts with older data", Slots { restores: 1, ..ONE })
            .breaks(&["no two beliefs", "tokens grow"]),
        Entry::new(
            "S9",
            "ZooKeeper: who stands in a queue looks at it, and then at the marker; two moves",
            Slots { looks: Looks::QueueThenMarker, moves: 2, aborts: 1, ..ONE },
        )
        .holds(),
        Entry::new(
            "S10",
            "the same, if it looks at the marker first",
            Slots { looks: Looks::MarkerThenQueue, ..ONE },
        )
        .breaks(&["no two beliefs"]),
    ];
    entries.extend(refuted());
    entries
}

/// One rule is not followed in each.
fn refuted() -> Vec<Entry> {
    let without = |forget: fn(&mut Rules), model: Slots| {
        let mut rules = RULES;
        forget(&mut rules);
        Slots { rules, ..model }
    };
    let belief = &["no two beliefs"];
    let tokens = &["tokens grow"];
    let stuck = &["no key is stuck"];
    let (aborts, losses, wipes) =
        (Slots { aborts: 1, ..ONE }, Slots { losses: 1, ..ONE }, Slots { wipes: 1, ..ONE });
    let again = Slots { moves: 2, ..aborts };
    vec![
        Entry::new(
            "S11",
            "servers check that the slot is open, not its epoch",
            without(|r| r.compares_epochs = false, aborts),
        )
        .breaks(tokens),
        Entry::new(
            "S12",
            "a waiter that becomes first does not look at the marker",
            without(|r| r.look_shows_marker = false, ONE),
        )
        .breaks(belief),
        Entry::new(
            "S13",
            "a copy can be adopted before the slot is open",
            without(|r| r.adopts_after_open = false, aborts),
        )
        .breaks(belief),
        Entry::new(
            "S14",
            "a holder whose adoption is unknown relies on the old lease alone",
            without(|r| r.relies_on_both = false, losses),
        )
        .breaks(belief),
        Entry::new(
            "S15",
            "a copy is freed when its original is not there, sealed or not",
            without(|r| r.drain_needs_seal = false, wipes),
        )
        .breaks(belief),
        Entry::new(
            "S16",
            "who drains reads the marker first, then the holds",
            without(|r| r.drain_reads_marker_last = false, wipes),
        )
        .breaks(belief),
        Entry::new(
            "S17",
            "who drains deletes what is there of the owner, adopted or not",
            without(|r| r.drain_spares_adopted = false, ONE),
        )
        .breaks(&["no adopted hold is freed", "no two beliefs"]),
        Entry::new(
            "S18",
            "holds are copied whatever the new cluster's marker says",
            without(|r| r.copies_while_preparing = false, TWO),
        )
        .breaks(stuck),
        Entry::new("S19", "holds are listed before the seal", without(|r| r.census_after_seal = false, ONE))
            .breaks(belief),
        Entry::new(
            "S20",
            "who listed the holds does not read the marker again",
            without(|r| r.confirms_census = false, wipes),
        )
        .breaks(belief),
        Entry::new(
            "S21",
            "to give up, the old cluster is opened first",
            without(|r| r.cancels_first = false, Slots { aborts: 1, ..TWO }),
        )
        .breaks(belief),
        Entry::new(
            "S22",
            "the copies of a cancelled move are left",
            without(|r| r.clears_copies = false, again),
        )
        .breaks(stuck),
        Entry::new(
            "S23",
            "whoever goes on with a move may prepare it once more",
            without(|r| r.prepares_once = false, Slots { wipes: 1, ..TWO }),
        )
        .breaks(belief),
        Entry::new(
            "S24",
            "the old cluster is cleaned while copies are left",
            without(|r| r.cleans_after_drain = false, ONE),
        )
        .breaks(stuck),
        Entry::new(
            "S25",
            "a slot is opened again in the epoch that it had",
            without(|r| r.reopens_in_new_epoch = false, wipes),
        )
        .breaks(tokens),
        Entry::new(
            "S26",
            "a slot is opened again while another cluster still prepares it",
            without(|r| r.reopens_last = false, wipes),
        )
        .breaks(belief),
        Entry::new(
            "S27",
            "a move that was overtaken by a reopening is left",
            without(|r| r.cancels_overtaken = false, wipes),
        )
        .breaks(stuck),
    ]
}
