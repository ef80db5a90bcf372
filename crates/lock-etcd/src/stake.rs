//! What a claim has, or may have, on the servers: one place in one queue.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use etcd_client::Txn;
use lock_core::backend::{OwnerId, Validity};
use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::Notify};

use crate::{requests, session::Session};

/// A claim's place in the queue of its key, from the moment before the request for it is sent.
pub(crate) struct Stake {
    /// The name of the place in etcd.
    pub(crate) place: String,
    /// The session that the place depends on.
    pub(crate) session: Arc<Session>,
    /// Over when the place is seen to be gone, and with the session.
    pub(crate) validity: Arc<Validity>,
    state: Mutex<State>,
    landed: Notify,
}

#[derive(Default)]
struct State {
    /// Whether the request for the place is no longer under way.
    landed: bool,
    created: Option<i64>,
    unsure: bool,
    sentry: Sentry,
}

/// Whether the place is watched, so that its loss is noticed.
#[derive(Clone, Copy, Default)]
enum Sentry {
    #[default]
    None,
    /// By the watch with this number.
    Posted(i64),
    /// No longer, and never again.
    Dismissed,
}

/// What must be taken back.
enum Left {
    Nothing,
    /// The place that was made at this revision.
    Place(i64),
    /// Perhaps a place; and a copy of the request for it may arrive later.
    Perhaps,
}

impl Stake {
    pub(crate) fn new(place: String, session: Arc<Session>) -> Self {
        let validity = Arc::new(Validity::within(Arc::clone(&session.validity)));
        let (state, landed) = Default::default();
        Self { place, session, validity, state, landed }
    }

    /// Writes down how the request for the place ended.
    pub(crate) fn land(&self, created: Option<i64>, unsure: bool) {
        let mut state = self.state.lock();
        state.landed = true;
        state.created = created;
        state.unsure = unsure;
        self.landed.notify_waiters();
    }

    /// Waits until the request for the place is no longer under way, and tells what it left.
    async fn left(&self) -> Left {
        loop {
            let landed = self.landed.notified();
            {
                let state = self.state.lock();
                match (state.landed, state.created, state.unsure) {
                    (true, _, true) => return Left::Perhaps,
                    (true, Some(created), false) => return Left::Place(created),
                    (true, None, false) => return Left::Nothing,
                    (false, ..) => {}
                }
            }
            landed.await;
        }
    }

    /// The transaction that gives up what the request for the place left, if it left anything.
    pub(crate) async fn leaving(&self) -> Option<Txn> {
        match self.left().await {
            Left::Nothing => None,
            Left::Place(created) => Some(requests::leave(&self.place, created)),
            Left::Perhaps => {
                Some(requests::leave_and_fence(&self.place, &self.session.fence, self.session.lease))
            }
        }
    }

    /// The revision at which the place was made, once that is known.
    pub(crate) fn created(&self) -> Option<i64> {
        self.state.lock().created
    }

    /// Lets the watch with this number guard the place; not if the place was given up meanwhile.
    pub(crate) fn post_sentry(&self, watch: i64) -> bool {
        let mut state = self.state.lock();
        let wanted = matches!(state.sentry, Sentry::None);
        if wanted {
            state.sentry = Sentry::Posted(watch);
        }
        wanted
    }

    /// The place is to be given up; returns the watch that guarded it.
    pub(crate) fn dismiss_sentry(&self) -> Option<i64> {
        match std::mem::replace(&mut self.state.lock().sentry, Sentry::Dismissed) {
            Sentry::Posted(watch) => Some(watch),
            Sentry::None | Sentry::Dismissed => None,
        }
    }
}

/// All stakes of one locker.
#[derive(Default)]
pub(crate) struct Stakes(Mutex<HashMap<OwnerId, Arc<Stake>>>);

impl Stakes {
    pub(crate) fn insert(&self, owner: OwnerId, stake: &Arc<Stake>) {
        self.0.lock().insert(owner, Arc::clone(stake));
    }

    pub(crate) fn get(&self, owner: OwnerId) -> Option<Arc<Stake>> {
        self.0.lock().get(&owner).cloned()
    }

    /// Nothing is left of the claim.
    pub(crate) fn remove(&self, owner: OwnerId) {
        let stake = self.0.lock().remove(&owner);
        if let Some(stake) = stake {
            stake.session.watches.dismiss(&stake);
        }
    }
}

/// A request that is carried to its end in the background if its caller drops it, so that its outcome gets known.
///
/// Without this, each acquire that a caller gives up would have an unknown outcome, which is costly to undo.
pub(crate) struct Flight<T: Send + 'static> {
    request: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    runtime: Handle,
}

impl<T: Send + 'static> Flight<T> {
    pub(crate) fn new(request: impl Future<Output = T> + Send + 'static, runtime: &Handle) -> Self {
        Self { request: Some(Box::pin(request)), runtime: runtime.clone() }
    }
}

impl<T: Send + 'static> Future for Flight<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let request = self.request.as_mut().expect("a finished flight is not polled again");
        let polled = request.as_mut().poll(context);
        if polled.is_ready() {
            self.request = None;
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Flight<T> {
    fn drop(&mut self) {
        if let Some(request) = self.request.take() {
            self.runtime.spawn(async move {
                request.await;
            });
        }
    }
}
