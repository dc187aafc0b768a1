//! Goose: starts the users, gives each its turns, and keeps its own metrics for the HTML report.
//!
//! Goose adds no pause of its own: scenarios get no wait time, its throttle is off, and its coordinated-omission
//! mitigation is off, because the schedule does that job (see [`crate::schedule`]). All users are started before the
//! schedule starts, so goose's hatch rate does not distort it. Requests go through the shared client, and their
//! outcome is reported to goose afterwards: goose would count every `sold_out` as a failure.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use goose::{
    client::GooseClientBuilder,
    config::GooseConfiguration,
    goose::{GooseUser, Transaction, TransactionResult},
    prelude::{GooseAttack, Scenario as GooseScenario},
};

use crate::{
    buyer::Buyer,
    scenario::Scenario,
    shop::{Line, Shop},
};

/// Time that goose may take beyond the schedule and the time to catch up, before it stops the users itself.
const GRACE: Duration = Duration::from_secs(30);

/// The run, shared by every transaction.
#[derive(Debug)]
struct Attack {
    shop: Arc<Shop>,
    seed: u64,
    /// By goose's number of the user. A buyer is taken out for its turn and put back, so no lock is held meanwhile.
    buyers: Vec<Mutex<Option<Box<Buyer>>>>,
}

/// Runs the schedule with `users` users and returns them with what they know.
pub(crate) async fn run(
    shop: Arc<Shop>,
    users: usize,
    seed: u64,
    longest: Duration,
    report: Option<&Path>,
) -> Result<Vec<Buyer>> {
    let attack = Arc::new(Attack { shop, seed, buyers: (0..users).map(|_| Mutex::new(None)).collect() });
    let client = GooseClientBuilder::new().without_cookies();
    let configuration = configuration(&attack.shop, users, longest + GRACE, report)?;
    let mut goose =
        GooseAttack::initialize_with_config(configuration)?.set_client_builder_without_cookies(client)?;
    for scenario in Scenario::ALL {
        goose = goose.register_scenario(
            GooseScenario::new(scenario.name())
                .set_weight(scenario.weight())?
                .register_transaction(start(attack.clone(), scenario))
                .register_transaction(turns(attack.clone())),
        );
    }
    goose.execute().await.context("goose failed")?;
    if goose::is_killswitch_triggered() {
        bail!("interrupted");
    }
    Ok(attack.buyers.iter().filter_map(|place| lock(place).take()).map(|buyer| *buyer).collect())
}

fn configuration(
    shop: &Shop,
    users: usize,
    longest: Duration,
    report: Option<&Path>,
) -> Result<GooseConfiguration> {
    let mut configuration = GooseConfiguration::default();
    configuration.host = Some(shop.client.url("/")?.to_string());
    configuration.users = Some(users);
    configuration.increase_time = Some("1s".to_owned());
    configuration.run_time = Some(format!("{}s", longest.as_secs()));
    configuration.quiet = 2;
    configuration.no_print_metrics = true;
    configuration.no_telnet = true;
    // Without a report nobody reads goose's metrics, and gathering them is not free.
    configuration.no_metrics = report.is_none();
    configuration.report_file = report.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    Ok(configuration)
}

/// Makes the buyer and waits for all the others.
fn start(attack: Arc<Attack>, scenario: Scenario) -> Transaction {
    Transaction::new(Arc::new(move |user: &mut GooseUser| {
        let (attack, number) = (attack.clone(), user.weighted_users_index);
        Box::pin(async move {
            *lock(&attack.buyers[number]) = Some(Box::new(Buyer::new(number, scenario, attack.seed)));
            attack.shop.schedule.gather().await;
            Ok(())
        })
    }))
    .set_name("arrive")
    .set_on_start()
}

/// One request of the schedule, over and over, until the schedule ends and the user leaves.
fn turns(attack: Arc<Attack>) -> Transaction {
    Transaction::new(Arc::new(move |user: &mut GooseUser| {
        let attack = attack.clone();
        Box::pin(async move { turn(&attack, user).await })
    }))
    .set_name("turn")
}

async fn turn(attack: &Attack, user: &mut GooseUser) -> TransactionResult {
    let Some(slot) = attack.shop.schedule.next().await else {
        // Goose lets a user go that has run its iterations, and ends when all have: now is enough.
        user.config.iterations = Some(1);
        return Ok(());
    };
    let place = &attack.buyers[user.weighted_users_index];
    let Some(mut buyer) = lock(place).take() else { return Ok(()) };
    let line = buyer.turn(&attack.shop, slot).await;
    *lock(place) = Some(buyer);
    tell_goose(user, line).await
}

async fn tell_goose(user: &mut GooseUser, line: Line) -> TransactionResult {
    if user.config.no_metrics {
        return Ok(());
    }
    let status = (line.status != 0).then_some(line.status);
    user.record_custom_request_duration(line.method, line.name, line.took, line.good, status, None).await
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
