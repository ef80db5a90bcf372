//! The mover of an agent, which halts itself where a cell wants it to.

use lock_core::Result;
use lock_sharded::{Event, Key, MapSource, Mover, Observer, Slot, Step};
use rustix::process::{Signal, getpid, kill_process};

use super::{Halt, Setup, connect};

/// Sends this process a signal before a step.
struct Halts(Option<(Step, Halt)>);

impl Observer for Halts {
    fn tell(&self, event: &Event) {
        if let Event::Begins { step, .. } = event
            && let Some((_, halt)) = self.0.filter(|(before, _)| before == step)
        {
            let signal = match halt {
                Halt::Kill => Signal::KILL,
                Halt::Stop => Signal::STOP,
            };
            kill_process(getpid(), signal).expect("a process may signal itself");
        }
    }
}

/// Moves the slot of `lock` to the cluster `to`, and halts before a step, by its number.
pub(super) async fn move_slot(
    setup: &Setup,
    lock: &str,
    to: &str,
    halt: Option<(usize, Halt)>,
) -> Result<()> {
    let mover = Mover::connect(MapSource::file(&setup.urls), connect::options(setup)).await?;
    let to = mover.map().await?.named(to)?;
    let halts = Halts(halt.map(|(step, halt)| (Step::ALL[step], halt)));
    mover.move_slot(Slot::of(&Key::new(lock)?), &to, &halts).await.map(drop)
}
