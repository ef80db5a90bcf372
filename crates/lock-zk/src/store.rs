//! The requests of the lock: to join a queue, to leave it, and to ask whether one is still in it.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use lock_core::{
    Capabilities, Error, ErrorKind, FencingToken, LossReason, Options, Result, Scope, TokenOrder, Waiting,
    backend::{AcquireReply, Claim, Effect, LeaseStore, LeaseTiming, OwnerId, Released, Renewal, Validity},
};
use parking_lot::Mutex;
use zookeeper_client::{Client, CreateMode, Error as ZkError, MultiWriteError};

use crate::{
    Target,
    ensemble::Ensemble,
    failure,
    names::{self, Member, Prefix},
    session::{Room, Session, vote},
    sessions::Sessions,
};

/// Locks as queues of nodes. Users see the [`ZkLocker`](crate::ZkLocker) around it.
pub struct Zk {
    sessions: Arc<Sessions>,
    prefix: Prefix,
    places: Mutex<HashMap<OwnerId, Arc<Place>>>,
}

/// The place of one claim in a queue, from before its node is asked for until the node is known to be gone.
pub(crate) struct Place {
    room: Room,
    owner: OwnerId,
    queue: String,
    /// Known once the create was answered.
    node: OnceLock<Node>,
    validity: Arc<Validity>,
}

/// The node of a place.
pub(crate) struct Node {
    pub(crate) path: String,
    pub(crate) token: FencingToken,
}

/// A place whose node is there, and those before it when it was looked at, the nearest last.
pub(crate) struct Joined {
    pub(crate) place: Arc<Place>,
    pub(crate) ahead: Vec<Member>,
}

impl Zk {
    pub(crate) async fn connect(target: &Target, options: &Options, timing: LeaseTiming) -> Result<Self> {
        let prefix = Prefix::new(options.prefix())?;
        let sessions = Sessions::new(Ensemble::new(target, &timing)?, timing)?;
        sessions.room(0).await?;
        Ok(Self { sessions, prefix, places: Mutex::default() })
    }

    /// Puts a node of `claim` at the end of its queue and looks who is before it.
    pub(crate) async fn join(&self, claim: &Claim) -> Result<Joined> {
        let queue = self.prefix.queue(claim.key());
        // Its own node and the one before it may be watched.
        let room = self.sessions.room(2 * names::longest_path(&queue)).await?;
        let validity = Arc::new(Validity::within(Arc::clone(room.session().validity())));
        let place = Place { room, owner: claim.owner(), queue, node: OnceLock::new(), validity };
        let client = self.client_of(&place)?;
        let place = Arc::new(place);
        // From here on an undo has something to do.
        self.places.lock().insert(claim.owner(), Arc::clone(&place));
        let joined = self.create_and_look(&client, &place).await;
        if joined.as_ref().is_err_and(|error| error.effect() == Effect::None) {
            self.forget(claim);
        }
        Ok(Joined { ahead: joined?, place })
    }

    async fn create_and_look(&self, client: &Client, place: &Place) -> Result<Vec<Member>> {
        let stem = names::stem(&place.queue, place.owner);
        let ephemeral = CreateMode::EphemeralSequential.with_acls(self.sessions.ensemble().acls());
        loop {
            // Both requests are sent before either answer is awaited; a session's requests are executed in order.
            let created = client.create(&stem, &[], &ephemeral);
            let listed = client.list_children(&place.queue);
            let (stat, sequence) = match created.await {
                Ok(created) => created,
                Err(ZkError::NoNode) => {
                    self.make_queue(client, &place.queue).await?;
                    continue;
                }
                Err(error) => return Err(self.failed(error)),
            };
            let token = u64::try_from(stat.czxid).map_err(|error| {
                let message = "the server did not tell the transaction that created the node; locks need ZooKeeper 3.5.3 or newer";
                Error::new(ErrorKind::Unsupported, message).with_source(error)
            })?;
            let node = Node { path: format!("{stem}{sequence}"), token: FencingToken::new(token) };
            assert!(place.node.set(node).is_ok(), "a node is created once per place");
            // The node is there, so from here on no error may say that nothing was done.
            let children = listed.await.map_err(|error| self.interrupted(error))?;
            return self.ahead(place, children);
        }
    }

    async fn make_queue(&self, client: &Client, queue: &str) -> Result<()> {
        let container = CreateMode::Container.with_acls(self.sessions.ensemble().acls());
        match client.mkdir(queue, &container).await {
            Ok(()) => Ok(()),
            Err(ZkError::NoNode) => {
                let message = "the chroot in the address does not exist; create it first";
                Err(Error::new(ErrorKind::UnsafeConfig, message).with_server(self.servers()).without_effect())
            }
            Err(error) => Err(self.failed(error).without_effect()),
        }
    }

    /// Looks again who is before `place`.
    pub(crate) async fn look(&self, place: &Place) -> Result<Vec<Member>> {
        let children = self.client_of(place)?.list_children(&place.queue).await;
        self.ahead(place, children.map_err(|error| self.interrupted(error))?)
    }

    fn ahead(&self, place: &Place, children: Vec<String>) -> Result<Vec<Member>> {
        let mut members = Vec::with_capacity(children.len());
        for name in children {
            members.extend(Member::parse(name)?);
        }
        let Some(own) = members.iter().find(|member| member.is_of(place.owner)).cloned() else {
            place.validity.end(LossReason::NotOwner);
            return Err(self.place_lost(place));
        };
        members.retain(|member| member.lead_over(&own) > 0);
        members.sort_by_key(|member| std::cmp::Reverse(member.lead_over(&own)));
        Ok(members)
    }

    pub(crate) fn client_of(&self, place: &Place) -> Result<Arc<Client>> {
        place.session().client().ok_or_else(|| failure::session_over(self.servers()))
    }

    fn servers(&self) -> &str {
        self.sessions.ensemble().servers()
    }

    fn failed(&self, error: ZkError) -> Error {
        failure::of_request(error, self.servers())
    }

    /// The failure of a request that follows others which had an effect.
    fn interrupted(&self, error: ZkError) -> Error {
        let message = "the place in the queue was taken, and then could not be looked at";
        let cause = self.failed(error);
        Error::new(cause.kind(), message).with_server(self.servers()).with_source(cause)
    }

    /// Why a place is one no longer.
    pub(crate) fn place_lost(&self, place: &Place) -> Error {
        if place.session().client().is_none() {
            return failure::session_over(self.servers());
        }
        let message = "the place in the queue is gone: somebody deleted it, or the session is just ending";
        Error::new(ErrorKind::Unavailable, message).with_server(self.servers())
    }

    fn place(&self, claim: &Claim) -> Option<Arc<Place>> {
        self.places.lock().get(&claim.owner()).cloned()
    }

    fn forget(&self, claim: &Claim) {
        self.places.lock().remove(&claim.owner());
    }

    /// Deletes whatever node `place` has or may yet get.
    async fn clear(&self, client: &Client, place: &Place) -> Result<(), ZkError> {
        if let Some(node) = place.node() {
            return client.delete(&node.path, None).await;
        }
        // The create may have been executed or not, by a server that is no longer the one that answers: only after a vote do we
        // see all that came of it. (A `sync` would not do: a leader answers it before what is still being voted on.) It cannot
        // do anything later, since servers refuse what comes over an older connection of a session.
        let (voted, listed) = (vote(client), client.list_children(&place.queue));
        voted.await?;
        for member in listed.await?.into_iter().filter_map(|name| Member::parse(name).ok().flatten()) {
            if member.is_of(place.owner) {
                client.delete(&place.path_of(&member), None).await?;
            }
        }
        Ok(())
    }
}

impl Place {
    pub(crate) fn session(&self) -> &Arc<Session> {
        self.room.session()
    }

    pub(crate) fn node(&self) -> Option<&Node> {
        self.node.get()
    }

    pub(crate) fn validity(&self) -> &Arc<Validity> {
        &self.validity
    }

    pub(crate) fn path_of(&self, member: &Member) -> String {
        format!("{}/{}", self.queue, member.name)
    }

    /// What an acquire that is first in its queue returns.
    pub(crate) fn granted(&self) -> AcquireReply {
        let node = self.node().expect("whoever is first in the queue has a node");
        // Nobody is before it any more who could be watched.
        self.room.shrink_to(node.path.len());
        AcquireReply::Joined { token: node.token, validity: Arc::clone(&self.validity) }
    }
}

impl LeaseStore for Zk {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Scope::Servers, Waiting::Fifo, TokenOrder::Cluster)
    }

    async fn acquire(&self, claim: &Claim) -> Result<AcquireReply> {
        let Joined { place, ahead } = self.join(claim).await?;
        let client = self.client_of(&place)?;
        if !ahead.is_empty() {
            // A try that was refused should leave nothing, also nothing that waiters would be told of late.
            let left = matches!(self.clear(&client, &place).await, Ok(()) | Err(ZkError::NoNode));
            if left {
                self.forget(claim);
            }
            return Ok(AcquireReply::Busy {
                free_in: place.session().timeout(),
                effect: if left { Effect::None } else { Effect::Possible },
            });
        }
        let path = &place.node().expect("who has joined has a node").path;
        place.session().watch_own(&client, path, &place.validity, false);
        Ok(place.granted())
    }

    /// Nothing here is renewed but the session, by its supervisor.
    async fn renew(&self, _: &Claim) -> Result<Renewal> {
        Ok(Renewal::NotOwner)
    }

    async fn release(&self, claim: &Claim) -> Result<Released> {
        let Some(place) = self.place(claim) else { return Ok(Released::NotOwner) };
        let Some(client) = place.session().client() else { return Ok(Released::NotOwner) };
        let released = match self.clear(&client, &place).await {
            Ok(()) => Released::Freed,
            Err(ZkError::NoNode) => Released::NotOwner,
            Err(error) => return Err(self.failed(error)),
        };
        self.forget(claim);
        Ok(released)
    }

    async fn undo(&self, claim: &Claim) -> Result<()> {
        let Some(place) = self.place(claim) else { return Ok(()) };
        // With a session go its nodes.
        if let Some(client) = place.session().client() {
            match self.clear(&client, &place).await {
                Ok(()) | Err(ZkError::NoNode) => {}
                Err(error) if failure::is_of_session(&error) => {}
                Err(error) => {
                    let error = self.failed(error);
                    if error.is_transient() {
                        return Err(error);
                    }
                    tracing::warn!(%error, "a node cannot be deleted; it goes when its locker is dropped");
                }
            }
        }
        self.forget(claim);
        Ok(())
    }

    fn longest_trace(&self, _: &Claim) -> Duration {
        Duration::MAX
    }

    async fn verify(&self, claim: &Claim) -> Result<bool> {
        let Some(place) = self.place(claim) else { return Ok(false) };
        let Some(node) = place.node() else { return Ok(false) };
        let client = self.client_of(&place)?;
        // Unlike a read, it is put to the vote of the servers, and unlike a write it wakes nobody who watches.
        let mut check = client.new_multi_writer();
        check.add_check_version(&node.path, 0).map_err(|error| self.failed(error))?;
        match check.commit().await {
            Ok(_) => Ok(true),
            Err(MultiWriteError::OperationFailed { source: ZkError::NoNode, .. }) => Ok(false),
            Err(error) => Err(self.failed(error.into())),
        }
    }
}
