//! What is under way still when a majority has answered. Nobody waits for it, and it comes to its end all the same.

use std::{
    collections::HashMap,
    future::{self, poll_fn},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::StreamExt;
use lock_core::backend::{BoxFuture, Claim, OwnerId};
use parking_lot::Mutex;
use tokio::time::{self, Instant};

use crate::{
    recovery::AmnesiaRecovery,
    requests::{Request, VoteReply, forgotten, is_busy},
    servers::{Asked, Servers, indexed},
};

/// How often servers are asked again on behalf of one claim.
const MOST_AGAIN: usize = 20;

/// The least time between two looks at what has come. Most of it has come within less, so that nothing wakes a task.
const LOOK: Duration = Duration::from_millis(20);

/// The last votes for claims that are held already, which a renewal may need, and the last answers to releases.
pub(crate) struct Unfinished {
    servers: Arc<Servers>,
    recovery: Arc<AmnesiaRecovery>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    votes: HashMap<OwnerId, LateVotes>,
    answers: Vec<(Instant, BoxFuture<'static, ()>)>,
    /// Whether a task looks.
    is_seen_to: bool,
}

struct LateVotes {
    until: Instant,
    pending: Asked<VoteReply>,
    request: Arc<Request>,
    again: usize,
}

impl Unfinished {
    pub(crate) fn new(servers: Arc<Servers>, recovery: Arc<AmnesiaRecovery>) -> Arc<Self> {
        Arc::new(Self { servers, recovery, state: Mutex::default() })
    }

    /// Goes on collecting votes: those of `pending`, and of those who `refused`, where another was just giving its vote
    /// back.
    pub(crate) fn collect_votes(
        self: &Arc<Self>,
        claim: &Claim,
        request: Arc<Request>,
        pending: Asked<VoteReply>,
        refused: impl IntoIterator<Item = usize>,
    ) {
        let until = Instant::now() + self.servers.patience();
        let mut late = LateVotes { until, pending, request, again: MOST_AGAIN };
        refused.into_iter().for_each(|index| late.ask_again(index, &self.servers));
        if !late.pending.is_empty() {
            self.add(|state| state.votes.insert(claim.owner(), late));
        }
    }

    /// Makes sure that no request for a vote is sent any more, so that what frees the vote is the last.
    pub(crate) fn stop_votes(&self, claim: &Claim) {
        let late = self.state.lock().votes.remove(&claim.owner());
        if let Some(mut late) = late {
            // What was answered is no longer open, and what is dropped is.
            while let Poll::Ready(Some(_)) =
                late.pending.poll_next_unpin(&mut Context::from_waker(Waker::noop()))
            {}
        }
    }

    /// Hears the rest of the answers.
    pub(crate) fn hear<T: Send + 'static>(self: &Arc<Self>, pending: Asked<T>) {
        if !pending.is_empty() {
            let until = Instant::now() + self.servers.patience();
            let heard = Box::pin(pending.for_each(|_| future::ready(())));
            self.add(|state| state.answers.push((until, heard)));
        }
    }

    fn add<T>(self: &Arc<Self>, add: impl FnOnce(&mut State) -> T) {
        let mut state = self.state.lock();
        add(&mut state);
        if !std::mem::replace(&mut state.is_seen_to, true) {
            self.servers.runtime.spawn(Arc::clone(self).see_to_it());
        }
    }

    async fn see_to_it(self: Arc<Self>) {
        let every = LOOK.min(self.servers.patience() / 8);
        loop {
            time::sleep(every).await;
            let mut next = std::pin::pin!(time::sleep(every));
            let done = poll_fn(|context| match self.state.lock().look(context, &self) {
                true => Poll::Ready(true),
                false => next.as_mut().poll(context).map(|()| false),
            });
            if done.await {
                return;
            }
        }
    }
}

impl State {
    /// Takes what has come; returns whether nothing is left. What is late is given up.
    fn look(&mut self, context: &mut Context<'_>, of: &Unfinished) -> bool {
        let now = Instant::now();
        self.votes.retain(|_, late| late.is_open(context, of, now));
        self.answers.retain_mut(|(until, heard)| heard.as_mut().poll(context).is_pending() && now < *until);
        self.is_seen_to = !(self.votes.is_empty() && self.answers.is_empty());
        !self.is_seen_to
    }
}

impl LateVotes {
    fn is_open(&mut self, context: &mut Context<'_>, of: &Unfinished, now: Instant) -> bool {
        loop {
            match self.pending.poll_next_unpin(context) {
                Poll::Ready(Some((index, reply))) if is_busy(&reply) => self.ask_again(index, &of.servers),
                Poll::Ready(Some((index, reply))) => {
                    if let Some(mark) = forgotten(&reply) {
                        of.recovery.notice(index, mark);
                    }
                }
                Poll::Ready(None) => return false,
                Poll::Pending => return now < self.until,
            }
        }
    }

    fn ask_again(&mut self, index: usize, servers: &Servers) {
        if self.again > 0 {
            self.again -= 1;
            let voter = Arc::clone(&servers.voters[index]);
            // Each of these is bounded by itself.
            self.until = Instant::now() + 2 * servers.patience();
            self.pending.push(indexed(index, voter.claim_again(Arc::new(self.request.of_holder()))));
        }
    }
}
