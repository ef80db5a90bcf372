//! The steps of a move, each repeatable by any mover.

use std::time::{Duration, Instant};

use lock_core::{
    Error, ErrorKind, LockGuard, Result,
    movable::{ClusterName, CopyLabel, Epoch, Marker, MoveId, Slot, SlotHold},
};
use tokio::time;

use super::{
    Mover,
    report::{Event, Observer, SlotStatus, Step},
    state::{Pair, SlotMove, Stage, unfinished},
};
use crate::{
    drain::{drain, is_sealed_for},
    members::named,
};

/// How long a drain waits before it looks again; more and more.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How few epochs may be left before an operator should know.
const FEW_EPOCHS: u16 = 100;

/// A move that was done.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Moved {
    /// So many holds were copied, if this mover copied them.
    pub copied: usize,
    /// So many copies were freed by this mover, since their holders had gone.
    pub freed: usize,
    /// For how long free keys were refused, if this mover both sealed and opened the slot.
    pub refused: Option<Duration>,
}

/// A move under way here.
struct Work<'a> {
    mover: &'a Mover,
    pair: Pair,
    /// Whether the move was planned here, and is not prepared yet. Whoever finds a move without a marker on the new
    /// cluster later has found that the cluster lost its data, and the copies with it.
    may_prepare: bool,
    observer: &'a dyn Observer,
    sealed_at: Option<Instant>,
    moved: Moved,
}

impl Mover {
    /// Moves a slot to another cluster, and returns once nothing of it is left on the old one; or goes on with such a
    /// move that was begun. If the slot is there already, does nothing.
    ///
    /// Holds stay held, and keep their tokens. Those who wait queue again at the new cluster, in any order. It takes as
    /// long as the holders take to notice: a third of their TTL.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Unavailable`]: a cluster does not answer, or another mover is at work. The move can be resumed.
    /// - [`ErrorKind::UnsafeConfig`]: both names are of one cluster, or the markers do not fit this move.
    /// - [`ErrorKind::InvalidInput`]: another move of the slot is not done yet.
    /// - [`ErrorKind::Unsupported`]: the slot was moved 1,023 times.
    ///
    /// # Cancel safety
    ///
    /// As if the mover were killed: [`resume`](Self::resume) goes on.
    pub async fn move_slot(&self, slot: Slot, to: &ClusterName, observer: &dyn Observer) -> Result<Moved> {
        self.begins(slot, Step::Plan, observer)?;
        let status = self.status_of(slot).await?;
        match unfinished(&status) {
            Some(what) if what.to == *to => self.drive(what, false, observer).await,
            Some(what) => {
                let message = format!(
                    "slot {slot} is in move {} from {} to {}; resume or abort that first",
                    what.id, what.from, what.to
                );
                Err(Error::new(ErrorKind::InvalidInput, message).without_effect())
            }
            None => match self.plan(slot, &status, to).await? {
                Some(what) => self.drive(what, true, observer).await,
                None => Ok(Moved::default()),
            },
        }
    }

    /// Goes on with the move of a slot that was begun; `None` if all clusters of the map say that there is none.
    ///
    /// # Errors
    ///
    /// As [`move_slot`](Self::move_slot).
    ///
    /// # Cancel safety
    ///
    /// As [`move_slot`](Self::move_slot).
    pub async fn resume(&self, slot: Slot, observer: &dyn Observer) -> Result<Option<Moved>> {
        match self.move_of(slot).await? {
            Some(what) => self.drive(what, false, observer).await.map(Some),
            None => Ok(None),
        }
    }

    /// Gives up the move of a slot, if it is not open on the new cluster yet; returns the move. It may be called while
    /// a mover is at work, which then finds itself refused.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`]: there is no move, or it is past the point of no return: move the slot back once it
    /// is done. [`ErrorKind::Unavailable`]: a cluster does not answer; nothing is lost by calling it again.
    ///
    /// # Cancel safety
    ///
    /// To be called again.
    pub async fn abort(&self, slot: Slot) -> Result<SlotMove> {
        let invalid = |message: String| Error::new(ErrorKind::InvalidInput, message).without_effect();
        let what = self.move_of(slot).await?;
        let what = what.ok_or_else(|| invalid(format!("slot {slot} is in no move")))?;
        if self.is_left_behind(&what).await? {
            return Ok(what);
        }
        let pair = Pair::of(self, what).await?;
        loop {
            let markers = pair.markers().await?;
            let cancelled = Marker::Cancelled { epoch: pair.what.next, id: pair.what.id };
            match pair.stage(&markers)? {
                // Its first step was under way; what comes late finds this.
                Stage::Planned | Stage::Prepared | Stage::Sealed | Stage::Overtaken => {
                    pair.new.change_marker(slot, markers.new.as_ref(), &cancelled).await?;
                }
                Stage::Cancelled => {
                    if give_up(&pair, markers.old.as_ref()).await? {
                        return Ok(pair.what);
                    }
                }
                Stage::Opened | Stage::Done | Stage::Superseded => {
                    return Err(invalid(format!(
                        "slot {slot} is open on {} already; once the move is done, move it back to {}",
                        pair.what.to, pair.what.from
                    )));
                }
            }
        }
    }

    /// Returns the move that a slot is in.
    async fn move_of(&self, slot: Slot) -> Result<Option<SlotMove>> {
        let status = self.status_of(slot).await?;
        match unfinished(&status) {
            None => status.certain().map(|()| None),
            found => Ok(found),
        }
    }

    async fn plan(&self, slot: Slot, status: &SlotStatus, to: &ClusterName) -> Result<Option<SlotMove>> {
        let open: Vec<_> = status.open().cloned().collect();
        let [from] = open.as_slice() else {
            status.certain()?;
            let message = format!(
                "slot {slot} is open on {} clusters instead of one; see `lock-shards verify`",
                open.len()
            );
            return Err(Error::new(ErrorKind::UnsafeConfig, message).without_effect());
        };
        if from == to {
            // The one from which it came may have to be cleaned yet.
            return status.certain().map(|()| None);
        }
        let (old, new) = (self.members.get(from).await?, self.members.get(to).await?);
        let (one, other) = tokio::try_join!(old.identity(), new.identity())?;
        if one == other {
            let message = format!("{from} and {to} are one and the same: {one}");
            return Err(Error::new(ErrorKind::UnsafeConfig, message).without_effect());
        }
        let epoch_of =
            |name| status.markers.iter().find(|(at, _)| at == name).map(|(_, marker)| marker.epoch());
        let last = epoch_of(from).max(epoch_of(to)).unwrap_or_default();
        let next = last.next()?;
        if next.number() > Epoch::LAST.number() - FEW_EPOCHS {
            tracing::warn!(%slot, %next, "few epochs are left for moves of a slot");
        }
        Ok(Some(SlotMove { slot, from: from.clone(), to: to.clone(), next, id: MoveId::random() }))
    }

    /// Says that a step begins, or stops there as if killed.
    fn begins(&self, slot: Slot, step: Step, observer: &dyn Observer) -> Result<()> {
        observer.tell(&Event::Begins { slot, step });
        if self.stop_before == Some(step) {
            let message =
                format!("slot {slot}: stopped before {step}, as was asked; resume or abort the move");
            return Err(Error::new(ErrorKind::Closed, message).without_effect());
        }
        Ok(())
    }

    async fn drive(&self, what: SlotMove, is_new: bool, observer: &dyn Observer) -> Result<Moved> {
        let guard = self.lock(what.slot, &what.from).await?;
        if !is_new && self.is_left_behind(&what).await? {
            return Ok(Moved::default());
        }
        let work = Work {
            mover: self,
            pair: Pair::of(self, what).await?,
            may_prepare: is_new,
            observer,
            sealed_at: None,
            moved: Moved::default(),
        };
        let moved = work.until_done(&guard).await?;
        // What matters is done, whether or not the lock was held to the end.
        if let Err(error) = guard.release().await {
            tracing::debug!(%error, "the lock of a mover was not given back");
        }
        Ok(moved)
    }
}

impl Work<'_> {
    /// Takes step after step, each chosen by what the markers say.
    async fn until_done(mut self, lock: &LockGuard) -> Result<Moved> {
        loop {
            let markers = self.pair.markers().await?;
            match self.pair.stage(&markers)? {
                Stage::Planned if self.may_prepare => {
                    self.prepare(markers.new.as_ref()).await?;
                    self.may_prepare = false;
                }
                Stage::Planned => return Err(self.lost_its_marker()),
                Stage::Prepared => {
                    // Another has taken over; two would only be in each other's way.
                    if !lock.is_held() {
                        let message = "the lock of this mover was lost; another may be at work";
                        return Err(Error::new(ErrorKind::Unavailable, message));
                    }
                    self.seal(markers.old.as_ref()).await?;
                }
                Stage::Sealed => {
                    if let Some(copied) = self.copy().await? {
                        self.open(markers.new.as_ref(), copied).await?;
                    }
                }
                Stage::Opened | Stage::Superseded => self.drain_and_clean(markers.old.as_ref()).await?,
                Stage::Done => {
                    self.observer.tell(&Event::Done { slot: self.slot() });
                    return Ok(self.moved);
                }
                Stage::Overtaken => {
                    let cancelled = Marker::Cancelled { epoch: self.pair.what.next, id: self.pair.what.id };
                    self.pair.new.change_marker(self.slot(), markers.new.as_ref(), &cancelled).await?;
                }
                Stage::Cancelled => {
                    if !give_up(&self.pair, markers.old.as_ref()).await? {
                        continue;
                    }
                    let message = format!("the move of slot {} was given up", self.slot());
                    return Err(Error::new(ErrorKind::InvalidInput, message));
                }
            }
        }
    }

    fn slot(&self) -> Slot {
        self.pair.what.slot
    }

    fn lost_its_marker(&self) -> Error {
        let SlotMove { slot, to, id, .. } = &self.pair.what;
        let message = format!(
            "{to} prepared slot {slot} for move {id} and says nothing of it any more: was its data lost? nothing was \
             sealed; look after {to}, and move the slot anew"
        );
        Error::new(ErrorKind::UnsafeConfig, message)
    }

    fn begins(&self, step: Step) -> Result<()> {
        self.mover.begins(self.slot(), step, self.observer)
    }

    async fn prepare(&self, present: Option<&Marker>) -> Result<()> {
        self.begins(Step::Prepare)?;
        if let Some(Marker::Cancelled { id, .. }) = present {
            // What a mover that was killed in the middle of an abort has left there.
            clear_copies(&self.pair, *id).await?;
        }
        let SlotMove { slot, from, next, id, .. } = &self.pair.what;
        let preparing = Marker::Preparing { epoch: *next, from: from.clone(), id: *id };
        self.pair.new.change_marker(*slot, present, &preparing).await.map(drop)
    }

    async fn seal(&mut self, present: Option<&Marker>) -> Result<()> {
        self.begins(Step::Seal)?;
        let Some(Marker::Open { epoch }) = present else { return Ok(()) };
        let SlotMove { slot, to, next, id, .. } = &self.pair.what;
        let sealed = Marker::Sealed { epoch: *epoch, to: to.clone(), next: *next, id: *id };
        let sent = Instant::now();
        if self.pair.old.change_marker(*slot, present, &sealed).await? {
            self.sealed_at = Some(sent);
        }
        Ok(())
    }

    /// Copies what is held. Nothing can be added any more, so that a list made now has all of it.
    async fn copy(&self) -> Result<Option<usize>> {
        self.begins(Step::Census)?;
        let SlotMove { slot, from, next, id, .. } = &self.pair.what;
        let holds = self.pair.old.holds(*slot, None).await?;
        // An empty list of a cluster that has just lost its data is no proof that nothing is held.
        if !is_sealed_for(self.pair.old.marker(*slot).await?.as_ref(), *id) {
            return Ok(None);
        }
        self.begins(Step::Copy)?;
        let label = CopyLabel { from: from.clone(), id: *id };
        let copies: Vec<_> =
            holds.into_iter().map(|hold| SlotHold { copy: Some(label.clone()), ..hold }).collect();
        let preparing = Marker::Preparing { epoch: *next, from: from.clone(), id: *id };
        if !self.pair.new.put_copies(*slot, &preparing, &copies).await? {
            // Another opened it meanwhile, or gave the move up: the markers tell.
            return Ok(None);
        }
        Ok(Some(copies.len()))
    }

    async fn open(&mut self, present: Option<&Marker>, copied: usize) -> Result<()> {
        self.begins(Step::Open)?;
        let SlotMove { slot, to, next, .. } = self.pair.what.clone();
        if self.pair.new.change_marker(slot, present, &Marker::Open { epoch: next }).await? {
            self.moved.copied = copied;
            self.moved.refused = self.sealed_at.map(|sealed| sealed.elapsed());
            self.observer.tell(&Event::Opened { slot, copied, refused: self.moved.refused });
            self.mover.tell_map(|map| map.set_home(slot, to, next)).await;
        }
        Ok(())
    }

    /// Frees copies whose originals are gone, until all others are adopted and nothing is left on the old cluster.
    async fn drain_and_clean(&mut self, sealed: Option<&Marker>) -> Result<()> {
        self.begins(Step::Drain)?;
        let mut pause = PAUSE;
        loop {
            match self.drain_once().await {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) if error.is_transient() => {
                    let reason = format!("{error}");
                    self.observer.tell(&Event::Waiting { slot: self.slot(), reason });
                }
                Err(error) => return Err(error),
            }
            time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        self.begins(Step::Clean)?;
        let (Some(present), what) = (sealed, &self.pair.what) else { return Ok(()) };
        let gone = Marker::Moved { epoch: present.epoch(), to: what.to.clone() };
        self.pair.old.change_marker(what.slot, sealed, &gone).await.map(drop)
    }

    async fn drain_once(&mut self) -> Result<bool> {
        let Pair { what, old, new } = &self.pair;
        let at_old = |error| named(error, &what.from);
        let copies =
            copies_of(&new.holds(what.slot, None).await.map_err(|error| named(error, &what.to))?, what.id);
        if copies.is_empty() {
            let markers = self.pair.markers().await?;
            // Lost data, or another mover that was faster: the markers are looked at again.
            return Ok(self.pair.stage(&markers)? == Stage::Done
                || old.holds(what.slot, None).await.map_err(at_old)?.is_empty());
        }
        let oldest = copies.iter().min_by_key(|copy| copy.token);
        self.observer.tell(&Event::Draining {
            slot: what.slot,
            left: copies.len(),
            oldest: oldest.map(|copy| (copy.key.as_str().to_owned(), copy.token)),
        });
        self.moved.freed += drain(&**old, &**new, what.slot, None, &copies, what.id).await.map_err(at_old)?;
        Ok(false)
    }
}

fn copies_of(holds: &[SlotHold], id: MoveId) -> Vec<SlotHold> {
    holds.iter().filter(|hold| hold.copy.as_ref().is_some_and(|label| label.id == id)).cloned().collect()
}

/// Opens the slot on the old cluster again, in an epoch that no request of the move that was given up knows, and
/// deletes what that has left on the new one. Returns `false` if the old cluster says something else by now: a seal
/// that was under way may have come first.
async fn give_up(pair: &Pair, present: Option<&Marker>) -> Result<bool> {
    let reopened = Marker::Open { epoch: pair.what.next.next()? };
    let is_of_the_move = match present {
        Some(Marker::Sealed { id, .. }) => *id == pair.what.id,
        Some(Marker::Open { epoch }) => *epoch < pair.what.next,
        _ => false,
    };
    if is_of_the_move && !pair.old.change_marker(pair.what.slot, present, &reopened).await? {
        return Ok(false);
    }
    clear_copies(pair, pair.what.id).await?;
    Ok(true)
}

/// Deletes the copies that move `id`, which was given up, has left on the new cluster.
async fn clear_copies(pair: &Pair, id: MoveId) -> Result<()> {
    let slot = pair.what.slot;
    for copy in copies_of(&pair.new.holds(slot, None).await?, id) {
        pair.new.drop_copy(slot, &copy).await?;
    }
    Ok(())
}
