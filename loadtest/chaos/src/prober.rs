//! A buyer that never rests: one ticket every 20 ms, of events of its own, with a key of its own each time and as many
//! retries as it takes. When it was sold one and when not says how long sales were refused; what it was told is checked.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tokio::{
    sync::Semaphore,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use uuid::Uuid;

use crate::{redis_pair::now_ms, windows::Windows};

/// Between two tickets.
const INTERVAL: Duration = Duration::from_millis(20);

/// What comes of that.
const TICKETS_A_SECOND: u32 = 50;

/// Events, so that several shards are looked at.
pub(crate) const EVENTS: usize = 4;

/// Longest wait for one answer: the API promises one within 2 s.
const PATIENCE: Duration = Duration::from_millis(2_500);

/// Between two tries of one key.
const RETRY: Duration = Duration::from_millis(400);

/// From the first try of a key to the last.
const RETRY_FOR: Duration = Duration::from_secs(120);

/// Keys that are tried at once; past it no new one is begun.
const KEYS_AT_ONCE: usize = 200;

/// From publishing to an event that sells.
const ON_SALE_WITHIN: Duration = Duration::from_secs(30);

/// Violations that are told word for word.
const EXAMPLES: usize = 10;

/// What became of a key.
#[derive(Clone, Copy, Debug)]
enum Told {
    /// A 201 with this booking, received at this time (milliseconds since 1970).
    Booked { booking: Uuid, at_ms: u64 },
    /// Nothing certain.
    Nothing,
}

/// What the probes saw.
#[derive(Debug, Default)]
struct Log {
    keys: HashMap<String, Told>,
    /// By event: when a ticket was sold.
    sold: [Vec<Instant>; EVENTS],
    refused: Vec<Instant>,
    violations: Vec<String>,
}

#[derive(Debug)]
struct Shop {
    http: Client,
    url: String,
    events: Vec<(Uuid, Uuid)>,
    log: Mutex<Log>,
    free: Arc<Semaphore>,
    ended: AtomicBool,
}

/// The probes, running.
#[derive(Debug)]
pub(crate) struct Prober {
    shop: Arc<Shop>,
    ticking: JoinHandle<()>,
}

/// How long sales were refused in a span of time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outage {
    /// The longest time in which one of the events sold nothing.
    pub(crate) longest: Duration,
    /// Requests that got no 201.
    pub(crate) refused: usize,
}

/// What the probes come to.
#[derive(Debug)]
pub(crate) struct Judgement {
    pub(crate) booked: usize,
    /// Acknowledged, lost, and allowed to be.
    pub(crate) excused: usize,
    pub(crate) violations: Vec<String>,
}

impl Prober {
    /// Puts events on sale and begins to buy.
    /// `seconds` is the length of the load; there are tickets for all of it, and for what comes before and after.
    pub(crate) async fn start(url: &str, run: &str, seconds: u32) -> Result<Self> {
        // An event's size is what a recovery has to clear, so it is no larger than it must be.
        let capacity = (seconds + 1_000) * TICKETS_A_SECOND / u32::try_from(EVENTS)?;
        let http = Client::builder()
            .timeout(PATIENCE)
            .pool_idle_timeout(Duration::from_secs(3))
            .tcp_nodelay(true)
            .no_proxy()
            .build()?;
        let mut events = Vec::with_capacity(EVENTS);
        for number in 1..=EVENTS {
            events.push(put_on_sale(&http, url, &format!("{run} probe {number}"), capacity).await?);
        }
        let (log, free) = (Mutex::default(), Arc::new(Semaphore::new(KEYS_AT_ONCE)));
        let (url, ended) = (url.to_owned(), AtomicBool::new(false));
        let shop = Arc::new(Shop { http, url, events, log, free, ended });
        let ticking = tokio::spawn(tick(shop.clone(), run.to_owned()));
        Ok(Self { shop, ticking })
    }

    /// Waits until every event has sold a ticket since `since`; whether that came within `patience`.
    pub(crate) async fn wait_for_sales(&self, since: Instant, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            let sells = |sold: &Vec<Instant>| sold.last().is_some_and(|last| *last > since);
            if self.shop.log().sold.iter().all(sells) {
                return true;
            }
            if Instant::now() > deadline {
                return false;
            }
            sleep(INTERVAL).await;
        }
    }

    /// How long sales were refused between two moments.
    pub(crate) fn outage(&self, from: Instant, to: Instant) -> Outage {
        let log = self.shop.log();
        let longest = log.sold.iter().map(|sold| longest_gap(sold, from, to)).max().unwrap_or_default();
        Outage { longest, refused: log.refused.iter().filter(|at| (from..to).contains(*at)).count() }
    }

    /// Ends the buying. The load is judged when its events are at rest, and a shard on which probes still buy is not: where
    /// the machine is slow, one of its decisions is always on its way.
    pub(crate) fn buy_no_more(&self) {
        self.ticking.abort();
    }

    /// Waits for the keys that are still being tried and for the log, and holds PostgreSQL to it all. `patience` is for
    /// the log.
    pub(crate) async fn judge(
        self,
        database_url: &str,
        windows: &Windows,
        patience: Duration,
    ) -> Result<Judgement> {
        self.buy_no_more();
        self.shop.ended.store(true, Ordering::Relaxed);
        let all = u32::try_from(KEYS_AT_ONCE)?;
        drop(tokio::time::timeout(RETRY_FOR, self.shop.free.acquire_many(all)).await);
        let mut violations = Vec::new();
        let deadline = Instant::now() + patience;
        for (event, _) in &self.shop.events {
            if let Err(error) = self.shop.wait_until_drained(*event, deadline).await {
                violations.push(format!("{error:#}"));
            }
        }
        let mut rows = HashMap::new();
        let mut connection = PgConnection::connect(database_url).await?;
        for (event, kind) in &self.shop.events {
            violations.extend(count(&mut connection, *event, *kind, &mut rows).await?);
        }
        let log = self.shop.log();
        violations.extend(log.violations.iter().cloned());
        let excused = compare(&log.keys, &rows, windows, &mut violations);
        let booked = log.keys.values().filter(|told| matches!(told, Told::Booked { .. })).count();
        if booked == 0 {
            violations.push("the probes bought nothing, so they show nothing".to_owned());
        }
        let more = violations.len().saturating_sub(EXAMPLES);
        violations.truncate(EXAMPLES);
        if more > 0 {
            violations.push(format!("and {more} more"));
        }
        Ok(Judgement { booked, excused, violations })
    }
}

/// Begins a key every 20 ms.
async fn tick(shop: Arc<Shop>, run: String) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for number in 0_usize.. {
        ticks.tick().await;
        let Ok(permit) = shop.free.clone().try_acquire_owned() else { continue };
        let (shop, key) = (shop.clone(), format!("{run}-probe-{number}"));
        tokio::spawn(async move {
            shop.buy(number % EVENTS, key).await;
            drop(permit);
        });
    }
}

impl Shop {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries one key until it is sold or refused for good, or nobody waits any more.
    async fn buy(&self, event: usize, key: String) {
        let began = Instant::now();
        self.log().keys.insert(key.clone(), Told::Nothing);
        let mut in_doubt = false;
        while began.elapsed() < RETRY_FOR {
            match self.send(event, &key).await {
                Ok((StatusCode::CREATED, replayed, body)) => {
                    return self.note_booked(event, key, replayed && !in_doubt, &body);
                }
                Ok((StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS, ..)) | Err(_) => {
                    self.log().refused.push(Instant::now());
                    in_doubt = true;
                }
                Ok((status, _, body)) => {
                    return self.log().violations.push(format!("probe {key}: status {status}: {body}"));
                }
            }
            // After the run a key gets one more try; what it comes to is uncertain anyway.
            if self.ended.load(Ordering::Relaxed) {
                return;
            }
            sleep(RETRY).await;
        }
    }

    async fn send(&self, event: usize, key: &str) -> reqwest::Result<(StatusCode, bool, String)> {
        let (event, kind) = self.events[event];
        let body = json!({"customer": key, "items": [{"ticket_type_id": kind, "quantity": 1}]});
        let request = self.http.post(format!("{}/v1/events/{event}/bookings", self.url));
        let request = request.header("Content-Type", "application/json").header("Idempotency-Key", key);
        let response = request.body(body.to_string()).send().await?;
        let replayed = response.headers().get("idempotent-replayed").is_some();
        Ok((response.status(), replayed, response.text().await?))
    }

    fn note_booked(&self, event: usize, key: String, unexplained: bool, body: &str) {
        let mut log = self.log();
        let shown: Value = serde_json::from_str(body).unwrap_or_default();
        let booking = shown["id"].as_str().and_then(|id| id.parse().ok());
        match booking {
            Some(booking) if shown["customer"] == key && shown["status"] == "confirmed" => {
                log.keys.insert(key.clone(), Told::Booked { booking, at_ms: now_ms() });
                log.sold[event].push(Instant::now());
            }
            _ => log.violations.push(format!("probe {key} was answered with another booking: {body}")),
        }
        if unexplained {
            log.violations.push(format!("probe {key} was answered with a replay at its first try"));
        }
    }

    /// Until the event's audit shows no lag.
    async fn wait_until_drained(&self, event: Uuid, deadline: Instant) -> Result<()> {
        loop {
            let audit = get(&self.http, &format!("{}/v1/events/{event}/audit", self.url)).await;
            let (settled, shown) = match &audit {
                Ok(audit) => (audit["lag"] == 0 && audit["ticket_types"][0]["drift"] == 0, audit.to_string()),
                Err(error) => (false, format!("{error:#}")),
            };
            if settled {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "probe event {event} is not at rest: {shown}");
            sleep(Duration::from_millis(250)).await;
        }
    }
}

/// The longest time without a sale between two moments, from and to which sales count as well.
fn longest_gap(sold: &[Instant], from: Instant, to: Instant) -> Duration {
    let mut within: Vec<Instant> = sold.iter().copied().filter(|at| (from..to).contains(at)).collect();
    within.extend([from, to]);
    within.sort_unstable();
    within.windows(2).map(|two| two[1] - two[0]).max().unwrap_or_default()
}

/// An event with tickets for everybody; its id and its ticket type's.
async fn put_on_sale(http: &Client, url: &str, name: &str, capacity: u32) -> Result<(Uuid, Uuid)> {
    let price = json!({"amount": 1_000, "currency": "EUR"});
    let body = json!({"name": name, "starts_at": "2100-01-01T20:00:00Z",
        "ticket_types": [{"name": "Probe", "capacity": capacity, "price": price}]});
    let deadline = Instant::now() + ON_SALE_WITHIN;
    let created = ask(http, &format!("{url}/v1/events"), body.to_string(), deadline).await?;
    let id = |value: &Value| value.as_str().and_then(|text| text.parse::<Uuid>().ok());
    let event = id(&created["id"]).context("an event without an id")?;
    let kind = id(&created["ticket_types"][0]["id"]).context("a ticket type without an id")?;
    ask(http, &format!("{url}/v1/events/{event}/publish"), String::new(), deadline).await?;
    Ok((event, kind))
}

/// Posts until it is done: fresh stores are checked before anything is sold.
async fn ask(http: &Client, url: &str, body: String, deadline: Instant) -> Result<Value> {
    loop {
        let wrong = match post(http, url, &body).await {
            Ok((status, text)) if status.is_success() => return Ok(serde_json::from_str(&text)?),
            Ok((StatusCode::SERVICE_UNAVAILABLE, text)) => text,
            Ok((status, text)) => bail!("POST {url}: status {status}: {text}"),
            Err(error) => error.to_string(),
        };
        ensure!(Instant::now() < deadline, "POST {url}: {wrong}");
        sleep(Duration::from_millis(200)).await;
    }
}

async fn post(http: &Client, url: &str, body: &str) -> reqwest::Result<(StatusCode, String)> {
    let request = http.post(url).header("Content-Type", "application/json").body(body.to_owned());
    let response = request.send().await?;
    Ok((response.status(), response.text().await?))
}

async fn get(http: &Client, url: &str) -> Result<Value> {
    Ok(serde_json::from_str(&http.get(url).send().await?.error_for_status()?.text().await?)?)
}

/// Collects the bookings of an event by key; what its counter says otherwise than its rows is a violation.
async fn count(
    connection: &mut PgConnection,
    event: Uuid,
    kind: Uuid,
    rows: &mut HashMap<String, Vec<Uuid>>,
) -> Result<Option<String>> {
    let found: Vec<(String, Uuid, String)> =
        sqlx::query_as("SELECT idempotency_key, id, status FROM bookings WHERE event_id = $1")
            .bind(event)
            .fetch_all(&mut *connection)
            .await?;
    let confirmed = found.iter().filter(|(_, _, status)| status == "confirmed").count();
    let sold: Option<i32> = sqlx::query_scalar("SELECT sold FROM ticket_types WHERE id = $1")
        .bind(kind)
        .fetch_optional(connection)
        .await?;
    let rest = found.len() - confirmed;
    for (key, booking, _) in found {
        rows.entry(key).or_default().push(booking);
    }
    let sold = usize::try_from(sold.unwrap_or(-1)).ok();
    let wrong = sold != Some(confirmed) || rest > 0;
    Ok(wrong.then(|| {
        format!(
            "probe event {event}: {confirmed} bookings confirmed and {rest} not, {sold:?} counted as sold"
        )
    }))
}

/// Holds the rows against what was told; returns how many losses were allowed.
fn compare(
    told: &HashMap<String, Told>,
    rows: &HashMap<String, Vec<Uuid>>,
    windows: &Windows,
    violations: &mut Vec<String>,
) -> usize {
    let mut excused = 0;
    for (key, told) in told {
        let Told::Booked { booking, at_ms } = *told else { continue };
        let found = rows.get(key).map_or(&[] as &[Uuid], Vec::as_slice);
        if found == [booking] {
            continue;
        }
        if windows.excuse(at_ms) && found.is_empty() {
            excused += 1;
        } else {
            violations.push(format!("probe {key} was told {booking}, PostgreSQL has {found:?}"));
        }
    }
    let known: HashSet<&String> = told.keys().collect();
    for (key, found) in rows {
        if !known.contains(key) || found.len() > 1 {
            violations.push(format!("PostgreSQL has {found:?} of the probe {key}"));
        }
    }
    excused
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Ack;

    fn windows(ack: Ack) -> Windows {
        let path = std::env::temp_dir().join(format!("boxoffice-probes-{}", Uuid::now_v7()));
        let mut windows = Windows::new(path.clone(), ack).unwrap();
        windows.open(1_000).unwrap();
        windows.close(2_000).unwrap();
        std::fs::remove_file(path).unwrap();
        windows
    }

    /// The excused and the violations where a key was told a booking at a time, and PostgreSQL has these.
    fn judge(at_ms: u64, found: &[u128], ack: Ack) -> (usize, usize) {
        let told = HashMap::from([("k".to_owned(), Told::Booked { booking: Uuid::from_u128(1), at_ms })]);
        let mut rows = HashMap::new();
        if !found.is_empty() {
            rows.insert("k".to_owned(), found.iter().copied().map(Uuid::from_u128).collect());
        }
        let mut violations = Vec::new();
        let excused = compare(&told, &rows, &windows(ack), &mut violations);
        (excused, violations.len())
    }

    #[test]
    fn an_acknowledged_ticket_must_be_there_once() {
        assert_eq!(judge(500, &[1], Ack::Kafka), (0, 0));
        assert_eq!(judge(500, &[], Ack::Kafka), (0, 1));
        assert_eq!(judge(500, &[2], Ack::Kafka), (0, 1));
        assert_eq!(judge(500, &[1, 2], Ack::Kafka), (0, 2));
    }

    #[test]
    fn only_a_loss_in_the_window_of_the_redis_mode_is_excused() {
        assert_eq!(judge(1_500, &[], Ack::Redis), (1, 0));
        assert_eq!(judge(1_500, &[], Ack::Kafka), (0, 1));
        assert_eq!(judge(500, &[], Ack::Redis), (0, 1));
        assert_eq!(judge(1_500, &[2], Ack::Redis), (0, 1));
    }

    #[test]
    fn a_row_that_nobody_asked_for_is_a_violation() {
        let mut violations = Vec::new();
        let rows = HashMap::from([("k".to_owned(), vec![Uuid::from_u128(1)])]);
        compare(&HashMap::new(), &rows, &windows(Ack::Kafka), &mut violations);
        assert_eq!(violations.len(), 1);
    }

    #[tokio::test]
    async fn sales_are_refused_from_one_sale_to_the_next() {
        let from = Instant::now();
        let at = |millis| from + Duration::from_millis(millis);
        let gap = |sold: &[u64]| {
            longest_gap(&sold.iter().map(|millis| at(*millis)).collect::<Vec<_>>(), from, at(1_000))
        };
        assert_eq!(gap(&[]), Duration::from_secs(1));
        assert_eq!(gap(&[100, 400, 900, 1_500]), Duration::from_millis(500));
        assert_eq!(gap(&[950]), Duration::from_millis(950));
    }
}
