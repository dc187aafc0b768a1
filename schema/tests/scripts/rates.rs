//! Rate limits on the real Redis: against the model over random schedules, under 100 clients, and within bookings.

use std::collections::HashMap;

use boxoffice_schema::ids::EventId;
use boxoffice_schema::keys::Keys;
use boxoffice_schema::rate::{Algorithm, PolicyName, Quota, SubjectHash};
use boxoffice_schema::scripts::{
    Book, Call, Decided, Outcome, RateCheck, Standing, check_rates, decision_call, parse_standings,
};
use proptest::prelude::*;
use redis::{Connection, Value};

use crate::rate_model::Subject;
use crate::shard::{TestShard, book, event};

const ALGORITHMS: [Algorithm; 3] = [Algorithm::FixedWindow, Algorithm::SlidingWindow, Algorithm::TokenBucket];
const SUBJECTS: usize = 2;
const START_US: u64 = 4_102_444_800_000_000;

fn connect() -> Connection {
    let url = std::env::var("BOXOFFICE_REDIS_URL")
        .expect("BOXOFFICE_REDIS_URL says where Redis is; run: eval \"$(scripts/stack env)\"");
    redis::Client::open(url).unwrap().get_connection().unwrap()
}

fn own_keys() -> Keys {
    Keys::new(format!("test:{}:", EventId::new()))
}

fn check(keys: &Keys, policy: usize, quota: Quota, subject: &str, cost: u16) -> RateCheck {
    let policy = PolicyName::parse(&format!("policy-{policy}")).unwrap();
    RateCheck { key: keys.rate(&policy, &quota, SubjectHash::of(subject)), quota, cost }
}

fn replies(text: &str, call: &Call, more: &[String], redis: &mut Connection) -> Vec<Vec<Standing>> {
    let mut command = redis::cmd("EVAL");
    command.arg(text).arg(call.keys.len()).arg(&call.keys);
    for arg in &call.args {
        command.arg(arg.as_slice());
    }
    let replies: Vec<Vec<u8>> = command.arg(more).query(redis).unwrap();
    let standings = replies.iter().map(|reply| {
        let (standings, rest) = parse_standings(reply).unwrap();
        assert!(rest.is_empty());
        standings
    });
    standings.collect()
}

/// By Redis' own clock.
fn checked(call: &Call, redis: &mut Connection) -> Vec<Vec<Standing>> {
    replies(call.script.source(), call, &[], redis)
}

/// The same script with the time as a last argument, in the place of Redis' clock.
fn checked_at(now_us: u64, call: &Call, redis: &mut Connection) -> Vec<Vec<Standing>> {
    const CLOCK: &str = "redis.call('TIME')";
    let text = call.script.source();
    assert_eq!(text.matches(CLOCK).count(), 1);
    let text = text.replace(CLOCK, "{ string.match(ARGV[#ARGV], '(%d+) (%d+)') }");
    let now = format!("{} {}", now_us / 1_000_000, now_us % 1_000_000);
    replies(&text, call, &[now], redis)
}

fn allowed(standings: &[Standing]) -> bool {
    standings.iter().all(|standing| !standing.refuses)
}

/// A window in which the test runs from its beginning to its end, whenever that is.
fn long_window() -> u32 {
    let now: (u64, u64) = redis::cmd("TIME").query(&mut connect()).unwrap();
    if now.0 % 86_400 < 86_000 { 86_400 } else { 80_000 }
}

fn quota() -> impl Strategy<Value = Quota> {
    // Windows far longer than a case takes: what the keys' time to live does is another test's.
    let parts = (0..3_usize, 1..12_u32, 60..200_u32, proptest::option::of(1..15_u32));
    parts.prop_map(|(algorithm, limit, window, burst)| {
        let algorithm = ALGORITHMS[algorithm];
        let burst = burst.filter(|_| algorithm == Algorithm::TokenBucket);
        Quota::new(algorithm, limit, window, burst).unwrap()
    })
}

#[derive(Clone, Debug)]
enum Step {
    /// A batch of requests, each with checks: quota, subject, cost.
    Check(Vec<Vec<(usize, usize, u16)>>),
    Advance(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let one = (0..3_usize, 0..SUBJECTS, 1..4_u16);
    let request = proptest::collection::vec(one, 0..4).prop_map(|mut checks| {
        // A policy has one say in a request.
        checks.sort_unstable();
        checks.dedup_by_key(|(quota, ..)| *quota);
        checks
    });
    let advance = prop_oneof![0..2_000_u64, 0..20_000_000_u64, 0..500_000_000_u64];
    prop_oneof![
        3 => proptest::collection::vec(request, 1..5).prop_map(Step::Check),
        2 => advance.prop_map(Step::Advance),
    ]
}

/// What the model says of a request, which it changes; a cost beyond the burst is refused at the edge and never sent.
fn expected(
    model: &mut HashMap<(usize, usize), Subject>,
    request: &[(usize, usize, u16)],
    now_us: u64,
) -> Vec<(bool, u32)> {
    let fits: Vec<bool> = request
        .iter()
        .map(|(quota, subject, cost)| model[&(*quota, *subject)].fits(now_us, u64::from(*cost)))
        .collect();
    if fits.iter().all(|fits| *fits) {
        for (quota, subject, cost) in request {
            model.get_mut(&(*quota, *subject)).unwrap().take(now_us, u64::from(*cost));
        }
    }
    let remaining = request.iter().map(|(quota, subject, _)| model[&(*quota, *subject)].remaining(now_us));
    fits.into_iter().map(|fits| !fits).zip(remaining).collect()
}

/// After the wait that it was told a request is allowed, a millisecond before it is not; and likewise everything is
/// back after the reset.
fn assert_times(subject: &Subject, quota: Quota, cost: u16, standing: Standing, now_us: u64) {
    // The clock of the windows ticks in milliseconds.
    let now_us = if quota.algorithm() == Algorithm::TokenBucket { now_us } else { now_us / 1_000 * 1_000 };
    let later = |ms: u32| now_us + 1_000 * u64::from(ms);
    let cost = u64::from(cost);
    if standing.refuses {
        assert!(subject.fits(later(standing.retry_ms), cost), "{quota:?} {standing:?}");
        assert!(!subject.fits(later(standing.retry_ms - 1), cost), "{quota:?} {standing:?}");
    } else {
        assert_eq!(standing.retry_ms, 0);
    }
    assert_eq!(subject.remaining(later(standing.reset_ms)), quota.burst(), "{quota:?} {standing:?}");
    if standing.reset_ms > 0 && quota.algorithm() != Algorithm::SlidingWindow {
        assert!(subject.remaining(later(standing.reset_ms - 1)) < quota.burst(), "{quota:?} {standing:?}");
    }
}

fn run(quotas: &[Quota], steps: &[Step]) {
    let (mut redis, keys) = (connect(), own_keys());
    let mut now_us = START_US;
    let subjects = (0..quotas.len()).flat_map(|q| (0..SUBJECTS).map(move |s| (q, s)));
    let mut model: HashMap<_, _> = subjects.map(|(q, s)| ((q, s), Subject::new(quotas[q]))).collect();
    for step in steps {
        let batch = match step {
            Step::Advance(us) => {
                now_us += us;
                continue;
            }
            Step::Check(batch) => batch,
        };
        let affordable = |(q, _, cost): &&(usize, usize, u16)| u32::from(*cost) <= quotas[*q].burst();
        let batch: Vec<Vec<_>> =
            batch.iter().map(|request| request.iter().filter(affordable).copied().collect()).collect();
        let checks: Vec<Vec<RateCheck>> = batch
            .iter()
            .map(|request: &Vec<(usize, usize, u16)>| {
                request
                    .iter()
                    .map(|(q, s, cost)| check(&keys, *q, quotas[*q], &s.to_string(), *cost))
                    .collect()
            })
            .collect();
        let answers = checked_at(now_us, &check_rates(checks.iter().map(Vec::as_slice)), &mut redis);
        assert_eq!(answers.len(), batch.len());
        for (request, standings) in batch.iter().zip(answers) {
            let said: Vec<_> = standings.iter().map(|s| (s.refuses, s.remaining)).collect();
            assert_eq!(said, expected(&mut model, request, now_us), "{request:?} at {now_us}");
            for ((q, s, cost), standing) in request.iter().zip(standings) {
                assert_times(&model[&(*q, *s)], quotas[*q], *cost, standing, now_us);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_algorithm_answers_as_its_model_over_random_schedules(
        quotas in proptest::collection::vec(quota(), 3),
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        run(&quotas, &steps);
    }
}

#[test]
fn the_largest_quotas_are_counted_exactly() {
    let (mut redis, keys) = (connect(), own_keys());
    for (algorithm, window, burst) in [
        (Algorithm::FixedWindow, 86_400, None),
        (Algorithm::SlidingWindow, 86_400, None),
        (Algorithm::TokenBucket, 1, Some(1_000_000)),
        (Algorithm::TokenBucket, 86_400, None),
    ] {
        for limit in [999_983, 1_000_000] {
            let quota = Quota::new(algorithm, limit, window, burst).unwrap();
            let mut model = Subject::new(quota);
            for n in 0..40_u64 {
                let now_us = START_US + n * 777;
                let cost = 60_000;
                let check = check(&keys, 0, quota, &format!("{limit}-{window}"), cost);
                let [standings] =
                    checked_at(now_us, &check_rates([[check].as_slice()]), &mut redis).try_into().unwrap();
                let fits = model.fits(now_us, u64::from(cost));
                if fits {
                    model.take(now_us, u64::from(cost));
                }
                assert_eq!(
                    (!standings[0].refuses, standings[0].remaining),
                    (fits, model.remaining(now_us)),
                    "{quota:?}, request {n}"
                );
            }
        }
    }
}

/// A microsecond later a whole token more has flowed in: the room in the bucket times its limit is short of that by one or two
/// of some 4 * 10^16, which a double cannot tell.
#[test]
fn what_remains_of_a_large_bucket_is_exact_beyond_53_bits() {
    let (mut redis, keys) = (connect(), own_keys());
    let quota = Quota::new(Algorithm::TokenBucket, 999_983, 86_400, None).unwrap();
    for later_us in [6_914_882_353, 13_829_764_706] {
        let mut model = Subject::new(quota);
        let takes = std::iter::repeat_n((0, 60_000), 10).chain([(later_us, 1)]);
        for (after_us, cost) in takes {
            let now_us = START_US + after_us;
            let check = check(&keys, 0, quota, &later_us.to_string(), cost);
            let [standings] =
                checked_at(now_us, &check_rates([[check].as_slice()]), &mut redis).try_into().unwrap();
            model.take(now_us, u64::from(cost));
            assert!(!standings[0].refuses);
            assert_eq!(standings[0].remaining, model.remaining(now_us), "{later_us} us later");
        }
    }
}

#[test]
fn a_clock_that_goes_back_gives_nothing_away_twice() {
    let (mut redis, keys) = (connect(), own_keys());
    for algorithm in ALGORITHMS {
        let check = check(&keys, 0, Quota::new(algorithm, 2, 60, None).unwrap(), "ann", 2);
        let call = || check_rates([[check.clone()].as_slice()]);
        assert!(allowed(&checked_at(START_US, &call(), &mut redis)[0]), "{algorithm:?}");
        for back in [1, 1_000_000, 90_000_000, 7_200_000_000] {
            assert!(!allowed(&checked_at(START_US - back, &call(), &mut redis)[0]), "{algorithm:?}, {back}");
        }
    }
}

#[test]
fn a_refusal_writes_nothing_and_a_count_does_not_outlive_its_meaning() {
    let (mut redis, keys) = (connect(), own_keys());
    for algorithm in ALGORITHMS {
        let quota = Quota::new(algorithm, 2, 3_600, None).unwrap();
        let (ann, bob) = (check(&keys, 1, quota, "ann", 1), check(&keys, 2, quota, "bob", 2));
        let request = [ann.clone(), bob.clone()];
        assert!(allowed(&checked(&check_rates([request.as_slice()]), &mut redis)[0]));
        let ttl: i64 = redis::cmd("PTTL").arg(&ann.key).query(&mut redis).unwrap();
        assert!((1..=2 * 3_600_000).contains(&ttl), "{algorithm:?}: {ttl}");
        let before: Vec<Vec<u8>> = redis::cmd("MGET").arg(&ann.key).arg(&bob.key).query(&mut redis).unwrap();
        let refused = checked(&check_rates([request.as_slice()]), &mut redis).remove(0);
        assert_eq!(refused.iter().map(|s| s.refuses).collect::<Vec<_>>(), [false, true], "{algorithm:?}");
        assert_eq!(refused[0].remaining, 1, "what the other refused was not taken from ann");
        let after: Vec<Vec<u8>> = redis::cmd("MGET").arg(&ann.key).arg(&bob.key).query(&mut redis).unwrap();
        assert_eq!(before, after, "{algorithm:?}");
    }
}

#[test]
fn a_hundred_clients_at_once_get_exactly_the_limit() {
    let (keys, window) = (own_keys(), long_window());
    for algorithm in ALGORITHMS {
        let check = check(&keys, 0, Quota::new(algorithm, 250, window, None).unwrap(), "everybody", 1);
        let barrier = std::sync::Barrier::new(100);
        let ask = || {
            let mut redis = connect();
            let call = check_rates([[check.clone()].as_slice()]);
            barrier.wait();
            (0..10).filter(|_| allowed(&checked(&call, &mut redis)[0])).count()
        };
        let granted: usize = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..100).map(|_| scope.spawn(ask)).collect();
            clients.into_iter().map(|client| client.join().unwrap()).sum()
        });
        assert_eq!(granted, 250, "{algorithm:?}");
    }
}

/// A shard with an event, and a limit of two bookings a customer.
struct Limited {
    shard: TestShard,
    event: boxoffice_schema::event::EventImage,
    quota: Quota,
}

impl Limited {
    fn new() -> Self {
        let mut shard = TestShard::certified();
        let event = event(&[3]);
        shard.publish(&event);
        Self { shard, event, quota: Quota::new(Algorithm::TokenBucket, 2, 86_400, None).unwrap() }
    }

    fn request(&self, key: &str, customer: &str, quantity: u16) -> Book {
        let check = check(&self.shard.keys, 0, self.quota, customer, 1);
        book(&self.event, key, customer, 0, &[(0, quantity)]).limited_by(vec![check])
    }

    fn decide(&mut self, batch: &[Book]) -> Vec<Decided> {
        let call = decision_call(&self.shard.keys, self.shard.shard, self.shard.bounds, batch);
        let replies: Vec<Value> = self.shard.run(&call).unwrap();
        let bytes = replies.into_iter().map(|reply| match reply {
            Value::BulkString(bytes) => Decided::parse(&call, &bytes).unwrap(),
            other => panic!("unexpected reply {other:?}"),
        });
        bytes.collect()
    }

    fn labels(&mut self, batch: &[Book]) -> Vec<&'static str> {
        self.decide(batch).iter().map(|decided| decided.outcome.label()).collect()
    }
}

#[test]
fn limits_are_decided_in_the_call_that_books_and_requests_of_one_batch_see_each_other() {
    let mut limited = Limited::new();
    let batch: Vec<Book> = ["a", "b", "c"].iter().map(|key| limited.request(key, "ann", 1)).collect();
    let sequence = limited.shard.shard_field("seq");
    let decided = limited.decide(&batch);
    let labels: Vec<_> = decided.iter().map(|decided| decided.outcome.label()).collect();
    assert_eq!(labels, ["changed", "changed", "rate_limited"]);
    let remaining: Vec<_> = decided.iter().map(|decided| decided.standings[0].remaining).collect();
    assert_eq!(remaining, [1, 0, 0]);
    assert!(decided[2].standings[0].retry_ms > 0);
    assert_eq!(limited.shard.shard_field("seq"), sequence + 2);
    assert_eq!(limited.shard.event(limited.event.id).ticket_types[0].sold, 2);
    assert_eq!(limited.labels(&[limited.request("d", "bob", 1)]), ["changed"]);
}

#[test]
fn a_batch_may_hold_requests_with_and_without_limits() {
    let mut limited = Limited::new();
    let without = book(&limited.event, "x", "ann", 0, &[(0, 1)]);
    let batch = [limited.request("a", "ann", 1), without, limited.request("b", "ann", 1)];
    let decided = limited.decide(&batch);
    assert_eq!(decided.iter().map(|d| d.standings.len()).collect::<Vec<_>>(), [1, 0, 1]);
    assert!(decided.iter().all(|d| matches!(d.outcome, Outcome::Changed(_))));
}

#[test]
fn a_replay_is_answered_and_not_counted_whatever_is_left() {
    let mut limited = Limited::new();
    assert_eq!(limited.labels(&[limited.request("a", "ann", 1)]), ["changed"]);
    for _ in 0..5 {
        let replayed = limited.decide(&[limited.request("a", "ann", 1)]).remove(0);
        assert_eq!(replayed.outcome.label(), "replayed");
        assert!(replayed.standings.is_empty());
    }
    // In the batch that books, too.
    let batch =
        [limited.request("b", "ann", 1), limited.request("b", "ann", 1), limited.request("c", "ann", 1)];
    assert_eq!(limited.labels(&batch), ["changed", "replayed", "rate_limited"]);
    assert_eq!(limited.labels(&[limited.request("a", "ann", 1)]), ["replayed"]);
}

#[test]
fn what_is_refused_for_lack_of_tickets_is_counted_and_our_own_faults_are_not() {
    let mut limited = Limited::new();
    let bounds = limited.shard.bounds;
    limited.shard.bounds.frames = 0;
    for _ in 0..5 {
        assert_eq!(limited.labels(&[limited.request("a", "ann", 1)]), ["outbox_full"]);
    }
    limited.shard.bounds = bounds;
    let batch =
        [limited.request("a", "ann", 4), limited.request("b", "ann", 4), limited.request("c", "ann", 1)];
    assert_eq!(limited.labels(&batch), ["sold_out", "sold_out", "rate_limited"]);
}

#[test]
fn an_uncertified_shard_counts_nothing() {
    let mut limited = Limited::new();
    limited.shard.begin_recovery(2).unwrap();
    let batch = [limited.request("a", "ann", 1)];
    let call = decision_call(&limited.shard.keys, limited.shard.shard, limited.shard.bounds, &batch);
    let error = limited.shard.run::<Value>(&call).unwrap_err();
    assert_eq!(error.code(), Some("UNVERIFIED"));
    let key = check(&limited.shard.keys, 0, limited.quota, "ann", 1).key;
    let exists: i64 = redis::cmd("EXISTS").arg(key).query(&mut limited.shard.redis).unwrap();
    assert_eq!(exists, 0);
}
