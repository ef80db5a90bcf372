//! Slots on several independent servers: a marker as a register that they agree on, and copies of holds as votes
//! without an end.

use std::sync::Arc;

use futures_util::StreamExt;
use lock_core::{
    Error, Key, Locker, Options, Result,
    backend::{BootInstant, Claim, Effect, Leased},
    movable::{Epoch, Marker, MovableLease, NotOpen, Slot, SlotHold, SlotStore},
};
use lock_redis::{Target, held};

use crate::{
    RedlockLocker, RedlockStore,
    census::{self, Wanted},
    gate::Slots,
    markers::Markers,
    names::{RedlockNames, of_queue},
    register::register_of,
    requests::{ADOPT, DROP_COPY, HANDED_ON, PUT_COPIES, Reply, Request, Said},
    servers::{Asked, indexed},
    value,
    voter::Voter,
};

/// So many copies are put there by one request.
const MOST_COPIES: usize = 200;

/// How often a request is put again to servers that lagged behind.
const MOST_AGAIN: usize = 3;

impl RedlockLocker {
    /// Connects as [`connect`](Self::connect) does, to one cluster of a lock space that is spread over several: keys
    /// are granted only while the marker of their slot says so. Users connect through `lock-sharded`.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    ///
    /// # Cancel safety
    ///
    /// As [`connect`](Self::connect).
    pub async fn connect_movable<T>(targets: impl IntoIterator<Item = T>, options: Options) -> Result<Self>
    where
        T: TryInto<Target>,
        Error: From<T::Error>,
    {
        let targets = targets.into_iter().map(TryInto::try_into).collect::<Result<Vec<Target>, _>>()?;
        let mut store = RedlockStore::connect(targets, RedlockNames::by_slot(&options)?, &options).await?;
        store.slots = Slots::movable(Markers::new(&store.servers, &store.recovery));
        Ok(Self(Locker::new(Leased::new(store, &options)?)))
    }
}

/// What servers said to a request that a majority has to say yes to.
#[derive(Default)]
struct Answers {
    yes: usize,
    none: usize,
    closed: usize,
    forgot: usize,
    failures: Vec<Error>,
}

impl RedlockStore {
    fn count(&self, answers: &mut Answers, index: usize, reply: Reply<Said>) {
        match reply.map(|answer| answer.value) {
            Ok((word, _)) if word == "yes" => answers.yes += 1,
            Ok((word, _)) if word == "none" => answers.none += 1,
            Ok((word, _)) if word == "closed" => answers.closed += 1,
            Ok((_, mark)) => {
                answers.forgot += 1;
                self.slots.markers().registers.notice(index, &mark);
            }
            Err(error) => answers.failures.push(error),
        }
    }

    /// Puts some copies there; `false` if the slot is not being prepared.
    async fn put_some(&self, slot: Slot, preparing: &Marker, copies: &[SlotHold]) -> Result<bool> {
        let epoch = preparing.epoch();
        let mut keys = vec![self.servers.names.memory.clone()];
        let mut arguments = vec![register_of(slot), preparing.to_string()];
        for copy in copies {
            if let Some(value) = value::copied(copy, epoch) {
                keys.push(self.names(&copy.key).lock().to_owned());
                arguments.push(value);
            }
        }
        let majority = self.servers.majority();
        for again in 1.. {
            let (mut answers, sent) = (Answers::default(), BootInstant::now());
            let request = Request { script: &PUT_COPIES, keys: keys.clone(), arguments: arguments.clone() };
            let hear = |index, reply| {
                self.count(&mut answers, index, reply);
                (answers.yes >= majority).then_some(())
            };
            self.servers.until(request, hear).await;
            // What was put a lease ago may have been forgotten, by a server that has its vote back.
            if BootInstant::now().since(sent) > self.servers.limit {
                return Err(Error::no_answer(self.servers.limit));
            }
            if answers.yes >= majority {
                return Ok(true);
            }
            // Those who lag behind are told by the question.
            if self.slots.markers().read(slot).await?.as_ref() != Some(preparing) {
                return Ok(false);
            }
            if answers.closed == 0 || again == MOST_AGAIN {
                return Err(self.servers.unavailable(answers.forgot, answers.failures));
            }
        }
        unreachable!("the last one returns")
    }
}

impl SlotStore for RedlockStore {
    async fn identity(&self) -> Result<String> {
        let id = self.slots.markers().identity().await?;
        Ok(format!("Redis servers {id}, prefix {}", self.servers.names.slots()))
    }

    async fn markers(&self) -> Result<Vec<(Slot, Marker)>> {
        self.slots.markers().read_all().await
    }

    async fn marker(&self, slot: Slot) -> Result<Option<Marker>> {
        self.slots.markers().read(slot).await
    }

    async fn change_marker(&self, slot: Slot, from: Option<&Marker>, to: &Marker) -> Result<bool> {
        self.slots.markers().change(slot, from, to).await
    }

    async fn holds(&self, slot: Slot, key: Option<&Key>) -> Result<Vec<SlotHold>> {
        let markers = self.slots.markers();
        let (prefix, register) = (self.servers.names.slot(slot), register_of(slot));
        let agreed = markers.agreed(slot).await?;
        let epoch = agreed.as_ref().map(|agreed| agreed.value.parse::<Marker>()).transpose()?;
        let epoch = epoch.as_ref().map(Marker::epoch);
        let wanted = match key {
            Some(key) => Wanted::Name(self.names(key).lock().to_owned()),
            None => Wanted::Below(prefix.clone()),
        };
        let told = agreed.as_ref().map(|agreed| (register.as_str(), agreed));
        let servers = self.servers.voters.len();
        let mut looks = 0;
        loop {
            let notice = |index, mark: &str| markers.registers.notice(index, mark);
            // The last one to answer may tell which of two is a hold.
            let heard = census::take(&self.servers, &wanted, told, looks > 0, notice).await?;
            looks += 1;
            match census::holds(servers, &prefix, &heard, epoch) {
                Err(error) if error.is_transient() && looks < MOST_AGAIN => {
                    tracing::debug!(%slot, %error, "a census is taken again");
                }
                told => return told,
            }
        }
    }

    async fn put_copies(&self, slot: Slot, preparing: &Marker, copies: &[SlotHold]) -> Result<bool> {
        if self.marker(slot).await?.as_ref() != Some(preparing) {
            return Ok(false);
        }
        for some in copies.chunks(MOST_COPIES) {
            if !self.put_some(slot, preparing, some).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn drop_copy(&self, _: Slot, copy: &SlotHold) -> Result<()> {
        let Some(label) = &copy.copy else { return Ok(()) };
        let names = self.names(&copy.key);
        let request = Request {
            script: &DROP_COPY,
            keys: of_queue(&names),
            arguments: vec![held(copy.owner, copy.token), label.to_string()],
        };
        let (mut done, mut handed_on, mut failures) = (0, false, Vec::new());
        let hear = |_, reply: Reply<u8>| {
            match reply {
                Ok(answer) => {
                    done += 1;
                    handed_on |= answer.value & HANDED_ON != 0;
                }
                Err(error) => failures.push(error),
            }
            (done >= self.servers.majority()).then_some(())
        };
        let is_dropped = self.servers.until(request, hear).await;
        if handed_on {
            self.reservations.watch(&names);
        }
        match is_dropped {
            Some(()) => Ok(()),
            None => Err(self.servers.unavailable(0, failures)),
        }
    }
}

impl RedlockStore {
    /// Asks all servers to give the copy of a hold a lease.
    async fn adopt_once(&self, claim: &Claim, epoch: Epoch) -> Answers {
        let request = Arc::new(Request {
            script: &ADOPT,
            keys: vec![self.names(claim.key()).lock().to_owned(), self.servers.names.memory.clone()],
            arguments: vec![
                claim.owner().to_string(),
                claim.ttl().as_millis().to_string(),
                epoch.to_string(),
                register_of(Slot::of(claim.key())),
            ],
        });
        // As votes are asked for, so that whatever ends the hold goes wherever this may still arrive.
        let ask = |(index, voter): (usize, &Arc<Voter>)| {
            let (voter, request) = (Arc::clone(voter), Arc::clone(&request));
            indexed(index, async move { voter.in_time(voter.claim(&request)).await })
        };
        let mut pending: Asked<Said> = self.servers.enumerated().map(ask).collect();
        let (mut answers, majority) = (Answers::default(), self.servers.majority());
        while let Some((index, reply)) = pending.next().await {
            self.count(&mut answers, index, reply);
            if answers.yes >= majority || answers.none >= majority {
                break;
            }
        }
        answers
    }
}

impl MovableLease for RedlockStore {
    async fn adopt(&self, claim: &Claim, epoch: Epoch) -> Result<bool> {
        let (slot, majority) = (Slot::of(claim.key()), self.servers.majority());
        let mut effect = Effect::None;
        for again in 1.. {
            let answers = self.adopt_once(claim, epoch).await;
            if answers.yes >= majority {
                return Ok(true);
            }
            if answers.none >= majority {
                return Ok(false);
            }
            let done = if answers.yes > 0 { Effect::Possible } else { Effect::None };
            effect = answers.failures.iter().fold(effect.and(done), |effect, one| effect.and(one.effect()));
            if answers.closed > 0 {
                // Those who lag behind are told by the question.
                let marker = self.marker(slot).await.map_err(|error| error.with_effect(effect))?;
                if marker.as_ref().and_then(Marker::open) != Some(epoch) {
                    return Err(NotOpen { slot, marker }.error(effect));
                }
            }
            if answers.closed == 0 || again == MOST_AGAIN {
                return Err(self.servers.unavailable(answers.forgot, answers.failures).with_effect(effect));
            }
        }
        unreachable!("the last one returns")
    }
}
