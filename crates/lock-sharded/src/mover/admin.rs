//! What operators ask and do besides moves.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use lock_core::{
    Error, ErrorKind, Result,
    movable::{ClusterName, Epoch, Marker, Slot},
};

use super::{
    Mover,
    report::{Problem, SlotStatus},
    state::SlotMove,
    state::unfinished,
};
use crate::map::Slots;

/// The markers of a cluster, or why they are not known.
type Told = Result<BTreeMap<Slot, Marker>>;

impl Mover {
    /// Opens slots of a new lock space where the map has them, and returns how many that were. Slots of which any
    /// cluster has a marker are left alone.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`]: a cluster does not answer. [`ErrorKind::UnsafeConfig`]: the map says that a slot was
    /// moved, and no cluster knows of it: the cluster has lost its data; see [`force`](Self::force).
    ///
    /// # Cancel safety
    ///
    /// To be called again.
    pub async fn init(&self) -> Result<usize> {
        let map = self.map().await?;
        let mut opened = 0;
        for status in self.status().await? {
            status.certain()?;
            if !status.markers.is_empty() {
                continue;
            }
            if map.epoch(status.slot) != Epoch::default() {
                let message = format!(
                    "slot {} was open on {} in epoch {}, says the map, and no cluster knows of it: was data lost? see \
                     `lock-shards force`",
                    status.slot,
                    map.home(status.slot),
                    map.epoch(status.slot)
                );
                return Err(Error::new(ErrorKind::UnsafeConfig, message));
            }
            let home = self.members.get(map.home(status.slot)).await?;
            let open = Marker::Open { epoch: Epoch::default() };
            opened += usize::from(home.change_marker(status.slot, None, &open).await?);
        }
        Ok(opened)
    }

    /// Returns what all clusters of the map say of all slots.
    ///
    /// # Errors
    ///
    /// None today; what a cluster fails with is in the status.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn status(&self) -> Result<Vec<SlotStatus>> {
        if let Err(error) = self.map().await {
            tracing::debug!(%error, "clusters that were added to the map lately are not asked");
        }
        let told: Vec<_> = join_all(self.members.names().into_iter().map(async |name| {
            let told: Told = match self.members.get(&name).await {
                Ok(member) => member.markers().await.map(|markers| markers.into_iter().collect()),
                Err(error) => Err(error),
            };
            (name, told)
        }))
        .await;
        let status = |slot: Slot| {
            let (mut markers, mut unknown) = (Vec::new(), Vec::new());
            for (name, told) in &told {
                match told {
                    Ok(of) => markers.extend(of.get(&slot).map(|marker| (name.clone(), marker.clone()))),
                    Err(error) => unknown.push((name.clone(), error.clone())),
                }
            }
            SlotStatus { slot, markers, unknown }
        };
        Ok(Slot::all().map(status).collect())
    }

    /// Returns what all clusters of the map say of a slot.
    pub(super) async fn status_of(&self, slot: Slot) -> Result<SlotStatus> {
        let told: Vec<_> = join_all(self.members.names().into_iter().map(async |name| {
            let told = match self.members.get(&name).await {
                Ok(member) => member.marker(slot).await,
                Err(error) => Err(error),
            };
            (name, told)
        }))
        .await;
        let (mut markers, mut unknown) = (Vec::new(), Vec::new());
        for (name, told) in told {
            match told {
                Ok(marker) => markers.extend(marker.map(|marker| (name, marker))),
                Err(error) => unknown.push((name, error)),
            }
        }
        Ok(SlotStatus { slot, markers, unknown })
    }

    /// Returns the moves that are not done, of all slots.
    ///
    /// # Errors
    ///
    /// As [`status`](Self::status).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn unfinished(&self) -> Result<Vec<SlotMove>> {
        Ok(self.status().await?.iter().filter_map(unfinished).collect())
    }

    /// Returns the cluster from which a slot came last, to move it back there.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`]: its last move is not done, or no cluster remembers one.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn came_from(&self, slot: Slot) -> Result<ClusterName> {
        let status = self.status_of(slot).await?;
        let invalid = |message: String| Error::new(ErrorKind::InvalidInput, message).without_effect();
        if let Some(what) = unfinished(&status) {
            return Err(invalid(format!("slot {slot} still moves to {}; resume that, or abort it", what.to)));
        }
        let left = status.markers.iter().filter_map(|(name, marker)| match marker {
            Marker::Moved { epoch, to } if status.open().any(|open| open == to) => Some((*epoch, name)),
            _ => None,
        });
        let last = left.max().map(|(_, name)| name.clone());
        last.ok_or_else(|| invalid(format!("no cluster remembers that slot {slot} was moved from it")))
    }

    /// Returns what must not be: a slot that is open nowhere though nothing moves it, or on two clusters, or whose
    /// markers fit no move; a copy whose original is gone. A move under way may show for a moment.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`]: a cluster does not answer, so that nothing is certain.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn verify(&self) -> Result<Vec<Problem>> {
        let mut problems = Vec::new();
        for status in self.status().await? {
            status.certain()?;
            let slot = status.slot;
            let mut say = |message: String| problems.push(Problem { slot, message });
            let open: Vec<_> = status.open().map(ClusterName::as_str).collect();
            match (open.as_slice(), unfinished(&status)) {
                ([_], None) => {}
                ([], None) => {
                    say("it is open on no cluster, and no move is under way; if data was lost, see `force`"
                        .into())
                }
                (_, Some(what)) => {
                    if let Err(error) = self.check_move(&what).await {
                        say(format!("{error}"));
                    }
                }
                (several, None) => say(format!(
                    "it is open on {}: has a cluster that was given up come back? stop it, or `force --retire` it",
                    several.join(" and ")
                )),
            }
            for name in &open {
                self.find_orphans(slot, &name.parse()?, &mut say).await?;
            }
        }
        Ok(problems)
    }

    async fn check_move(&self, what: &SlotMove) -> Result<()> {
        let pair = super::state::Pair::of(self, what.clone()).await?;
        let markers = pair.markers().await?;
        pair.stage(&markers).map(drop)
    }

    /// Finds copies whose originals are gone though nothing is there that would free them.
    async fn find_orphans(&self, slot: Slot, at: &ClusterName, say: &mut impl FnMut(String)) -> Result<()> {
        let holds = self.members.get(at).await?.holds(slot, None).await?;
        for hold in holds {
            let Some(label) = &hold.copy else { continue };
            let original = self.members.get(&label.from).await?;
            let marker = original.marker(slot).await?;
            if !matches!(&marker, Some(Marker::Sealed { id, .. }) if *id == label.id) {
                let said = marker.map_or("nothing".to_owned(), |marker| marker.to_string());
                say(format!(
                    "{at} has a copy of a hold of {:?} from {}, which says {said:?} of the slot and so cannot tell \
                     whether that still stands; see `force`",
                    hold.key.as_str(),
                    label.from
                ));
            }
        }
        Ok(())
    }

    /// Makes the map say what the clusters say, and returns how many slots it had wrong.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`]: a cluster does not answer, or the map cannot be written.
    ///
    /// # Cancel safety
    ///
    /// To be called again.
    pub async fn rebuild_map(&self) -> Result<usize> {
        let mut map = self.map().await?;
        let mut wrong = 0;
        for status in self.status().await? {
            status.certain()?;
            // Of two, the one that was opened later.
            let open = status.markers.iter().filter_map(|(name, marker)| Some((marker.open()?, name)));
            let Some((epoch, home)) = open.max() else { continue };
            if (map.home(status.slot), map.epoch(status.slot)) != (home, epoch) {
                wrong += 1;
                map.set_home(status.slot, home.clone(), epoch);
            }
        }
        self.source.store(&map).await?;
        Ok(wrong)
    }

    /// Pauses moves, or lets them go on, by a word in the map: no mover begins with another slot while it is there. One
    /// that it has begun it finishes, lest its keys be refused.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`]: the map cannot be written.
    ///
    /// # Cancel safety
    ///
    /// To be called again.
    pub async fn pause(&self, paused: bool) -> Result<()> {
        let mut map = self.map().await?;
        map.set_paused(paused);
        self.source.store(&map).await
    }

    /// Returns the slots that are open on a cluster, by its own word.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`]: it does not answer.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn slots_on(&self, cluster: &ClusterName) -> Result<Slots> {
        let markers = self.members.get(cluster).await?.markers().await?;
        Ok(markers.into_iter().filter(|(_, marker)| marker.open().is_some()).map(|(slot, _)| slot).collect())
    }
}
