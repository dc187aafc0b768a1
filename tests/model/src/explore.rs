//! Explores a model and says what came of it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Property};

use crate::promise;
use crate::scenario::Model;
use crate::system::{Action, State};

impl stateright::Model for Model {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(self)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        state.actions(self, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        state.after(self, action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        promise::promises().into_iter().chain(promise::possibilities(self)).collect()
    }
}

/// What an exploration found.
#[derive(Debug)]
pub struct Verdict {
    /// Different states.
    pub states: usize,
    /// The longest way to one of them.
    pub depth: usize,
    /// How long it took.
    pub elapsed: Duration,
    /// Promises that were broken, each with the way to a state that breaks it.
    pub broken: Vec<(&'static str, String)>,
    /// What should be possible, and never was.
    pub impossible: Vec<&'static str>,
}

/// Visits every state that the scenario allows.
pub fn explore(model: &Model) -> Verdict {
    check(model, HasDiscoveries::AllFailures, 2)
}

/// Looks for the shortest way to break a promise.
pub fn search(model: &Model, promise: &'static str) -> Verdict {
    check(model, HasDiscoveries::AnyOf(BTreeSet::from([promise])), 1)
}

fn check(model: &Model, finish_when: HasDiscoveries, threads: usize) -> Verdict {
    use stateright::Model as _;
    let start = Instant::now();
    let checker = model.clone().checker().threads(threads).finish_when(finish_when).spawn_bfs().join();
    let discoveries = checker.discoveries();
    let mut verdict = Verdict {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        elapsed: start.elapsed(),
        broken: vec![],
        impossible: vec![],
    };
    for property in model.properties() {
        match (property.expectation.discovery_is_failure(), discoveries.get(property.name)) {
            (true, Some(path)) => {
                let way: Vec<String> = path.clone().into_actions().iter().map(ToString::to_string).collect();
                verdict.broken.push((property.name, way.join("\n  ")));
            }
            (false, None) => verdict.impossible.push(property.name),
            _ => {}
        }
    }
    verdict
}
