//! Drives a lock with a load, and notes when each thing happened.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
    thread,
    time::Duration,
};

use anyhow::Result;
use parking_lot::Mutex;
use tokio::{
    task::{JoinSet, yield_now},
    time::{sleep, timeout},
};

use crate::{
    clock,
    lock::Lock,
    sample::{Record, Turn},
};

/// More turns than these are not kept, lest a fast lock fill the memory.
const MOST_TURNS: usize = 2_000_000;

/// What part of the time is spent before anything counts.
const WARM_UP: u32 = 8;

/// Who still waits this long after the end waits no more: a thousand contenders would take minutes to have one turn
/// each, and one for etcd's lock RPC was seen to wait for ever.
const LONGEST_REST: Duration = Duration::from_secs(2);

/// Who asks for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How many tasks lock and release, again and again; they are spread over the clients.
    pub tasks: usize,
    /// Whether all want one key, or each its own.
    pub keys: Keys,
    /// How long each holds.
    pub hold: Duration,
    /// How many pairs go between two looks at the clock; one, unless a look costs as much as a lock.
    pub batch: u32,
    /// The number of the first key.
    pub first: usize,
}

/// Which keys the tasks of a load want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Nobody waits for anybody.
    Each,
    /// They hand it over to each other.
    One,
}

/// Lets the tasks of `shape` go on for `time`, and returns what they noted.
///
/// # Errors
///
/// The first error of any of them, which ends the others.
pub async fn drive<L: Lock>(clients: &[Arc<L>], shape: &Shape, time: Duration) -> Result<Record> {
    let start = clock::now() + nanoseconds(time / WARM_UP);
    let end = start + nanoseconds(time);
    // A thread, since tasks that never wait may leave the runtime no time for its timers.
    let meter = thread::spawn(move || {
        thread::sleep(until(start));
        let before = clock::cpu();
        thread::sleep(until(end));
        clock::cpu().saturating_sub(before)
    });
    let mut tasks = JoinSet::new();
    for number in 0..shape.tasks {
        let client = Arc::clone(&clients[number % clients.len()]);
        let key = name(shape.first + if shape.keys == Keys::One { 0 } else { number });
        tasks.spawn(go_on(client, key, shape.clone(), end));
    }
    let mut turns = Vec::with_capacity(shape.tasks);
    while let Some(ended) = tasks.join_next().await {
        turns.push(ended??);
    }
    let cpu = meter.join().expect("a thread that sleeps does not panic");
    Ok(Record { turns, start, end, cpu, batch: shape.batch, contended: shape.keys == Keys::One })
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).expect("less than centuries")
}

fn until(instant: u64) -> Duration {
    Duration::from_nanos(instant.saturating_sub(clock::now()))
}

async fn go_on<L: Lock>(lock: Arc<L>, key: &'static str, shape: Shape, end: u64) -> Result<Vec<Turn>> {
    let mut turns = Vec::new();
    loop {
        let asked = clock::now();
        if asked >= end {
            return Ok(turns);
        }
        let mut held = if shape.keys == Keys::Each {
            lock.acquire(key).await?
        } else {
            let waited = timeout(until(end) + LONGEST_REST, lock.acquire(key)).await;
            let Ok(held) = waited else { return Ok(turns) };
            held?
        };
        let acquired = clock::now();
        if shape.hold.is_zero() && shape.keys == Keys::One {
            // The others of this thread ask meanwhile, or else one that never waits would go on alone.
            yield_now().await;
        } else if !shape.hold.is_zero() && acquired < end {
            sleep(shape.hold).await;
        }
        let leaving = if shape.batch == 1 { clock::now() } else { acquired };
        for _ in 1..shape.batch {
            lock.release(held).await?;
            held = lock.acquire(key).await?;
        }
        lock.release(held).await?;
        if turns.len() < MOST_TURNS {
            turns.push(Turn { asked, acquired, leaving, left: clock::now() });
        }
        if shape.batch > 1 {
            // What never waits would let nobody else go on.
            yield_now().await;
        }
    }
}

/// Returns the name of the key of this number, the same each time.
#[must_use]
pub fn name(number: usize) -> &'static str {
    static NAMES: LazyLock<Mutex<HashMap<usize, &'static str>>> = LazyLock::new(Mutex::default);
    NAMES.lock().entry(number).or_insert_with(|| format!("key-{number}").leak())
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use lock_local::LocalLocker;

    use super::{Keys, Shape, drive};
    use crate::locks::Ours;

    const TIME: Duration = Duration::from_millis(50);

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_contended_key_has_one_holder_at_a_time_and_every_contender_its_turns() {
        let clients = [Arc::new(Ours((*LocalLocker::new()).clone()))];
        let shape = Shape { tasks: 4, keys: Keys::One, hold: Duration::ZERO, batch: 1, first: 0 };
        let sample = drive(&clients, &shape, TIME).await.unwrap().sample();
        assert_eq!((sample.overlaps, sample.shares.len()), (0, 4));
        assert!(sample.shares.iter().all(|turns| *turns > 0), "{:?}", sample.shares);
        assert!(!sample.handover.is_empty());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn tasks_with_a_key_each_all_go_on() {
        let clients = [Arc::new(Ours((*LocalLocker::new()).clone()))];
        let shape = Shape { tasks: 8, keys: Keys::Each, hold: Duration::ZERO, batch: 64, first: 0 };
        let sample = drive(&clients, &shape, TIME).await.unwrap().sample();
        assert!(sample.shares.iter().all(|pairs| *pairs >= 64), "{:?}", sample.shares);
        assert!(sample.handover.is_empty());
    }
}
