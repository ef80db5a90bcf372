//! The contention around a fault: acquire, work, release, again and again.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time;

use super::{Agent, Gap, Pace, ask, say};
use crate::event::What;

/// A failed acquire is not repeated at once: servers that are down are not to be flooded.
const AFTER_A_FAILURE: Duration = Duration::from_millis(10);

pub(super) async fn contend(agent: Arc<Agent>, name: u32, lock: String, pace: Pace) {
    for _ in 0..pace.rounds {
        if agent.ceased.load(Ordering::Relaxed) {
            return;
        }
        let attempt = agent.next_attempt();
        say(name, What::Invoked { attempt, lock: lock.clone(), how: pace.how });
        let locker = agent.locker();
        let outcome = tokio::select! {
            outcome = ask(&locker, &lock, pace.how) => outcome,
            () = ended(&agent) => {
                let (kind, message) = ("Dropped".to_owned(), "the contention is over".to_owned());
                return say(name, What::Failed { attempt, kind, message });
            }
        };
        match agent.settle(name, &lock, attempt, outcome) {
            Ok(Some(holding)) => {
                let work = async {
                    holding.work(Gap::None).await.ok();
                    let longer = rand::random_range(0..=pace.jitter);
                    // why: a critical section takes some time
                    time::sleep(Duration::from_millis(pace.hold + longer)).await;
                };
                tokio::select! {
                    () = work => {}
                    () = holding.watch() => unreachable!("it never ends"),
                }
                // What became of the release is written down; the next round does not depend on it.
                holding.release().await.ok();
            }
            Ok(None) => {}
            // why: see the constant
            Err(_) => time::sleep(AFTER_A_FAILURE).await,
        }
        // why: others shall have the lock too
        time::sleep(Duration::from_millis(pace.rest)).await;
    }
}

/// Resolves some time after the contention was ended, when a wait is given up.
async fn ended(agent: &Agent) {
    const GRACE: Duration = Duration::from_secs(3);
    const LOOK: Duration = Duration::from_millis(20);
    while !agent.ceased.load(Ordering::Relaxed) {
        // why: a bounded poll of a condition
        time::sleep(LOOK).await;
    }
    // why: those who wait are served while the others end
    time::sleep(GRACE).await;
}
