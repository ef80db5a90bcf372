//! A look at what all servers know of registers.

use std::collections::{BTreeMap, BTreeSet};

use lock_core::{Error, ErrorKind, Result};

use crate::{
    register::{Ballot, Known, Proposal, agreed},
    requests::{REGISTERS, Told},
    servers::Servers,
};

/// What servers know of registers, by name, as far as they have answered.
pub(crate) struct Look {
    pub(crate) known: Vec<(usize, BTreeMap<String, Known>)>,
}

impl Look {
    /// Asks what all servers know of one register, or of all.
    ///
    /// # Errors
    ///
    /// Fewer than a majority have their votes and answered.
    pub(crate) async fn at(
        servers: &Servers,
        only: Option<&str>,
        mut forgot: impl FnMut(usize, &str),
    ) -> Result<Self> {
        let request = servers.to_memory(&REGISTERS, vec![only.unwrap_or_default().to_owned()]);
        let asked = servers.ask_all::<Told>(request);
        let mut look = Self { known: Vec::new() };
        let (mut lost, mut failures) = (0, Vec::new());
        for (index, reply) in servers.collect(asked, |(word, ..)| word == "yes").await {
            match reply.map(|answer| answer.value) {
                Ok((word, _, told)) if word == "yes" => {
                    look.known.push((index, read(&told).ok_or_else(foreign)?));
                }
                Ok((_, mark, _)) => {
                    lost += 1;
                    forgot(index, &mark);
                }
                Err(error) => failures.push(error),
            }
        }
        if look.known.len() < servers.majority() {
            return Err(servers.unavailable(lost, failures));
        }
        Ok(look)
    }

    /// Returns the names of all registers that any server knows.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.known.iter().flat_map(|(_, known)| known.keys().cloned()).collect()
    }

    /// Returns all that is known of a register, by any of the servers.
    pub(crate) fn merged(&self, name: &str) -> Known {
        let mut merged = Known::default();
        self.known.iter().filter_map(|(_, known)| known.get(name)).for_each(|known| merged.merge(known));
        merged
    }

    /// Returns what was agreed on last, if that is certain; see [`agreed`].
    pub(crate) fn agreed(&self, name: &str, majority: usize) -> Option<Option<Proposal>> {
        let nothing = Known::default();
        let known: Vec<_> = self.known.iter().map(|(_, known)| known.get(name).unwrap_or(&nothing)).collect();
        agreed(&known, majority).map(Option::<&Proposal>::cloned)
    }

    /// Returns whether a server does not have what was agreed on.
    pub(crate) fn lags(&self, name: &str, agreed: &Proposal) -> bool {
        self.have_not(name, Some(agreed)).next().is_some()
    }

    /// Returns whether one of them cannot be told of it either, since it has promised to wait for a larger ballot: that
    /// of a change which is under way, or which somebody left unfinished.
    pub(crate) fn is_disputed(&self, name: &str, agreed: Option<&Proposal>) -> bool {
        let ballot = agreed.map(|agreed| agreed.ballot).unwrap_or_default();
        self.have_not(name, agreed).any(|known| known.promised > ballot)
    }

    fn have_not(&self, name: &str, agreed: Option<&Proposal>) -> impl Iterator<Item = Known> {
        let known = self.known.iter().map(|(_, known)| known.get(name).cloned().unwrap_or_default());
        known.filter(move |known| !(known.is_settled() && known.accepted.as_ref() == agreed))
    }
}

/// Reads what `registers.lua` tells.
fn read(told: &[String]) -> Option<BTreeMap<String, Known>> {
    let proposal = |text: &str| match text {
        "" => Some(None),
        text => Proposal::parse(text).map(Some),
    };
    let (all, rest) = told.as_chunks::<4>();
    let known = all.iter().map(|[name, promised, accepted, learned]| {
        let accepted = proposal(accepted)?;
        let learned = if learned == "=" { accepted.clone() } else { proposal(learned)? };
        Some((name.clone(), Known { promised: Ballot::parse(promised)?, accepted, learned }))
    });
    known.collect::<Option<_>>().filter(|_| rest.is_empty())
}

/// The error of who finds something in a register that is none of ours.
pub(crate) fn foreign() -> Error {
    let message = "what a server remembers of slots cannot be read; does another program use the prefix?";
    Error::new(ErrorKind::UnsafeConfig, message)
}
