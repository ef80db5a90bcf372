//! Which cluster each slot is on, as far as is known: a hint that costs a round trip where it is wrong.

use std::{
    collections::BTreeMap,
    fmt,
    ops::{Deref, RangeInclusive},
    str::FromStr,
};

use lock_core::{
    Error, ErrorKind, Key, Result,
    movable::{ClusterName, Epoch, Slot},
};
use serde::{Deserialize, Serialize};

/// The clusters of a lock space, and which slots are on which.
///
/// Safety does not rest on it: clusters refuse keys of slots that are not open on them, and say where those went. So a
/// map may be old, differ from program to program, or be lost; `lock-shards rebuild-map` makes one of what the clusters
/// say.
///
/// # Examples
///
/// ```
/// use lock_sharded::ShardMap;
///
/// let map = ShardMap::even([("a", "etcd:http://10.0.0.1:2379"), ("b", "etcd:http://10.0.1.1:2379")])?;
/// assert_eq!(map.slots_on("b").unwrap().to_string(), "128-255");
/// # Ok::<(), lock_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct ShardMap {
    clusters: BTreeMap<ClusterName, String>,
    homes: Vec<Home>,
    paused: bool,
}

/// The cluster of a slot, and the epoch in which it was last seen open there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Home {
    cluster: ClusterName,
    epoch: Epoch,
}

/// The map as JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    clusters: BTreeMap<String, String>,
    slots: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    epochs: BTreeMap<u16, String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    paused: bool,
}

impl ShardMap {
    /// Spreads the slots evenly over clusters, each with its name and [address](crate::Cluster::at).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`]: there is no cluster, two have one name, or a name is none.
    pub fn even<N: AsRef<str>, A: Into<String>>(clusters: impl IntoIterator<Item = (N, A)>) -> Result<Self> {
        let mut map = Self { clusters: BTreeMap::new(), homes: Vec::new(), paused: false };
        let mut names = Vec::new();
        for (name, address) in clusters {
            let name: ClusterName = name.as_ref().parse()?;
            if map.clusters.insert(name.clone(), address.into()).is_some() {
                return Err(invalid(format!("two clusters are called {name}")));
            }
            names.push(name);
        }
        if names.is_empty() {
            return Err(invalid("a map needs a cluster"));
        }
        let home = |slot: Slot| names[slot.index() * names.len() / Slot::COUNT].clone();
        map.homes = Slot::all().map(|slot| Home { cluster: home(slot), epoch: Epoch::default() }).collect();
        Ok(map)
    }

    /// Adds a cluster without slots, or gives one another address.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`]: the name is none.
    pub fn with_cluster(mut self, name: &str, address: impl Into<String>) -> Result<Self> {
        self.clusters.insert(name.parse()?, address.into());
        Ok(self)
    }

    /// Puts slots on a cluster.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`]: there is no such cluster.
    pub fn with_slots(mut self, name: &str, slots: &Slots) -> Result<Self> {
        let name = self.named(name)?;
        slots.iter().for_each(|slot| self.homes[slot.index()].cluster = name.clone());
        Ok(self)
    }

    /// Returns the names of the clusters.
    pub fn clusters(&self) -> impl Iterator<Item = &ClusterName> {
        self.clusters.keys()
    }

    /// Returns the name of a cluster that the map has.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`]: it has none of this name.
    pub fn named(&self, name: &str) -> Result<ClusterName> {
        self.clusters.keys().find(|cluster| cluster.as_str() == name).cloned().ok_or_else(|| {
            let known: Vec<_> = self.clusters.keys().map(ClusterName::as_str).collect();
            invalid(format!("the map has no cluster {name:?}; it has {}", known.join(", ")))
        })
    }

    /// Returns where a cluster is.
    #[must_use]
    pub fn address(&self, cluster: &ClusterName) -> Option<&str> {
        self.clusters.get(cluster).map(String::as_str)
    }

    /// Returns the cluster of a slot.
    #[must_use]
    pub fn home(&self, slot: Slot) -> &ClusterName {
        &self.homes[slot.index()].cluster
    }

    /// Returns the epoch in which a slot was last seen open.
    #[must_use]
    pub fn epoch(&self, slot: Slot) -> Epoch {
        self.homes[slot.index()].epoch
    }

    /// Returns the slot of a key, and its cluster.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`]: no such key can be.
    pub fn find(&self, key: &str) -> Result<(Slot, &ClusterName)> {
        let slot = Slot::of(&Key::new(key)?);
        Ok((slot, self.home(slot)))
    }

    /// Returns the slots of a cluster.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`]: there is no such cluster.
    pub fn slots_on(&self, name: &str) -> Result<Slots> {
        let name = self.named(name)?;
        Ok(Slots(Slot::all().filter(|slot| *self.home(*slot) == name).collect()))
    }

    /// Returns whether moves are paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    pub(crate) fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
    }

    pub(crate) fn set_home(&mut self, slot: Slot, cluster: ClusterName, epoch: Epoch) {
        self.homes[slot.index()] = Home { cluster, epoch };
    }
}

impl From<ShardMap> for Written {
    fn from(map: ShardMap) -> Self {
        let has_slots = |name: &ClusterName| map.homes.iter().any(|home| home.cluster == *name);
        let slots = map.clusters.keys().filter(|name| has_slots(name));
        let mut epochs = BTreeMap::<u16, Vec<Slot>>::new();
        for slot in Slot::all().filter(|slot| map.epoch(*slot) != Epoch::default()) {
            epochs.entry(map.epoch(slot).number()).or_default().push(slot);
        }
        Self {
            slots: slots
                .map(|name| {
                    (name.to_string(), map.slots_on(name.as_str()).expect("a cluster of the map").to_string())
                })
                .collect(),
            clusters: map
                .clusters
                .iter()
                .map(|(name, address)| (name.to_string(), address.clone()))
                .collect(),
            epochs: epochs.into_iter().map(|(epoch, slots)| (epoch, Slots(slots).to_string())).collect(),
            paused: map.paused,
        }
    }
}

impl TryFrom<Written> for ShardMap {
    type Error = Error;

    fn try_from(written: Written) -> Result<Self> {
        let mut map = Self::even(written.clusters)?;
        let mut missing: Vec<_> = Slot::all().collect();
        for (name, slots) in &written.slots {
            let slots: Slots = slots.parse()?;
            if let Some(twice) = slots.iter().find(|slot| !missing.contains(slot)) {
                return Err(invalid(format!("slot {twice} is on two clusters")));
            }
            missing.retain(|slot| !slots.contains(slot));
            map = map.with_slots(name, &slots)?;
        }
        if !missing.is_empty() {
            return Err(invalid(format!("slots {} are on no cluster", Slots(missing))));
        }
        for (epoch, slots) in &written.epochs {
            let epoch = Epoch::new(*epoch).ok_or_else(|| invalid(format!("there is no epoch {epoch}")))?;
            slots.parse::<Slots>()?.iter().for_each(|slot| map.homes[slot.index()].epoch = epoch);
        }
        map.paused = written.paused;
        Ok(map)
    }
}

/// Some slots, written as `0-127,200`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slots(Vec<Slot>);

impl Slots {
    /// Returns all slots.
    #[must_use]
    pub fn all() -> Self {
        Self(Slot::all().collect())
    }
}

impl FromIterator<Slot> for Slots {
    fn from_iter<I: IntoIterator<Item = Slot>>(slots: I) -> Self {
        let mut slots: Vec<_> = slots.into_iter().collect();
        slots.sort_unstable();
        slots.dedup();
        Self(slots)
    }
}

impl Deref for Slots {
    type Target = [Slot];

    fn deref(&self) -> &[Slot] {
        &self.0
    }
}

impl FromStr for Slots {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong =
            || invalid(format!("{text:?} is no list of slots such as 0-127,200; they go from 0 to 255"));
        let slot = |number: &str| number.trim().parse().ok().and_then(Slot::new).ok_or_else(wrong);
        let range = |part: &str| -> Result<RangeInclusive<usize>> {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (slot(first)?.index(), slot(last)?.index());
            if first > last { Err(wrong()) } else { Ok(first..=last) }
        };
        let ranges = text.split(',').map(range).collect::<Result<Vec<_>>>()?;
        Ok(ranges.into_iter().flatten().filter_map(Slot::new).collect())
    }
}

impl fmt::Display for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<_> = self.iter().map(|slot| slot.index()).collect();
        let ranges = numbers.chunk_by(|one, next| one + 1 == *next).map(|range| match range {
            [one] => one.to_string(),
            range => format!("{}-{}", range[0], range[range.len() - 1]),
        });
        f.write_str(&ranges.collect::<Vec<_>>().join(","))
    }
}

fn invalid(problem: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, problem).without_effect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_read_as_it_was_written() {
        let mut map = ShardMap::even([("a", "etcd:x:1"), ("b", "etcd:y:1"), ("c", "etcd:z:1")]).unwrap();
        map.set_home(Slot::new(7).unwrap(), map.named("b").unwrap(), Epoch::new(3).unwrap());
        map.set_paused(true);
        let text = serde_json::to_string(&map).unwrap();
        assert_eq!(serde_json::from_str::<ShardMap>(&text).unwrap(), map, "{text}");
    }

    #[test]
    fn what_is_no_map_is_refused_with_the_reason() {
        for (slots, reason) in [
            (r#"{"a":"0-254"}"#, "slots 255 are on no cluster"),
            (r#"{"a":"0-255","b":"3"}"#, "slot 3 is on two clusters"),
            (r#"{"a":"0-256"}"#, "no list of slots"),
            (r#"{"c":"0-255"}"#, "no cluster \"c\""),
        ] {
            let text = format!(r#"{{"clusters":{{"a":"x","b":"y"}},"slots":{slots}}}"#);
            let error = serde_json::from_str::<ShardMap>(&text).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
    }

    #[test]
    fn slots_are_written_as_ranges() {
        let slots: Slots = "3,0-1, 200 ,201,202".parse().unwrap();
        assert_eq!(slots.to_string(), "0-1,3,200-202");
        assert!("2-1".parse::<Slots>().is_err() && "".parse::<Slots>().is_err());
    }
}
