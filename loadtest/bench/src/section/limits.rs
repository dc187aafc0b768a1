//! What counting requests costs: other services' checks beside the script alone, and refusals beside bookings.

use std::sync::Arc;

use anyhow::Result;

use crate::floors::CheckScript;
use crate::load::{Ask, Check, Kind, Later};
use crate::place::Place;
use crate::record;
use crate::report::{Row, Section};
use crate::table::{Figure, Goal};

use super::book::compare_drivers;
use super::stand::{API, RATE, REDIS, Stand, redis_address};
use super::{Outcome, Pace, say};

const REMARK: &str = "Closed loop on 64 connections. A check is `POST /v1/rate-limit/check` of one unit of a token bucket, about one of \
10,000 subjects; each must be allowed, and PostgreSQL's sums must name every one of them afterwards. The script is \
`schema/lua/check_rates.lua` with the arguments that the API would send for one check, on as many subjects, unpipelined, by \
our driver, which holds each answer against what it should be. `SET` shows that it measures what `redis-benchmark` does, \
which cuts the script's packed argument at its first zero byte. Bookings are under a policy that allows \
each customer one a day: first each by another customer, then by 50,000 customers who have booked (each is refused by Redis \
a few times), then by one who does not stop (refused from memory). Processor time is user and system of all threads while \
the requests were answered.";

/// Nobody reaches it.
pub(super) const OF_CHECKS: &str = "\
[[policy]]
name = \"checks\"
for = \"service\"
algorithm = \"token_bucket\"
limit = 1000000
window_seconds = 60
";

/// Whoever has booked has reached it.
const OF_BOOKINGS: &str = "\
[[policy]]
name = \"bookings-per-customer\"
for = \"booking\"
per = \"customer\"
algorithm = \"token_bucket\"
limit = 1
window_seconds = 86400
";

pub(super) const SUBJECTS: u64 = 10_000;

/// Customers who ask again. Each is refused less than ten times, after which memory would refuse.
const CUSTOMERS: u64 = 50_000;

/// Requests between two rounds: numbers that no round before has used, beginning with the first customer.
const ROUND: u64 = 1_000 * CUSTOMERS;

pub(super) async fn run(place: &Place, pace: Pace) -> Result<Outcome> {
    let mut stand = Stand::limited(place, "limits", pace, &[OF_CHECKS, OF_BOOKINGS].concat()).await?;
    let events = stand.installation.events(1, 2_000_000).await?;
    let known = stand.once_each(&events, CUSTOMERS).await?;
    let flood = stand.once_each(&events, 1).await?;
    let script = CheckScript::new(SUBJECTS)?;
    let aof = stand.installation.durability.split(", ack").next().unwrap_or_default().to_owned();
    let mut of_script = Row::new("script", &aof);
    let mut set = Row::new("`SET` by our driver", &aof);
    let mut set_by_tool = Row::new("`SET` by `redis-benchmark`", &aof);
    let mut checked = Row::new("check", "");
    let mut booked = Row::new("book, under a limit", "");
    let mut refused = Row::new("refused by Redis", "");
    let mut from_memory = Row::new("refused from memory", "");
    let mut checks = 0;
    for round in 0..pace.rounds {
        say(&format!("limits, round {} of {}", round + 1, pace.rounds));
        let later = |ask: &Arc<dyn Ask>| -> Arc<dyn Ask> {
            Arc::new(Later { ask: ask.clone(), first: ROUND * (round as u64 + 1) })
        };
        stand.check_script(&mut of_script, &script).await?;
        compare_drivers(redis_address(place)?, &mut set, &mut set_by_tool, pace.time / 2).await?;
        checks += stand.ask(&mut checked, check(), 64, Kind::Read).await?;
        stand.book(&mut booked, &events, 64).await?;
        stand.ask(&mut refused, later(&known), 64, Kind::TooOften).await?;
        stand.ask(&mut from_memory, later(&flood), 64, Kind::TooOften).await?;
    }
    record::until_summed(&stand.installation.pool, "checks", checks).await?;
    stand.close().await?;
    let ratio = |what: &str, row: &Row, under: &Row, goal| {
        Figure::ratio(what, row.rounds(RATE), under.rounds(RATE), goal)
    };
    let cost = |row: &Row| -> Vec<f64> {
        row.rounds(API).iter().zip(row.rounds(REDIS)).map(|(api, redis)| api + redis).collect()
    };
    let ratios = vec![
        ratio("check / its script alone, unpipelined", &checked, &of_script, Goal::AtLeast(0.75)),
        Figure::ratio(
            "refused by a limit / booked, processor time of API and Redis",
            &cost(&refused),
            &cost(&booked),
            Goal::AtMost(1.0),
        ),
        ratio("refused from memory / refused by Redis, a second", &from_memory, &refused, Goal::AtLeast(1.0)),
    ];
    let rows = vec![of_script, set, set_by_tool, checked, booked, refused, from_memory];
    Ok(Outcome { ratios, section: Section { title: "Rate limits", remark: REMARK.to_owned(), rows } })
}

/// Checks of subjects that take turns.
pub(super) fn check() -> Arc<dyn Ask> {
    Arc::new(Check { policy: "checks", subjects: SUBJECTS })
}
