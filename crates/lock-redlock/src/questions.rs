//! Questions that are put to all servers on behalf of slots: none is left out, since each may lag behind.

use std::{
    pin::pin,
    sync::{Arc, LazyLock},
};

use futures_util::StreamExt;
use lock_redis::Script;
use redis::FromRedisValue;
use tokio::time;

use crate::{
    requests::{Reply, Request},
    servers::{Asked, Servers, indexed},
    voter::Voter,
};

impl Servers {
    /// Makes a request that is about what servers remember.
    pub(crate) fn to_memory(&self, script: &'static LazyLock<Script>, arguments: Vec<String>) -> Request {
        Request { script, keys: vec![self.names.memory.clone()], arguments }
    }

    pub(crate) fn ask_all<T>(&self, request: Request) -> Asked<T>
    where
        T: FromRedisValue + Send + 'static,
    {
        let request = Arc::new(request);
        let ask = |(index, voter): (usize, &Arc<Voter>)| {
            indexed(index, Arc::clone(voter).ask(Arc::clone(&request)))
        };
        self.enumerated().map(ask).collect()
    }

    /// Hands over the answers until that is enough, or there are no more.
    pub(crate) async fn until<T, D>(
        &self,
        request: Request,
        mut hear: impl FnMut(usize, Reply<T>) -> Option<D>,
    ) -> Option<D>
    where
        T: FromRedisValue + Send + 'static,
    {
        let mut pending = self.ask_all(request);
        while let Some((index, reply)) = pending.next().await {
            if let Some(decision) = hear(index, reply) {
                return Some(decision);
            }
        }
        None
    }

    /// Returns all answers but of those who are much slower than a majority of the answers that count.
    pub(crate) async fn collect<T: Send + 'static>(
        &self,
        mut pending: Asked<T>,
        counts: impl Fn(&T) -> bool,
    ) -> Vec<(usize, Reply<T>)> {
        let started = time::Instant::now();
        let (mut replies, mut counted) = (Vec::new(), 0);
        let mut limit = pin!(time::sleep_until(started + 8 * self.limit));
        loop {
            tokio::select! {
                biased;
                reply = pending.next() => {
                    let Some((index, reply)) = reply else { return replies };
                    counted += usize::from(reply.as_ref().is_ok_and(|answer| counts(&answer.value)));
                    replies.push((index, reply));
                    if counted == self.majority() {
                        limit.as_mut().reset(time::Instant::now() + self.a_while(started.elapsed()));
                    }
                }
                () = &mut limit => return replies,
            }
        }
    }
}
