//! What a server must be told besides tokens and TTLs before it gets its vote back: what all have promised and agreed
//! on of slots. Without the feature `movable` there is nothing of that.

#[cfg(feature = "movable")]
pub(crate) use self::of_slots::to_restore;
#[cfg(not(feature = "movable"))]
pub(crate) use self::without_slots::to_restore;

#[cfg(feature = "movable")]
mod of_slots {
    use lock_core::{
        Error, ErrorKind, Result,
        movable::{Marker, Slot},
    };

    use crate::{
        census,
        look::Look,
        register::{Known, register_of},
        servers::Servers,
    };

    /// Returns fields of registers with what is to be in them: of each the most that any of a majority knows. A server
    /// that is told so is like one to which all that it has forgotten came late; and nobody counts any more on a
    /// promise that it gave to one of less, since no round lasts as long as a lease.
    ///
    /// Where nobody `remembers`, nothing is told: what was agreed on is lost, and nothing is granted.
    ///
    /// # Errors
    ///
    /// No majority has its votes and answers, or has copies of holds that can still be taken over. Those have no lease
    /// that could have ended meanwhile, and the server may have had a vote for one of them.
    pub(crate) async fn to_restore(servers: &Servers, remembers: bool) -> Result<Vec<String>> {
        if !(servers.names.are_by_slot && remembers) {
            return Ok(Vec::new());
        }
        let look = Look::at(servers, None, |_, _| {}).await?;
        let known = look.names().into_iter().map(|name| (look.merged(&name), name));
        let known: Vec<_> = known.map(|(known, name)| (name, known)).collect();
        wait_for_copies(servers, &known).await?;
        let fields = known.into_iter().flat_map(|(name, known)| {
            let texts = [
                ("promised", Some(known.promised.to_string())),
                ("accepted", known.accepted.map(|accepted| accepted.to_string())),
                ("learned", known.learned.map(|learned| learned.to_string())),
            ];
            let field = move |(what, text): (&str, Option<String>)| Some([format!("{name} {what}"), text?]);
            texts.into_iter().filter_map(field).flatten().collect::<Vec<_>>()
        });
        Ok(fields.collect())
    }

    async fn wait_for_copies(servers: &Servers, known: &[(String, Known)]) -> Result<()> {
        let wanted = census::Wanted::CopiesBelow(servers.names.slots());
        let heard = census::take(servers, &wanted, None, true, |_, _| {}).await?;
        if heard.iter().all(std::collections::HashMap::is_empty) {
            return Ok(());
        }
        for slot in Slot::all() {
            let prefix = servers.names.slot(slot);
            let of_slot = heard.iter().map(|names| {
                let of_slot = names.iter().filter(|(name, _)| name.starts_with(&prefix));
                of_slot.map(|(name, value)| (name.clone(), value.clone())).collect()
            });
            let register = register_of(slot);
            let marker = known.iter().find(|(name, _)| *name == register);
            let marker = marker.and_then(|(_, known)| known.accepted.as_ref());
            let marker = marker.map(|accepted| accepted.value.parse::<Marker>()).transpose()?;
            let can_be_taken_over = !matches!(marker, Some(Marker::Cancelled { .. }));
            let (count, epoch) = (servers.voters.len(), marker.as_ref().map(Marker::epoch));
            if can_be_taken_over && census::has_copies(count, &prefix, &of_slot.collect(), epoch)? {
                let message =
                    "copies of holds wait to be taken over, and who lost its data may have had some";
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
        }
        Ok(())
    }
}

#[cfg(not(feature = "movable"))]
mod without_slots {
    use lock_core::Result;

    use crate::servers::Servers;

    pub(crate) async fn to_restore(_: &Servers, _: bool) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}
