//! Slots of a lock space that move between two clusters, while movers, clusters or the map fail.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use lock_sharded::{Event, Observer, Step};
use rand::RngExt;
use test_cluster::eventually;

use super::{Etcd, Redlock, Row, S, Setnx, Zk};
use crate::{
    agent::{Command, Halt},
    event::{Answer, How, Invariant},
    lab::{Agent, Boot, LOCK, Lab, Pending, Shards},
};

pub(super) const ROWS: &[Row] = &[
    Row::new(61, "mover killed before each step", S, killed).boot(Boot::Own).long_leases(),
    Row::new(62, "mover stopped while others move", S, stopped).boot(Boot::Own).long_leases().quick(S),
    Row::new(63, "old cluster without a majority", S, old_without_majority).boot(Boot::Own).long_leases(),
    Row::new(64, "new cluster without a majority", S, new_without_majority).boot(Boot::Own).long_leases(),
    Row::new(65, "map lost while the slot moves", S, map_lost).boot(Boot::Own).long_leases(),
    Row::new(66, "old cluster's data lost", S, old_emptied).boot(Boot::Own).long_leases().overlapping(),
    Row::new(67, "new cluster's data lost", S, new_emptied).boot(Boot::Own).long_leases().overlapping(),
    Row::new(68, "clients with old maps", S, old_maps).boot(Boot::Own).long_leases(),
];

const KEPT: &str = Shards::KEPT;

/// No move takes longer.
const LONG: Duration = Duration::from_secs(60);

/// A mover that halts before `step` of a move.
struct Halted<'l, 'a> {
    lab: &'l Lab<'a>,
    mover: Agent,
    moving: Pending,
}

impl<'l, 'a> Halted<'l, 'a> {
    fn before(lab: &'l Lab<'a>, shards: &Shards, to: usize, step: Step, halt: Halt) -> Result<Self> {
        let mover = lab.special_agent(shards.client())?;
        let number = Step::ALL.iter().position(|one| *one == step).context("it is one of them")?;
        let (lock, to) = (LOCK.to_owned(), Shards::NAMES[to].to_owned());
        let moving = mover.order(Command::Move { lock, to, halt: Some((number, halt)) })?;
        match halt {
            Halt::Stop => mover.wait_until_stopped()?,
            Halt::Kill => mover.wait_until_ended()?,
        }
        Ok(Self { lab, mover, moving })
    }

    /// Lets one go on that was stopped, and waits for what comes of its move.
    fn go_on(&self) -> Result<()> {
        self.mover.go_on()?;
        let moved = self.moving.wait_for(LONG)?;
        // Whatever it found: others may have moved the slot meanwhile.
        let is_sane = moved.as_ref().err().is_none_or(|(kind, _)| kind != "Unexpected");
        self.lab.expect(Invariant::Errors, is_sane, format!("a mover that goes on says: {moved:?}"));
        Ok(())
    }
}

fn is_kept(lab: &Lab<'_>, holder: &Agent) -> Result<()> {
    let verified = holder.ask(Command::Verify { lock: KEPT.to_owned() })?;
    let is_held = holder.is_held(KEPT)?;
    lab.expect(Invariant::Progress, is_held, format!("a hold outlives the move: {verified:?}"));
    let is_gone = matches!(&verified, Err((kind, _)) if kind == "Lost");
    lab.expect(Invariant::Belief, !(is_held && is_gone), "what is believed in is on a cluster");
    Ok(())
}

fn release_kept(lab: &Lab<'_>, holder: &Agent) -> Result<()> {
    let released = holder.release(KEPT)?;
    lab.expect(Invariant::Owner, released.is_ok(), format!("a hold that moved is released: {released:?}"));
    Ok(())
}

/// A mover is killed before each of its steps in turn, and another goes on.
fn killed(lab: &mut Lab<'_>) -> Result<()> {
    let shards = Shards::start(lab, [Etcd, Zk])?;
    let load = shards.load(lab, || Ok(shards.client()))?;
    let holder = lab.special_agent(shards.client())?;
    holder.hold(KEPT)?;
    // So that each step comes in both directions, run by run.
    let first = lab.dice.lock().random_range(0..2);
    shards.move_to(lab, first)?;
    for (number, step) in Step::ALL.into_iter().enumerate() {
        let to = (first + number + 1) % 2;
        let fault = lab.fault(format!("SIGKILL of a mover before it does {step}"));
        let halted = Halted::before(lab, &shards, to, step, Halt::Kill)?;
        fault.fired(format!(
            "process {} has ended: {:?}",
            halted.mover.process.pid(),
            halted.mover.process.status()
        ));
        shards.move_to(lab, to)?;
        fault.end();
        lab.cycles("rounds after the move", 3)?;
        is_kept(lab, &holder)?;
    }
    release_kept(lab, &holder)?;
    shards.finish(lab, &load)
}

/// A mover stands still before any of its steps, finds when it goes on that the slot was moved there and back, and does
/// what it then does.
fn stopped(lab: &mut Lab<'_>) -> Result<()> {
    let shards = Shards::start(lab, [Redlock, Etcd])?;
    let load = shards.load(lab, || Ok(shards.client()))?;
    let holder = lab.special_agent(shards.client())?;
    holder.hold(KEPT)?;
    for _ in 0..3 {
        let step = any_step(lab);
        let fault = lab.fault(format!("SIGSTOP of a mover before it does {step}"));
        let halted = Halted::before(lab, &shards, 1, step, Halt::Stop)?;
        fault.fired(format!("process {} is in state T", halted.mover.process.pid()));
        shards.move_to(lab, 1)?;
        shards.move_to(lab, 0)?;
        halted.go_on()?;
        shards.move_to(lab, 0)?;
        fault.end();
        lab.cycles("rounds after the move", 3)?;
        is_kept(lab, &holder)?;
    }
    release_kept(lab, &holder)?;
    shards.finish(lab, &load)
}

fn any_step(lab: &Lab<'_>) -> Step {
    Step::ALL[lab.dice.lock().random_range(0..Step::ALL.len())]
}

fn old_without_majority(lab: &mut Lab<'_>) -> Result<()> {
    without_majority(lab, |from| from)
}

fn new_without_majority(lab: &mut Lab<'_>) -> Result<()> {
    without_majority(lab, |from| 1 - from)
}

/// One of the clusters of a move has no majority for some time, from any step of the move on.
fn without_majority(lab: &mut Lab<'_>, victim: fn(usize) -> usize) -> Result<()> {
    let shards = Shards::start(lab, [Zk, Etcd])?;
    let load = shards.load(lab, || Ok(shards.client()))?;
    for from in [0, 1] {
        let (servers, name) = (&shards.clusters[victim(from)], Shards::NAMES[victim(from)]);
        let step = any_step(lab);
        let fault = lab.fault(format!("SIGSTOP of a majority of cluster {name} before a mover does {step}"));
        let halted = Halted::before(lab, &shards, 1 - from, step, Halt::Stop)?;
        (0..servers.majority()).try_for_each(|index| servers.pause(index))?;
        let pids: Vec<_> = (0..servers.majority()).filter_map(|index| servers.pid(index)).collect();
        fault.fired(format!("the servers {pids:?} are in state T"));
        halted.mover.go_on()?;
        lab.let_pass(lab.about(lab.ttl / 3));
        (0..servers.majority()).try_for_each(|index| servers.resume(index))?;
        halted.moving.wait_for(LONG)?.ok();
        let moved = eventually("the move", LONG, || shards.resume(1 - from));
        lab.expect(
            Invariant::Progress,
            moved.is_ok(),
            format!("the slot moves when all is whole: {moved:?}"),
        );
        fault.end();
        lab.cycles("rounds after the move", 3)?;
    }
    shards.finish(lab, &load)
}

/// Deletes the map when the holds are about to be copied.
struct DeletesMap(PathBuf);

impl Observer for DeletesMap {
    fn tell(&self, event: &Event) {
        if matches!(event, Event::Begins { step: Step::Copy, .. }) {
            fs::remove_file(&self.0).expect("there is a map");
        }
    }
}

/// The map is deleted while a slot moves: clients follow the clusters, and the clusters tell what it must say.
fn map_lost(lab: &mut Lab<'_>) -> Result<()> {
    let shards = Shards::start(lab, [Setnx, Etcd])?;
    let old = fs::read(shards.map())?;
    let load = shards.load(lab, || Ok(shards.client()))?;
    let holder = lab.special_agent(shards.client())?;
    holder.hold(KEPT)?;
    let fault = lab.fault("the map is deleted while the slot moves");
    let moved = shards.operate(async |mover| {
        let to = mover.map().await?.named(Shards::NAMES[1])?;
        mover.move_slot(shards.slot, &to, &DeletesMap(shards.map())).await
    });
    lab.expect(Invariant::Progress, moved.is_ok(), format!("the move needs no map: {moved:?}"));
    ensure!(!shards.map().exists(), "the map is there");
    fault.fired(format!("{} is gone", shards.map().display()));
    lab.cycles("rounds without a map", 10)?;
    is_kept(lab, &holder)?;
    let refused = lab.starting_agent(shards.client())?.wait_until_connected()?;
    lab.expect(
        Invariant::Errors,
        matches!(&refused, Err((kind, _)) if kind == "Unavailable"),
        format!("a client without a map is told so: {refused:?}"),
    );
    fs::write(shards.map(), old)?;
    let wrong = shards.operate(async |mover| mover.rebuild_map().await)?;
    lab.expect(Invariant::Progress, wrong == 1, format!("{wrong} slots were wrong in the map of before"));
    fault.end();
    release_kept(lab, &holder)?;
    shards.finish(lab, &load)
}

fn old_emptied(lab: &mut Lab<'_>) -> Result<()> {
    let shards = Shards::start(lab, [Etcd, Etcd])?;
    let load = shards.load(lab, || Ok(shards.client()))?;
    let holder = lab.special_agent(shards.client())?;
    holder.hold(KEPT)?;
    lose_and_force(lab, &shards, &holder, 0)?;
    shards.finish(lab, &load)
}

/// The new cluster forgets the holds that have moved to it, before the old one is told that all is done.
fn new_emptied(lab: &mut Lab<'_>) -> Result<()> {
    let shards = Shards::start(lab, [Etcd, Etcd])?;
    let load = shards.load(lab, || Ok(shards.client()))?;
    let holder = lab.special_agent(shards.client())?;
    holder.hold(KEPT)?;
    Halted::before(lab, &shards, 1, Step::Clean, Halt::Kill)?;
    lose_and_force(lab, &shards, &holder, 1)?;
    shards.finish(lab, &load)
}

/// A cluster loses all data. Nothing of the slot is granted until an operator says that no lease is left.
fn lose_and_force(lab: &Lab<'_>, shards: &Shards, holder: &Agent, lost: usize) -> Result<()> {
    let other = lab.special_agent(shards.client())?;
    let fault = lab.fault(format!("cluster {} is restarted empty", Shards::NAMES[lost]));
    shards.empty(lost)?;
    fault.fired(format!("process {:?} serves nothing of before", shards.clusters[lost].pid(0)));
    for lock in [LOCK, KEPT] {
        let tried = other.acquire(lock, How::Try)?;
        let is_granted = matches!(tried, Ok(Answer::Acquired { .. }));
        lab.expect(
            Invariant::Belief,
            !is_granted,
            format!("a slot of which all was lost is closed: {tried:?}"),
        );
    }
    let told = eventually("the loss", lab.ttl, || {
        ensure!(!holder.is_held(KEPT)?, "it is held");
        Ok(())
    });
    lab.expect(Invariant::Loss, told.is_ok(), "a holder whose hold is forgotten believes no longer");
    shards.force(lab, 1)?;
    fault.end();
    Ok(())
}

/// Clients with maps of long ago: the clusters refuse them, and say where the slot is.
fn old_maps(lab: &mut Lab<'_>) -> Result<()> {
    let shards = Shards::start(lab, [Etcd, Setnx])?;
    let old = shards.client_with_copied_map()?;
    let load = shards.load(lab, || Ok(old.clone()))?;
    let holder = lab.special_agent(old.clone())?;
    holder.hold(KEPT)?;
    for number in 0..6 {
        let to = (number + 1) % 2;
        let fault = lab.fault(format!("the slot moves to {}", Shards::NAMES[to]));
        shards.move_to(lab, to)?;
        fault.fired("the map of all clients is of before the first move");
        let late = lab.special_agent(old.clone())?;
        late.hold(LOCK)?;
        late.release(LOCK)?.ok();
        fault.end();
        lab.cycles("rounds after the move", 3)?;
        is_kept(lab, &holder)?;
    }
    release_kept(lab, &holder)?;
    shards.finish(lab, &load)
}
