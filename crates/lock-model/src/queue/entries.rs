//! The models of queues in sessions, with their bounds.

use super::{Guard, Look, Queue};
use crate::catalogue::Entry;

const ETCD: Queue =
    Queue { look: Look::OwnFirst, guard: Guard::Fence, attempts: [2, 1, 1], expiries: 1, losses: 1 };

pub(crate) fn entries() -> Vec<Entry> {
    let zk = Queue { guard: Guard::Order, ..ETCD };
    let two = |queue| Queue { attempts: [2, 1, 0], ..queue };
    let stuck = &["no key is stuck"];
    let belief = &["no two beliefs"];
    vec![
        Entry::new(
            "W1",
            "etcd: sessions that end while one waits, lost replies, an undo with a fence",
            two(ETCD),
        )
        .holds(),
        Entry::new("W2", "ZooKeeper: the same, an undo that is ordered after its acquire", two(zk)).holds(),
        Entry::new("W3", "W1 with three clients", Queue { attempts: [2, 1, 1], ..ETCD }).holds().long(),
        Entry::new("W4", "W2 with three clients", Queue { attempts: [2, 1, 1], ..zk }).holds().long(),
        Entry::new(
            "W5",
            "a waiter holds when nothing is before its number, its own entry or not",
            Queue { look: Look::NothingBefore, losses: 0, ..ETCD },
        )
        .breaks(belief),
        Entry::new(
            "W6",
            "a waiter holds when its predecessor is gone",
            Queue { look: Look::PredecessorGone, losses: 0, ..ETCD },
        )
        .breaks(belief),
        Entry::new(
            "W7",
            "an undo that nothing keeps its acquire from overtaking",
            two(Queue { guard: Guard::Nothing, ..ETCD }),
        )
        .breaks(stuck),
        Entry::new(
            "W8",
            "an ordered undo that looks for the entry at a server that lags",
            two(Queue { guard: Guard::OrderAndStaleLook, ..ETCD }),
        )
        .breaks(stuck),
    ]
}
