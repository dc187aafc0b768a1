//! TLS with certificates that were made for the test.

use boxoffice_api::config::Options;
use clap::Parser;
use rcgen::generate_simple_self_signed;
use reqwest::{Certificate, Version};
use tokio_util::sync::CancellationToken;

use super::{Raw, metric};
use crate::temporary::TemporaryFile;
use crate::world::{Settings, World, eventually};

/// A certificate and its key, as files that a test may change.
struct Pair {
    trusted: Certificate,
    certificate: TemporaryFile,
    key: TemporaryFile,
}

impl Pair {
    fn new() -> Self {
        let (certificate, key) = made();
        Self {
            trusted: Certificate::from_pem(certificate.as_bytes()).unwrap(),
            certificate: TemporaryFile::new("certificate", &certificate),
            key: TemporaryFile::new("key", &key),
        }
    }

    fn replace(&mut self) {
        let (certificate, key) = made();
        self.trusted = Certificate::from_pem(certificate.as_bytes()).unwrap();
        self.certificate.replace(&certificate);
        self.key.replace(&key);
    }

    fn arguments(&self) -> [&str; 4] {
        ["--tls-cert", self.certificate.name(), "--tls-key", self.key.name()]
    }

    /// Trusts this certificate alone.
    fn client(&self) -> reqwest::Client {
        reqwest::Client::builder().tls_certs_only([self.trusted.clone()]).build().unwrap()
    }

    /// Starts an API that serves by it.
    async fn world(&self) -> World {
        let settings = Settings::fresh().await;
        boxoffice_reconciler::migrate::migrate(&settings.reconciler()).await.unwrap();
        let stop = CancellationToken::new();
        settings.start_reconciler(&stop);
        let base = settings.start_api(&self.arguments(), &stop).await.replace("http://", "https://");
        let mut world = World::looking_at(settings, base, stop).await;
        world.http = self.client();
        world.selling().await;
        world
    }
}

fn made() -> (String, String) {
    let made = generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

async fn is_served(world: &World, client: &reqwest::Client) -> bool {
    client.get(world.url("/livez")).send().await.is_ok_and(|reply| reply.status() == 200)
}

#[tokio::test]
async fn tickets_are_sold_over_tls_and_not_in_the_clear_beside_it() {
    let pair = Pair::new();
    let world = pair.world().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let booked = world.book(&event.id, "k", &event.request("ann", 1)).await;
    booked.expect(201);
    assert_eq!(booked.header("strict-transport-security"), Some("max-age=31536000"));
    let reply = world.http.get(world.url("/livez")).send().await.unwrap();
    assert_eq!(reply.version(), Version::HTTP_11);
    assert!(!is_served(&world, &Pair::new().client()).await, "another certificate was taken for ours");

    let plain = world.base.replace("https://", "http://");
    assert!(reqwest::get(format!("{plain}/livez")).await.is_err(), "plain HTTP was answered");
    let mut client = Raw::to(&world).await;
    client.send("GET /livez HTTP/1.1\r\nHost: boxoffice\r\n\r\n").await;
    let said = client.rest().await;
    assert!(said < 16, "{said} bytes are more than an alert");
    world.book(&event.id, "l", &event.request("ann", 1)).await.expect(201);
}

#[tokio::test]
async fn a_handshake_that_does_not_go_on_is_ended_and_keeps_nobody_out() {
    let pair = Pair::new();
    let world = pair.world().await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(Raw::to(&world).await);
    }
    assert!(is_served(&world, &pair.client()).await, "300 unfinished handshakes kept another out");
    for client in silent.drain(..).take(3) {
        client.ended().await;
    }
}

#[tokio::test]
async fn a_new_certificate_is_served_without_a_restart_and_ends_no_connection() {
    let mut pair = Pair::new();
    let world = pair.world().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let old = pair.client();
    assert!(is_served(&world, &old).await);
    pair.replace();
    eventually("the new certificate to be served", || async { is_served(&world, &pair.client()).await })
        .await;
    // Its connection was made before; a new one by the old certificate is not to be had any more.
    assert!(is_served(&world, &old).await, "a connection was ended by a new certificate");
    world.book(&event.id, "k", &event.request("ann", 1)).await.expect(201);
}

#[tokio::test]
async fn a_broken_file_leaves_the_certificate_that_is_served_and_is_told_by_a_metric() {
    let mut pair = Pair::new();
    let world = pair.world().await;
    let valid = || metric(&world, "boxoffice_tls_certificate_valid");
    for broken in ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", &made().1] {
        pair.key.replace(broken);
        // Other worlds of this process tell the same metric that theirs is well, so that it is 0 now and then.
        eventually("the metric to tell", || async { valid().await == Some(0.0) }).await;
        assert!(is_served(&world, &pair.client()).await, "{broken:?} was put in force");
    }
    std::fs::remove_file(pair.key.path()).unwrap();
    eventually("the metric to tell", || async { valid().await == Some(0.0) }).await;
    assert!(is_served(&world, &pair.client()).await);
    pair.replace();
    eventually("the mended pair to be served", || async { is_served(&world, &pair.client()).await }).await;
}

#[tokio::test]
async fn half_a_pair_or_a_pair_that_does_not_match_is_refused_at_start() {
    let pair = Pair::new();
    let settings = Settings::fresh().await;
    boxoffice_reconciler::migrate::migrate(&settings.reconciler()).await.unwrap();
    let options = |more: &[&str]| Options::parse_from(settings.api_arguments(more));
    let [cert, certificate, flag, key] = pair.arguments();
    let half = options(&[cert, certificate]).checked().unwrap_err().to_string();
    assert!(half.contains("BOXOFFICE_TLS_KEY is not"), "{half}");
    let half = options(&[flag, key]).checked().unwrap_err().to_string();
    assert!(half.contains("BOXOFFICE_TLS_CERT is not"), "{half}");
    let other = Pair::new();
    for (given, says) in [
        (other.key.name(), "is not the key of"),
        (certificate, "no private key"),
        ("/nowhere", "cannot be read"),
    ] {
        let config = options(&[cert, certificate, flag, given, "--listen", "127.0.0.1:0"]).checked().unwrap();
        let refused = boxoffice_api::startup::Application::build(config).await.err().unwrap();
        let refused = format!("{refused:#}");
        assert!(refused.contains("BOXOFFICE_TLS_KEY") && refused.contains(says), "{refused}");
    }
}
