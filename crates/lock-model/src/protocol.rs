//! What a model of this crate is: a model of the checker that can tell each of its steps in a sentence.

use std::{fmt::Debug, hash::Hash};

use stateright::{Expectation, Model};

/// Describes a protocol to the checker, and its steps to people.
pub trait Protocol:
    Model<State: Clone + Debug + Hash + PartialEq + Send + Sync, Action: Clone + Debug + PartialEq>
    + Clone
    + Send
    + Sync
    + 'static
{
    /// Tells what `action` does in the state `before`, as one line; no two possible actions of a state read alike.
    fn tell(&self, before: &Self::State, action: &Self::Action) -> String;

    /// Returns a model in which steps are as they are told: nothing is renamed after them.
    #[must_use]
    fn without_symmetry(&self) -> Self {
        self.clone()
    }

    /// Returns whether `action` is a fault, which is not needed to reach a goal.
    fn is_fault(&self, _action: &Self::Action) -> bool {
        false
    }

    /// Returns what must remain possible in every state, without further faults.
    fn goals(&self) -> Vec<Goal<Self::State>> {
        Vec::new()
    }
}

/// A state to come to, and its name.
pub type Goal<S> = (&'static str, fn(&S) -> bool);

/// Returns the names of the properties of `model` that are of the kind `expectation`.
pub(crate) fn names<P: Protocol>(model: &P, expectation: &Expectation) -> Vec<&'static str> {
    model.properties().iter().filter(|p| p.expectation == *expectation).map(|p| p.name).collect()
}

/// Returns what may happen in `state`: each step told, and where it leads.
pub(crate) fn steps<P: Protocol>(model: &P, state: &P::State) -> Vec<(String, P::State)> {
    let tell = |(action, after)| (model.tell(state, &action), after);
    model.next_steps(state).into_iter().map(tell).collect()
}
