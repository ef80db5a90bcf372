//! The servers: they vote, forget, and learn what they have forgotten.

use super::{Action, Left, Recovery, Redlock, State, TTL, Tokens};

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Server {
    pub(super) held: Option<Held>,
    pub(super) counter: u8,
    /// Claims, and what ends them, that are under way, a bit for each attempt.
    pub(super) claims: u8,
    pub(super) ends: u8,
    /// Those who count its vote.
    pub(super) voted: u8,
    /// What a restart would leave.
    pub(super) saved: Option<(Option<Held>, u8)>,
    pub(super) restarted: bool,
    /// For how long it does not vote.
    pub(super) silent: u8,
    /// How many of the others it has to ask before it votes.
    pub(super) to_ask: u8,
    /// Whether it was asked.
    pub(super) told: bool,
}

/// What a server makes of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It votes for it; the count is its counter from now on.
    Vote(u8),
    /// It has voted for it.
    Repeated,
    /// It wants a larger token than this.
    Stale(u8),
    /// It votes for another, or has no vote.
    None,
}

/// A vote, as the server keeps it.
#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Held {
    pub(super) attempt: u8,
    pub(super) token: u8,
    pub(super) left: u8,
    /// Whether its clock has gained in this lease.
    gained: bool,
}

impl Held {
    fn after(self, ticks: u8) -> Option<Self> {
        let left = self.left.checked_sub(ticks).filter(|left| *left > 0)?;
        Some(Self { left, ..self })
    }
}

impl Server {
    pub(super) fn tick(&mut self) {
        self.silent = self.silent.saturating_sub(1);
        self.held = self.held.and_then(|held| held.after(1));
        if let Some((saved, _)) = &mut self.saved {
            *saved = saved.and_then(|held| held.after(1));
        }
    }

    pub(super) fn gain(&mut self) {
        self.held = self.held.and_then(|held| Held { gained: true, ..held }.after(1));
    }

    pub(super) fn votes(&self) -> bool {
        self.silent == 0 && self.to_ask == 0
    }

    /// Forgets the ends of attempts of which nothing is here and nothing can come.
    pub(super) fn forget_vain_ends(&mut self) {
        let held = self.held.map_or(0, |held| 1 << held.attempt);
        let saved = self.saved.and_then(|(held, _)| held).map_or(0, |held| 1 << held.attempt);
        self.ends &= self.claims | held | saved;
    }
}

impl Redlock {
    /// What may happen at a server.
    pub(super) fn happens(&self, state: &State, server: u8, actions: &mut Vec<Action>) {
        let it = &state.servers[usize::from(server)];
        for attempt in 0..4 {
            if it.claims & 1 << attempt != 0 && self.matters(state, it, attempt) {
                actions.push(Action::Vote { server, attempt });
            }
            // An end that ends nothing is as good as late.
            let is_own = |held: Held| self.is_one_owner(held.attempt, attempt);
            if it.ends & 1 << attempt != 0 && it.held.is_some_and(is_own) {
                actions.push(Action::End { server, attempt });
            }
        }
        if state.restarts > 0 {
            actions.push(Action::Restart(server));
            let has_saved = state.servers.iter().any(|server| server.saved.is_some());
            if self.left == Left::Older && !has_saved {
                actions.push(Action::Save(server));
            }
        }
        if it.to_ask > 0 && (self.recovery == Recovery::WaitsAndLearns || it.silent == 0) {
            let others = [0, 1, 2].into_iter().filter(|other| *other != server);
            let others = others.filter(|other| !state.servers[usize::from(*other)].told);
            actions.extend(others.map(|other| Action::Ask { server, other }));
        }
        if state.jumps > 0 && it.held.is_some() {
            actions.push(Action::Jump(server));
        }
        if self.drifts && it.held.is_some_and(|held| !held.gained) {
            actions.push(Action::Gain(server));
        }
    }

    fn is_one_owner(&self, attempt: u8, other: u8) -> bool {
        if self.has_fresh_owners { attempt == other } else { attempt / 2 == other / 2 }
    }

    /// What a server makes of a claim now.
    fn answer(&self, server: &Server, attempt: u8, token: u8) -> Answer {
        let own = server.held.filter(|held| self.is_one_owner(held.attempt, attempt));
        if !server.votes() || server.held.is_some() && own.is_none() {
            return Answer::None;
        }
        match (self.tokens, own) {
            (Tokens::Counted, _) => Answer::Vote(server.counter + 1),
            // The same claim again, or one that goes by an older token.
            (Tokens::Proposed, Some(held)) if held.token == token => Answer::Repeated,
            (Tokens::Proposed, Some(held)) if held.token > token => Answer::Stale(held.token),
            (Tokens::Proposed, _) if server.counter >= token => Answer::Stale(server.counter),
            (Tokens::Proposed, _) => Answer::Vote(token),
        }
    }

    /// Whether it makes a difference that the claim of `attempt` is executed. One that changes nothing and is answered
    /// by nothing of use is as good as late.
    fn matters(&self, state: &State, server: &Server, attempt: u8) -> bool {
        match self.answer(server, attempt, state.tokens[usize::from(attempt)]) {
            Answer::None => false,
            Answer::Vote(_) => true,
            Answer::Repeated | Answer::Stale(_) => state.is_present(attempt),
        }
    }

    /// A claim is executed.
    pub(super) fn vote(&self, state: &mut State, server: u8, attempt: u8) {
        let (token, is_present) = (state.tokens[usize::from(attempt)], state.is_present(attempt));
        let it = state.server(server);
        it.claims &= !(1 << attempt);
        let answer = self.answer(it, attempt, token);
        if let Answer::Vote(count) = answer {
            it.counter = count;
            it.held = Some(Held { attempt, token, left: TTL, gained: false });
        }
        if is_present {
            self.hear(state, server, attempt, answer);
        }
    }

    /// A release or an undo is executed.
    pub(super) fn end(&self, state: &mut State, server: u8, attempt: u8) {
        let it = state.server(server);
        it.ends &= !(1 << attempt);
        it.held = it.held.filter(|held| !self.is_one_owner(held.attempt, attempt));
    }

    pub(super) fn restart(&self, server: &mut Server) {
        server.restarted = true;
        match self.left {
            Left::Nothing => (server.held, server.counter) = (None, 0),
            Left::Older => (server.held, server.counter) = server.saved.unwrap_or_default(),
        }
        server.saved = None;
        (server.silent, server.to_ask) = match self.recovery {
            Recovery::None => (0, 0),
            Recovery::Waits(ticks) => (ticks, 0),
            Recovery::WaitsAndLearns | Recovery::WaitsThenLearns => (TTL, 2),
        };
    }

    /// A server without its data is told the counter of another.
    pub(super) fn ask(&self, state: &mut State, server: u8, other: u8) {
        let counter = state.server(other).counter;
        state.server(other).told = true;
        let it = state.server(server);
        it.counter = it.counter.max(counter);
        it.to_ask -= 1;
        if it.to_ask == 0 {
            state.servers.iter_mut().for_each(|server| server.told = false);
        }
    }
}
