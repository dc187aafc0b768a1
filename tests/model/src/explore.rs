//! Explores a model and says what came of it.

use std::fmt;
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model as _, Path, Property};

use crate::action::{self, Action};
use crate::promise;
use crate::scenario::Model;
use crate::system::State;

impl stateright::Model for Model {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(self)]
    }

    fn actions(&self, _: &State, actions: &mut Vec<Action>) {
        action::candidates(self, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        state.after(self, action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let all = promise::promises().into_iter().chain(promise::possibilities(self));
        all.filter(|property| self.only.is_none_or(|only| only == property.name)).collect()
    }
}

/// What an exploration found.
#[derive(Debug)]
pub struct Verdict {
    /// Different states that were visited.
    pub states: usize,
    /// The most steps to one of them.
    pub depth: usize,
    /// How long it took.
    pub elapsed: Duration,
    /// Promises that were broken, each with the steps to a state that breaks it.
    pub broken: Vec<(&'static str, Vec<String>)>,
    /// What should be possible, and never was.
    pub impossible: Vec<&'static str>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, depth, elapsed, broken, impossible } = self;
        write!(f, "{states} states, at most {depth} steps deep, in {:.1} s", elapsed.as_secs_f64())?;
        for (promise, steps) in broken {
            write!(f, "\n{promise}: broken by")?;
            for (number, step) in (1..).zip(steps) {
                write!(f, "\n{number:>4}. {step}")?;
            }
        }
        for property in impossible {
            write!(f, "\nnever: {property}")?;
        }
        Ok(())
    }
}

/// Visits every state that the scenario allows, unless all promises are broken before.
pub fn explore(model: &Model) -> Verdict {
    check(model.clone(), 2)
}

/// Looks for the shortest way to break a promise; visits every state where there is none. One thread, because the
/// first way that several find need not be the shortest.
pub fn search(model: &Model, promise: &'static str) -> Verdict {
    check(Model { only: Some(promise), ..model.clone() }, 1)
}

fn check(model: Model, threads: usize) -> Verdict {
    let start = Instant::now();
    let properties = model.properties();
    let checker =
        model.checker().threads(threads).finish_when(HasDiscoveries::AllFailures).spawn_bfs().join();
    let mut discoveries = checker.discoveries();
    let (mut broken, mut impossible) = (vec![], vec![]);
    for property in properties {
        match (property.expectation.discovery_is_failure(), discoveries.remove(property.name)) {
            (true, Some(path)) => broken.push((property.name, steps(path))),
            (false, None) => impossible.push(property.name),
            _ => {}
        }
    }
    Verdict {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        elapsed: start.elapsed(),
        broken,
        impossible,
    }
}

fn steps(path: Path<State, Action>) -> Vec<String> {
    path.into_vec().iter().filter_map(|(state, action)| Some(action::describe(state, (*action)?))).collect()
}
