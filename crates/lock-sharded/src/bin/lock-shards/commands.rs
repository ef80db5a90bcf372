//! What each command does.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{FutureExt, StreamExt, stream};
use lock_sharded::{
    ClusterName, Error, ErrorKind, Marker, Mover, Result, Slot, SlotMove, SlotStatus, Slots, Step,
};
use serde_json::json;

use crate::{Cli, Command, Move, screen::Screen};

/// Returns whether all is well.
pub(crate) async fn run(cli: Cli) -> Result<bool> {
    let mover = Mover::connect(cli.map.clone(), cli.options()).await?;
    let screen = Screen::new(cli.json);
    match cli.command {
        Command::Init => {
            let opened = mover.init().await?;
            screen.say(json!({ "opened": opened }), format!("{opened} slots opened"));
        }
        Command::Status => status(&mover, &screen).await?,
        Command::Find { key } => {
            let map = mover.map().await?;
            let (slot, cluster) = map.find(&key)?;
            let found = json!({ "key": key, "slot": slot.index(), "cluster": cluster.as_str() });
            screen.say(found, format!("{key:?} is in slot {slot}, on {cluster} by the map"));
        }
        Command::Plan(what) => plan(&mover, &what, &screen).await?,
        Command::Move(what) if what.dry_run => plan(&mover, &what, &screen).await?,
        Command::Move(what) => {
            let to = mover.map().await?.named(&what.to)?;
            let mover = match what.stop_before {
                Some(step) => mover.stopping_before(step),
                None => mover,
            };
            let targets = what.slots.iter().map(|slot| (*slot, to.clone())).collect();
            return move_all(&mover, targets, what.parallel, screen).await;
        }
        Command::Pause => {
            mover.pause(true).await?;
            screen.say(json!({ "paused": true }), "no mover begins with another slot".to_owned());
        }
        Command::Resume { slots } => {
            mover.pause(false).await?;
            let moves = mover.unfinished().await?.into_iter();
            let targets =
                moves.filter(|one| is_among(one, slots.as_ref())).map(|one| (one.slot, one.to)).collect();
            return move_all(&mover, targets, 4, screen).await;
        }
        Command::Abort { slots } => {
            for one in mover.unfinished().await?.into_iter().filter(|one| is_among(one, slots.as_ref())) {
                let given_up = mover.abort(one.slot).await?;
                let SlotMove { slot, from, to, id, .. } = given_up;
                let text = format!("slot {slot}: the move to {to} was given up; it is open on {from} again");
                screen.say(
                    json!({ "slot": slot.index(), "aborted": id.to_string(), "open": from.as_str() }),
                    text,
                );
            }
        }
        Command::Reverse { slots } => {
            let mut targets = Vec::new();
            for slot in slots.iter() {
                targets.push((*slot, mover.came_from(*slot).await?));
            }
            return move_all(&mover, targets, 4, screen).await;
        }
        Command::Verify => {
            let problems = mover.verify().await?;
            for problem in &problems {
                let line = json!({ "slot": problem.slot.index(), "problem": problem.message });
                screen.say(line, format!("slot {}: {}", problem.slot, problem.message));
            }
            if problems.is_empty() {
                let text = "each slot is open on one cluster, and each copy has its original".to_owned();
                screen.say(json!({ "problems": 0 }), text);
            }
            return Ok(problems.is_empty());
        }
        Command::RebuildMap => {
            let wrong = mover.rebuild_map().await?;
            screen.say(json!({ "corrected": wrong }), format!("the map had {wrong} slots wrong"));
        }
        Command::Force { slots, retire: Some(at), .. } => {
            let at = mover.map().await?.named(&at)?;
            for slot in slots.iter() {
                let done = mover.retire(*slot, &at).await?;
                let text = format!(
                    "slot {slot}: {}",
                    if done { "closed there" } else { "not open elsewhere, left alone" }
                );
                screen.say(json!({ "slot": slot.index(), "retired": done }), text);
            }
        }
        Command::Force { slots, to, longest_ttl, .. } => {
            return force(&mover, &slots, to, longest_ttl, screen).await;
        }
    }
    Ok(true)
}

fn is_among(one: &SlotMove, slots: Option<&Slots>) -> bool {
    slots.is_none_or(|slots| slots.contains(&one.slot))
}

async fn force(
    mover: &Mover,
    slots: &Slots,
    to: Option<String>,
    longest_ttl: Duration,
    screen: Screen,
) -> Result<bool> {
    let to = mover.map().await?.named(&to.unwrap_or_default())?;
    screen.begin(slots.len());
    // All at once, so that the leases are waited for once.
    let mut forcing = stream::iter(slots.iter().copied())
        .map(|slot| {
            let (to, screen) = (&to, &screen);
            async move { (slot, mover.force(slot, to, longest_ttl, screen).await) }.boxed_local()
        })
        .buffer_unordered(Slot::COUNT);
    let mut failed = false;
    while let Some((slot, opened)) = forcing.next().await {
        if let Err(error) = opened {
            failed = true;
            screen.failed(slot, &error);
        }
    }
    drop(forcing);
    screen.end();
    Ok(!failed)
}

/// Moves each slot to its cluster; returns whether all were moved.
async fn move_all(
    mover: &Mover,
    targets: Vec<(Slot, ClusterName)>,
    parallel: usize,
    screen: Screen,
) -> Result<bool> {
    screen.begin(targets.len());
    let mut moving = stream::iter(targets)
        .map(|(slot, to)| {
            let screen = &screen;
            async move { (slot, move_one(mover, slot, &to, screen).await) }.boxed_local()
        })
        .buffer_unordered(parallel.max(1));
    let mut failed = false;
    while let Some((slot, moved)) = moving.next().await {
        if let Err(error) = moved {
            failed = true;
            screen.failed(slot, &error);
        }
    }
    drop(moving);
    screen.end();
    Ok(!failed)
}

async fn move_one(mover: &Mover, slot: Slot, to: &ClusterName, screen: &Screen) -> Result<()> {
    if mover.map().await.is_ok_and(|map| map.is_paused()) {
        let message = "moves are paused; `lock-shards resume` lets them go on";
        return Err(Error::new(ErrorKind::Closed, message));
    }
    let moved = mover.move_slot(slot, to, screen).await?;
    screen.moved(&moved);
    Ok(())
}

/// The slots that say the same, in one line.
async fn status(mover: &Mover, screen: &Screen) -> Result<()> {
    let map = mover.map().await?;
    let mut alike = BTreeMap::<String, Vec<Slot>>::new();
    let statuses = mover.status().await?;
    for status in &statuses {
        let line = json!({
            "slot": status.slot.index(),
            "markers": status.markers.iter().map(|(name, marker)| (name.to_string(), marker.to_string()))
                .collect::<BTreeMap<_, _>>(),
            "unknown": status.unknown.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>(),
            "map": map.home(status.slot).as_str(),
        });
        if screen.is_json() {
            screen.say(line, String::new());
        } else {
            alike.entry(describe(status, map.home(status.slot))).or_default().push(status.slot);
        }
    }
    for (what, slots) in alike {
        println!("{:>4} slots  {what}\n            {}", slots.len(), slots.into_iter().collect::<Slots>());
    }
    if let Some(status) = statuses.first() {
        for (name, error) in &status.unknown {
            screen.warn(&format!("{name} did not answer: {error}"));
        }
    }
    if map.is_paused() && !screen.is_json() {
        println!("Moves are paused.");
    }
    Ok(())
}

fn describe(status: &SlotStatus, home: &ClusterName) -> String {
    let open: Vec<_> = status.open().map(ToString::to_string).collect();
    let moving = status.markers.iter().find_map(|(name, marker)| match marker {
        Marker::Sealed { to, .. } => Some(format!("moving from {name} to {to}: ")),
        Marker::Preparing { from, .. } => Some(format!("moving from {from} to {name}: ")),
        _ => None,
    });
    let map = if open.iter().any(|open| *open != home.as_str()) {
        format!(" (the map says {home})")
    } else {
        String::new()
    };
    let of = match open.as_slice() {
        [] => "open nowhere".to_owned(),
        open => format!("open on {}", open.join(" and ")),
    };
    format!("{}{of}{map}", moving.unwrap_or_default())
}

/// Prints the steps that a move would take, and takes none.
async fn plan(mover: &Mover, what: &Move, screen: &Screen) -> Result<()> {
    let to = mover.map().await?.named(&what.to)?;
    let mut by_home = BTreeMap::<String, Vec<Slot>>::new();
    for status in mover.status().await?.into_iter().filter(|status| what.slots.contains(&status.slot)) {
        let home = match status.open().next() {
            Some(open) if *open == to => continue,
            Some(open) => open.to_string(),
            None => "a move that was begun".to_owned(),
        };
        by_home.entry(home).or_default().push(status.slot);
    }
    if by_home.is_empty() {
        screen.say(json!({ "slots": [] }), format!("all of these slots are on {to} already"));
    }
    for (from, slots) in by_home {
        let slots: Slots = slots.into_iter().collect();
        let steps: Vec<_> = Step::ALL.iter().map(|step| explain(*step, &from, &to)).collect();
        let line = json!({ "from": from, "to": to.as_str(), "slots": slots.to_string(), "steps": steps });
        let numbered = steps.iter().enumerate().map(|(index, step)| format!("  {}. {step}", index + 1));
        let text = format!(
            "{} slots from {from} to {to} ({slots}), {} at once; for each:\n{}",
            slots.len(),
            what.parallel,
            numbered.collect::<Vec<_>>().join("\n")
        );
        screen.say(line, text);
    }
    Ok(())
}

fn explain(step: Step, from: &str, to: &ClusterName) -> String {
    match step {
        Step::Plan => {
            format!("plan: see that {from} and {to} are two clusters, and the slot's last move is done")
        }
        Step::Prepare => format!("prepare: mark the slot on {to} as being prepared"),
        Step::Seal => {
            format!("seal: let {from} grant nothing of it any more; free keys are refused from here")
        }
        Step::Census => format!("census: list what is held on {from}"),
        Step::Copy => format!("copy: put each hold on {to}, without an end"),
        Step::Open => format!(
            "open: let {to} grant; free keys are granted again. THE POINT OF NO RETURN: until here, `abort`"
        ),
        Step::Drain => format!(
            "drain: wait until each holder has taken its hold over on {to}, and free what nobody holds"
        ),
        Step::Clean => format!("clean: leave a word on {from} that the slot is on {to}"),
    }
}
