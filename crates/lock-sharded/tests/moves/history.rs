//! What contenders saw, and what must be true of it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use lock_sharded::{ShardedLocker, lock_core::backend::BootInstant};
use tokio::{task::JoinSet, time};

/// One hold as its holder saw it.
#[derive(Clone, Debug)]
struct Seen {
    key: String,
    token: u64,
    called: BootInstant,
    returned: BootInstant,
    /// Until when it was believed in.
    until: BootInstant,
}

/// Contenders at work until they are stopped.
pub(crate) struct Contenders {
    tasks: JoinSet<Result<()>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
}

impl Contenders {
    /// Each of `lockers` contends for all of `keys` in turn.
    pub(crate) fn start(lockers: Vec<ShardedLocker>, keys: &[String]) -> Self {
        let (seen, stop) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::new(AtomicBool::new(false)));
        let mut tasks = JoinSet::new();
        for (index, locks) in lockers.into_iter().enumerate() {
            let (seen, stop, keys) = (Arc::clone(&seen), Arc::clone(&stop), keys.to_vec());
            tasks.spawn(async move {
                for key in keys.iter().cycle().skip(index) {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let called = BootInstant::now();
                    let guard = match locks.lock(key).await {
                        // A slow machine is no broken promise; whoever is refused for good is.
                        Err(error) if error.is_transient() => continue,
                        locked => locked?,
                    };
                    let (returned, token) = (BootInstant::now(), guard.fencing_token().get());
                    time::sleep(Duration::from_millis(2)).await; // why: a hold lasts a moment
                    let until = BootInstant::now();
                    let is_held = guard.is_held();
                    // A hold that ends early claims nothing for the time after.
                    let until = if is_held { until } else { returned };
                    seen.lock().unwrap().push(Seen { key: key.clone(), token, called, returned, until });
                    match guard.release().await {
                        Err(error) if error.is_transient() || !is_held => {}
                        released => released?,
                    }
                }
                Ok(())
            });
        }
        Self { tasks, seen, stop }
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// Waits until there were `more` holds.
    pub(crate) async fn go_on(&self, more: usize) {
        let enough = self.count() + more;
        while self.count() < enough {
            time::sleep(Duration::from_millis(5)).await; // why: the condition is in the loop
        }
    }

    /// Stops them, and checks what they saw; returns how many holds there were.
    pub(crate) async fn check(mut self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        let mut by_key = HashMap::<_, Vec<_>>::new();
        let seen = self.seen.lock().unwrap().clone();
        for one in &seen {
            by_key.entry(one.key.clone()).or_default().push(one.clone());
        }
        for mut holds in by_key.into_values() {
            holds.sort_by_key(|hold| hold.returned);
            for pair in holds.windows(2) {
                ensure!(pair[0].until <= pair[1].returned, "two believe at once: {pair:?}");
            }
            let mut largest_before = Vec::new();
            let mut largest = 0;
            for hold in &holds {
                ensure!(
                    !largest_before.iter().any(|(_, token)| *token == hold.token),
                    "a token twice: {hold:?}"
                );
                let before = largest_before.iter().filter(|(returned, _)| *returned < hold.called);
                let before = before.map(|(_, token)| *token).max().unwrap_or(0);
                ensure!(before < hold.token, "a token does not grow: {hold:?} after {before}");
                largest = largest.max(hold.token);
                largest_before.push((hold.returned, hold.token));
            }
        }
        Ok(seen.len())
    }
}
