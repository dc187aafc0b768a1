//! One HTTP call, timed and read.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use reqwest::{
    Method, Request, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER},
};
use uuid::Uuid;

/// Servers commonly drop idle connections after 5 s. Dropping them earlier here avoids sending into a connection that
/// is being closed, which would look like an unanswered request.
const IDLE: Duration = Duration::from_secs(3);

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const BOXOFFICE_STALE: HeaderName = HeaderName::from_static("boxoffice-stale");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The API as seen by operator and buyers; all users share its pool of connections.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    authorization: Option<HeaderValue>,
    patience: Duration,
}

/// A call to make.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) key: Option<String>,
    pub(crate) body: Option<String>,
    /// Overrides the client's own patience, where a scenario is impatient on purpose.
    pub(crate) patience: Option<Duration>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// `Idempotent-Replayed: true`.
    pub(crate) replayed: bool,
    /// `Boxoffice-Stale: true`: read from PostgreSQL, which may be behind.
    pub(crate) stale: bool,
    /// Whether there was a `Location`.
    pub(crate) location: bool,
    /// `Retry-After` in seconds.
    pub(crate) retry_after: Option<u64>,
    /// Whether the body is `application/problem+json`.
    pub(crate) problem: bool,
    pub(crate) body: Bytes,
}

impl Client {
    /// A client of the API at `base` that waits `patience` for an answer.
    pub(crate) fn new(base: String, token: Option<&str>, patience: Duration) -> Result<Self> {
        let http = reqwest::Client::builder()
            .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
            .pool_idle_timeout(IDLE)
            .tcp_nodelay(true)
            .http1_only()
            .no_proxy()
            .no_gzip()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("the HTTP client could not be built")?;
        let authorization = token
            .map(|token| HeaderValue::from_str(&format!("Bearer {token}")))
            .transpose()
            .context("--token holds characters that no header may carry")?;
        Ok(Self { http, base, authorization, patience })
    }

    /// The URL of a path.
    pub(crate) fn url(&self, path: &str) -> Result<Url> {
        Url::parse(&format!("{}{path}", self.base))
            .with_context(|| format!("{}{path} is not a URL", self.base))
    }

    /// The URL of something about an event; `tail` begins with a slash or is empty.
    pub(crate) fn event_url(&self, event: Uuid, tail: &str) -> Result<Url> {
        self.url(&format!("/v1/events/{event}{tail}"))
    }

    /// Makes the call and reads the whole answer. The error says why there is none.
    pub(crate) async fn send(&self, call: Call) -> Result<Answer, Silence> {
        let mut request = Request::new(call.method, call.url);
        *request.timeout_mut() = Some(call.patience.unwrap_or(self.patience));
        let headers = request.headers_mut();
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        if let Some(key) = call.key {
            headers
                .insert(IDEMPOTENCY_KEY, HeaderValue::try_from(key).map_err(|_ignored| Silence::Unsendable)?);
        }
        if let Some(body) = call.body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *request.body_mut() = Some(body.into());
        }
        let response = self.http.execute(request).await.map_err(Silence::from)?;
        let headers = response.headers();
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let mut answer = Answer {
            status: response.status().as_u16(),
            replayed: text(IDEMPOTENT_REPLAYED) == Some("true"),
            stale: text(BOXOFFICE_STALE) == Some("true"),
            location: headers.contains_key(LOCATION),
            retry_after: text(RETRY_AFTER).and_then(|seconds| seconds.parse().ok()),
            problem: text(CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/problem+json")),
            body: Bytes::new(),
        };
        answer.body = response.bytes().await.map_err(Silence::from)?;
        Ok(answer)
    }
}

impl Answer {
    /// An answer with a body and nothing else, for tests.
    #[cfg(test)]
    pub(crate) fn of(status: u16, body: String) -> Self {
        let (replayed, stale, location, retry_after, problem) = (false, false, false, None, false);
        Self { status, replayed, stale, location, retry_after, problem, body: body.into() }
    }
}

impl Call {
    /// Reads something.
    pub(crate) fn get(url: Url) -> Self {
        Self { method: Method::GET, url, key: None, body: None, patience: None }
    }

    /// Asks for something to be done, without a key.
    pub(crate) fn post(url: Url, body: Option<String>) -> Self {
        Self { method: Method::POST, url, key: None, body, patience: None }
    }
}

/// Why a call got no answer. The request may have been carried out all the same.
#[derive(Debug)]
pub(crate) enum Silence {
    /// The client stopped waiting.
    TimedOut,
    /// The connection could not be made or broke.
    Connection(String),
    /// The request could not be formed.
    Unsendable,
}

impl From<reqwest::Error> for Silence {
    fn from(error: reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::TimedOut;
        }
        let error = error.without_url();
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        Self::Connection(text)
    }
}

impl std::fmt::Display for Silence {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TimedOut => formatter.write_str("no answer in time"),
            Self::Connection(text) => formatter.write_str(text),
            Self::Unsendable => formatter.write_str("the request could not be formed"),
        }
    }
}

impl std::error::Error for Silence {}
