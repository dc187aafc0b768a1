//! Building an application apart from running it, and its route table.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::guard::{Any, Get, Head};
use actix_web::http::Method;
use actix_web::http::header::ALLOW;
use actix_web::middleware::from_fn;
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpResponse, Resource, Route};
use anyhow::Context;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::actions::Journal;
use crate::catalogue::Catalogue;
use crate::config::Config;
use crate::database::{Database, Probe};
use crate::error::{Code, Problem};
use crate::find::Stores;
use crate::identity::{Authentication, JwksReader, KeyRing, Mode, Tokens};
use crate::inventory::{self, Epochs, Inventory, Workers};
use crate::limits::{Limits, Stream};
use crate::observe::observe;
use crate::office::Office;
use crate::routes::{audit, bookings, docs, events, machines, rate_limit};
use crate::telemetry;
use crate::transport::{Bounds, Origins, listen, serve, tls};

/// At start, for what the application needs to show itself.
const FIRST_LOOK: Duration = Duration::from_secs(1);

const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// One Boxoffice API; a process may run many.
pub struct Application {
    listener: TcpListener,
    port: u16,
    tls: Option<rustls::ServerConfig>,
    origins: Origins,
    bounds: Bounds,
    shutdown: Duration,
    office: Office,
    probe: Probe,
    jwks: Option<JwksReader>,
    inventory_workers: Workers,
    inventory_stop: CancellationToken,
}

impl Application {
    /// Binds the port and starts what is behind it. Neither Redis nor Kafka nor PostgreSQL need to be there yet.
    ///
    /// # Errors
    /// Names the variable that is wrong, or that the installation contradicts; where it is to be strict, everything
    /// by which Redis would break a promise.
    pub async fn build(config: Config) -> anyhow::Result<Self> {
        let metrics = telemetry::metrics()?;
        let listener = listen(config.listen)
            .with_context(|| format!("BOXOFFICE_LISTEN: {} cannot be bound", config.listen))?;
        let port = listener.local_addr().context("BOXOFFICE_LISTEN")?.port();
        let (keys, keys_writer) = KeyRing::new(config.keys_kept);
        let epochs = Arc::new(Epochs::new(config.inventory.keys.clone(), config.inventory.shards));
        let (database, mut probe) = Database::new(&config, keys_writer, epochs.clone())?;
        probe.look().await?;
        let inventory_stop = CancellationToken::new();
        if config.strict {
            inventory::refuse_unsafe(&config.inventory, epochs.clone()).await?;
        }
        let (inventory, inventory_workers) =
            Inventory::start(config.inventory.clone(), epochs, &inventory_stop)?;
        wait_for(&inventory).await;
        let stores = Stores { inventory, database };
        let (authentication, jwks) = authentication(&config, keys).await?;
        let authentication = Arc::new(authentication);
        let limits = limits(&config, &inventory_stop)?;
        let catalogue = Catalogue::new(stores.clone());
        let journal = Journal::new(stores.database.clone());
        let proxies = config.trusted_proxies;
        let tls = config.tls.map(|files| tls(files, &inventory_stop)).transpose()?;
        let is_secure = tls.is_some();
        let office =
            Office { authentication, catalogue, stores, journal, limits, proxies, is_secure, metrics };
        Ok(Self {
            listener,
            port,
            tls,
            origins: config.origins,
            bounds: config.bounds,
            shutdown: config.shutdown,
            office,
            probe,
            jwks,
            inventory_workers,
            inventory_stop,
        })
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Serves until the token is cancelled; then answers what is in flight, and brings what was decided to Kafka.
    ///
    /// # Errors
    /// Where the server fails, or PostgreSQL turns out to be another installation's.
    pub async fn run_until_stopped(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let upkeep = tokio::spawn(keep_up(self.office.metrics.clone()));
        let jwks = self.jwks.map(|reader| tokio::spawn(reader.watch()));
        let is_secure = self.tls.is_some();
        let workers = self.bounds.workers;
        let server = serve(self.listener, &self.bounds, self.tls, self.origins, (routes, self.office))?;
        let handle = server.handle();
        let server = tokio::spawn(server);
        tracing::info!(port = self.port, workers, tls = is_secure, "serving");
        let ended = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            wrong = self.probe.watch(shutdown.clone()) => wrong,
        };
        let since = Instant::now();
        tracing::info!("stopping: requests in flight are answered, decisions brought to Kafka");
        handle.stop(true).await;
        let served = server.await.context("the HTTP server panicked")?.context("the HTTP server failed");
        // The workers' handles of the inventory are gone by now; its queues are closed and its relays flush.
        self.inventory_stop.cancel();
        if self.inventory_workers.finished(self.shutdown.saturating_sub(since.elapsed())).await {
            tracing::info!("stopped");
        } else {
            tracing::warn!("stopped before everything was sent; another instance goes on with it");
        }
        upkeep.abort();
        if let Some(reader) = jwks {
            reader.abort();
        }
        ended.and(served)
    }
}

async fn authentication(
    config: &Config,
    keys: KeyRing,
) -> anyhow::Result<(Authentication, Option<JwksReader>)> {
    if config.auth == Mode::Off {
        tracing::warn!(listen = %config.listen, "authentication is off: whoever reaches this address may do everything");
        return Ok((Authentication::Off, None));
    }
    let Some(settings) = config.tokens.clone() else {
        return Ok((Authentication::On { keys, tokens: None }, None));
    };
    let (tokens, reader) = Tokens::new(settings)?;
    reader.begin().await?;
    Ok((Authentication::On { keys, tokens: Some(Box::new(tokens)) }, Some(reader)))
}

fn limits(config: &Config, stop: &CancellationToken) -> anyhow::Result<Option<Arc<Limits>>> {
    let Some(path) = config.rate_limits.clone() else { return Ok(None) };
    let instance = Uuid::now_v7().to_string();
    let stream = Stream::new(&config.inventory.kafka_brokers, config.rate_limit_topic.clone(), instance)?;
    Limits::start(path, config.inventory.keys.clone(), stream, stop).map(Some)
}

/// Gives Redis and Kafka a moment to answer, so that the first clients do not meet a process that has yet to connect.
async fn wait_for(inventory: &Inventory) {
    let since = Instant::now();
    let ready = || {
        let health = inventory.health();
        health.redis.is_ok() && health.kafka.is_ok()
    };
    while !ready() && since.elapsed() < FIRST_LOOK {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let health = inventory.health();
    for (dependency, health) in [("Redis", health.redis), ("Kafka", health.kafka)] {
        if let Err(reason) = health {
            tracing::error!(dependency, reason, "not there yet; serving what can be served, trying again");
        }
    }
}

async fn keep_up(metrics: PrometheusHandle) {
    loop {
        tokio::time::sleep(UPKEEP_INTERVAL).await;
        metrics.run_upkeep();
    }
}

/// A token that SIGTERM or SIGINT cancels.
///
/// # Errors
/// Where the system does not let us listen for signals.
pub fn shutdown_signal() -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        cancelled.cancel();
    });
    Ok(token)
}

/// The route table. It is searched from its beginning, where the on-sale's own routes are.
fn routes(config: &mut ServiceConfig) {
    route(config, "/v1/events/{event_id}/bookings", "GET, HEAD, OPTIONS, POST", |at| {
        at.route(web::post().to(bookings::create)).route(reading().to(bookings::of_event))
    });
    route(config, "/v1/events/{event_id}/availability", "GET, HEAD, OPTIONS", |at| {
        at.route(reading().to(events::availability))
    });
    route(config, "/v1/events/{event_id}/bookings/{booking_id}", "GET, HEAD, OPTIONS", |at| {
        at.route(reading().to(bookings::read))
    });
    route(config, "/v1/events/{event_id}/bookings/{booking_id}/confirm", "OPTIONS, POST", |at| {
        at.route(web::post().to(bookings::confirm))
    });
    route(config, "/v1/events/{event_id}/bookings/{booking_id}/cancel", "OPTIONS, POST", |at| {
        at.route(web::post().to(bookings::cancel))
    });
    route(config, "/v1/customers/{customer}/bookings", "GET, HEAD, OPTIONS", |at| {
        at.route(reading().to(bookings::of_customer))
    });
    route(config, "/v1/events/{event_id}", "GET, HEAD, OPTIONS, PATCH", |at| {
        at.route(reading().to(events::read)).route(web::patch().to(events::amend))
    });
    route(config, "/v1/events", "GET, HEAD, OPTIONS, POST", |at| {
        at.route(reading().to(events::list)).route(web::post().to(events::create))
    });
    route(config, "/v1/events/{event_id}/publish", "OPTIONS, POST", |at| {
        at.route(web::post().to(events::publish))
    });
    route(config, "/v1/events/{event_id}/audit", "GET, HEAD, OPTIONS", |at| {
        at.route(reading().to(audit::audit))
    });
    route(config, "/v1/rate-limit/check", "OPTIONS, POST", |at| at.route(web::post().to(rate_limit::check)));
    route(config, "/livez", "GET, HEAD, OPTIONS", |at| at.route(reading().to(machines::livez)));
    route(config, "/readyz", "GET, HEAD, OPTIONS", |at| at.route(reading().to(machines::readyz)));
    route(config, "/metrics", "GET, HEAD, OPTIONS", |at| at.route(reading().to(machines::metrics)));
    route(config, "/openapi.json", "GET, HEAD, OPTIONS", |at| at.route(reading().to(machines::openapi)));
    route(config, "/docs", "GET, HEAD, OPTIONS", |at| at.route(reading().to(docs::entrance)));
    route(config, "/docs/{file:.*}", "GET, HEAD, OPTIONS", |at| at.route(reading().to(docs::file)));
    let nowhere = async || Err::<HttpResponse, Problem>(Problem::new(Code::NotFound));
    config.default_service(web::to(nowhere).wrap(from_fn(|request, next| observe("unknown", request, next))));
}

/// A resource: observed under its path, with the methods that it has for who asks, and a refusal for all others.
fn route(
    config: &mut ServiceConfig,
    path: &'static str,
    allow: &'static str,
    add: impl FnOnce(Resource) -> Resource,
) {
    let options = move || async move { HttpResponse::NoContent().insert_header((ALLOW, allow)).finish() };
    let refuse = move || async move { Err::<HttpResponse, Problem>(Problem::method_not_allowed(allow)) };
    let resource = add(web::resource(path).route(web::route().method(Method::OPTIONS).to(options)));
    let resource = resource.default_service(web::to(refuse));
    config.service(resource.wrap(from_fn(move |request, next| observe(path, request, next))));
}

/// GET, and HEAD as HTTP has it: the same without the body.
fn reading() -> Route {
    web::route().guard(Any(Get()).or(Head()))
}
