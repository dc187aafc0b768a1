//! How bytes come in and go out: TLS, the bounds of a connection, and what every answer tells browsers.

mod certificate;
mod fields;
mod patience;

use std::future::ready;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use actix_http::HttpService;
use actix_server::{GracefulShutdownSignal, Server, ServerBuilder};
use actix_service::{IntoServiceFactory, ServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_tls::accept::max_concurrent_tls_connect;
use actix_tls::accept::rustls_0_23::{Acceptor, TlsStream};
use actix_web::dev::AppConfig;
use actix_web::middleware::Condition;
use actix_web::rt::net::TcpStream;
use actix_web::web::{Data, ServiceConfig};
use actix_web::{App, Error};
use anyhow::Context;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpSocket;

use crate::office::Office;
use patience::{KEEP_ALIVE, Patient};

pub(crate) use certificate::{TlsFiles, tls};
pub(crate) use fields::{Origins, end_instead_of_upgrading, protect};

/// How long the head of a connection's first request may take; then 408.
const HEAD_WITHIN: Duration = Duration::from_secs(5);

/// How long a client may go on sending after an answer that made its connection end, so that it reads the answer.
const LINGER: Duration = Duration::from_secs(1);

/// How many connections may wait in the kernel until they are accepted; it takes fewer where `net.core.somaxconn` says so, 4,096
/// since Linux 5.4. When a sale opens, thousands come in one moment, and whoever finds no room there is not refused: they
/// try again after a second and more, or their connection breaks when they ask.
const WAITING_MAX: u32 = 4_096;

/// Files that a process has open beside its clients' connections: stores, logs, libraries.
const OTHER_FILES: u64 = 512;

/// The bounds of connections.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    /// Threads that serve.
    pub(crate) workers: usize,
    /// The most connections at once, of all workers together.
    pub(crate) connections: usize,
    /// How long a client may take to send a request, and to take an answer.
    pub(crate) patience: Duration,
    /// How long a shutdown waits for clients.
    pub(crate) shutdown: Duration,
}

impl Bounds {
    /// Each worker has its share: connections are handed out in turn, and none is moved.
    fn connections_per_worker(&self) -> usize {
        self.connections.div_ceil(self.workers)
    }
}

/// What serves the requests of a connection.
#[derive(Clone)]
struct Http {
    routes: fn(&mut ServiceConfig),
    office: Office,
    origins: Origins,
    patience: Duration,
    stopping: GracefulShutdownSignal,
}

/// Takes connections, which wait for [`serve`].
///
/// # Errors
/// Where the address is taken, or is not this machine's.
pub(crate) fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As the standard library does: the last process' connections may still be ending.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(WAITING_MAX)?.into_std()
}

/// Serves until the server is told to stop.
///
/// # Errors
/// Where the listener is of no use.
pub(crate) fn serve(
    listener: TcpListener,
    bounds: &Bounds,
    tls: Option<ServerConfig>,
    origins: Origins,
    (routes, office): (fn(&mut ServiceConfig), Office),
) -> anyhow::Result<Server> {
    open_files_for(bounds.connections);
    let builder = ServerBuilder::new()
        .workers(bounds.workers)
        .max_concurrent_connections(bounds.connections_per_worker())
        .shutdown_timeout(bounds.shutdown.as_secs())
        .disable_signals();
    let stopping = builder.graceful_shutdown_signal();
    let http = Http { routes, office, origins, patience: bounds.patience, stopping };
    let builder = match tls {
        None => builder.listen("http", listener, move || http.over_tcp()),
        Some(config) => {
            // Otherwise 256 clients that do not go on with their handshakes would keep all others out.
            max_concurrent_tls_connect(bounds.connections_per_worker());
            let acceptor = Acceptor::new(config);
            builder.listen("https", listener, move || http.over_tls(acceptor.clone()))
        }
    };
    Ok(builder.context("BOXOFFICE_LISTEN")?.run())
}

impl Http {
    fn over_tcp(
        &self,
    ) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = (), InitError = ()> + use<> {
        let patience = self.patience;
        fn_service(move |stream: TcpStream| {
            let peer = stream.peer_addr().ok();
            ready(Ok((Patient::new(stream, patience), peer)))
        })
        .and_then(self.service())
    }

    fn over_tls(
        &self,
        acceptor: Acceptor,
    ) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = (), InitError = ()> + use<> {
        let patience = self.patience;
        let failed = |error| {
            metrics::counter!("boxoffice_tls_handshakes_failed_total").increment(1);
            tracing::debug!(?error, "a TLS handshake failed");
        };
        <Acceptor as ServiceFactoryExt<TcpStream>>::map_err(acceptor, failed)
            .and_then(fn_service(move |stream: TlsStream<TcpStream>| {
                let peer = stream.get_ref().0.peer_addr().ok();
                ready(Ok((Patient::new(stream, patience), peer)))
            }))
            .and_then(self.service())
    }

    /// HTTP/1.1 and nothing else: HTTP/2 would come without bounds on slow clients and streams.
    fn service<S: AsyncRead + AsyncWrite + Unpin + 'static>(
        &self,
    ) -> impl ServiceFactory<(S, Option<SocketAddr>), Config = (), Response = (), Error = (), InitError = ()>
    + use<S> {
        let Self { routes, office, origins, stopping, .. } = self.clone();
        let cors = Condition::new(!origins.is_empty(), origins.cors());
        // Each worker makes its service on its own thread.
        let office = Data::new(office.of_this_thread());
        let application = App::new().app_data(office).configure(routes).wrap(cors);
        let application = application.into_factory().map_err(|error: Error| error.error_response());
        HttpService::build()
            .keep_alive(KEEP_ALIVE)
            .client_request_timeout(HEAD_WITHIN)
            .client_disconnect_timeout(LINGER)
            .graceful_shutdown_signal(move || {
                let stopping = stopping.clone();
                async move { stopping.notified().await }
            })
            .h1(map_config(application, |()| AppConfig::default()))
            .map_err(|error| tracing::debug!(%error, "a connection was ended"))
    }
}

/// Lets this process have as many files open as it may, and says where that is too few.
fn open_files_for(connections: usize) {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let needed = connections as u64 + OTHER_FILES;
    let wanted = needed.min(hard);
    if soft < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_err() {
        tracing::warn!(soft, wanted, "the limit of open files could not be raised");
    }
    if hard < needed {
        tracing::error!(
            hard,
            needed,
            "BOXOFFICE_CONNECTIONS is more than the limit of open files allows: raise that (ulimit -n)"
        );
    }
}
