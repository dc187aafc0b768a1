//! What browsers are told.

use reqwest::Method;
use serde_json::json;

use crate::http::{Reply, id};
use crate::world::World;

const SHOP: &str = "https://shop.example";
const CORS: [&str; 2] = ["--cors-origins", "https://shop.example,http://localhost:3000"];

#[tokio::test]
async fn every_answer_protects_whoever_reads_it_in_a_browser() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let booked = world.book(&event.id, "k", &event.request("ann", 1)).await;
    let booking = id(&booked.expect(201));
    let path = format!("/v1/events/{}", event.id);
    for (reply, cache) in [
        (booked, "no-store"),
        (world.booking(&event.id, &booking).await, "no-store"),
        (world.get("/v1/customers/ann/bookings").await, "no-store"),
        (world.get(&format!("{path}/bookings")).await, "no-store"),
        (world.get(&format!("{path}/audit")).await, "no-store"),
        (world.book(&event.id, "k", &event.request("bob", 1)).await, "no-store"),
        (world.patch(&event.id, &json!({"name": "Another"})).await, "no-store"),
        (world.get("/nowhere").await, "no-store"),
        (world.get("/v1/events/none").await, "no-store"),
        (world.get("/metrics").await, "no-store"),
        (world.get(&path).await, "no-cache"),
        (world.get(&format!("{path}/availability")).await, "no-cache"),
        (world.get("/v1/events").await, "no-cache"),
        (world.get("/docs/").await, "no-cache"),
    ] {
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{reply:?}");
        assert_eq!(reply.header("referrer-policy"), Some("no-referrer"), "{reply:?}");
        assert_eq!(reply.header("cache-control"), Some(cache), "{reply:?}");
        assert!(reply.header("content-security-policy").unwrap().contains("default-src 'none'"), "{reply:?}");
        assert_eq!(reply.header("strict-transport-security"), None, "only TLS may ask for TLS: {reply:?}");
    }
    let page = world.get("/docs/").await;
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("script-src 'self'") && policy.contains("connect-src 'self'"), "{policy}");
}

async fn from_site(
    world: &World,
    origin: &str,
    method: Method,
    path: &str,
    asks_for: &[(&str, &str)],
) -> Reply {
    let mut request = world.http.request(method, world.url(path)).header("Origin", origin);
    for (name, value) in asks_for {
        request = request.header(*name, *value);
    }
    Reply::of(request.send().await.unwrap()).await
}

#[tokio::test]
async fn a_listed_site_may_book_from_a_browser_and_read_what_it_needs() {
    let world = World::start_with(&CORS).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let path = format!("/v1/events/{}/bookings", event.id);
    let asks = [
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "authorization,content-type,idempotency-key"),
    ];
    let preflight = from_site(&world, SHOP, Method::OPTIONS, &path, &asks).await;
    assert_eq!(preflight.status, 200, "{preflight:?}");
    assert_eq!(preflight.header("access-control-allow-origin"), Some(SHOP));
    assert!(preflight.header("access-control-allow-methods").unwrap().contains("POST"));
    let allowed = preflight.header("access-control-allow-headers").unwrap().to_ascii_lowercase();
    for field in ["authorization", "content-type", "idempotency-key", "if-match", "if-none-match"] {
        assert!(allowed.contains(field), "{field}: {allowed}");
    }
    assert!(preflight.header("access-control-max-age").is_some());
    assert_eq!(preflight.header("access-control-allow-credentials"), None);

    let body = event.request("ann", 1);
    let request = world.http.post(world.url(&path)).header("Origin", SHOP).header("Idempotency-Key", "k");
    let booked = Reply::of(request.json(&body).send().await.unwrap()).await;
    booked.expect(201);
    assert_eq!(booked.header("access-control-allow-origin"), Some(SHOP));
    assert!(booked.header("vary").unwrap().to_ascii_lowercase().contains("origin"));
    let exposed = booked.header("access-control-expose-headers").unwrap().to_ascii_lowercase();
    for field in [
        "location",
        "etag",
        "link",
        "ratelimit",
        "ratelimit-policy",
        "retry-after",
        "idempotent-replayed",
        "x-request-id",
    ] {
        assert!(exposed.split(',').any(|shown| shown.trim() == field), "{field}: {exposed}");
    }
    let refused = from_site(&world, SHOP, Method::GET, "/v1/events/none", &[]).await;
    refused.refused(404, "event_not_found");
    assert_eq!(refused.header("access-control-allow-origin"), Some(SHOP), "errors are to be read too");
}

#[tokio::test]
async fn another_site_is_told_nothing_that_its_browser_would_let_it_read() {
    let world = World::start_with(&CORS).await;
    let asks = [("Access-Control-Request-Method", "POST")];
    for other in ["https://evil.example", "https://shop.example.evil.example", "http://shop.example", "null"]
    {
        let preflight = from_site(&world, other, Method::OPTIONS, "/v1/events", &asks).await;
        assert_eq!(preflight.header("access-control-allow-origin"), None, "{other}: {preflight:?}");
        let read = from_site(&world, other, Method::GET, "/v1/events", &[]).await;
        assert_eq!(read.header("access-control-allow-origin"), None, "{other}: {read:?}");
    }
    let plain = world.get("/v1/events").await;
    plain.expect(200);
    let options =
        Reply::of(world.http.request(Method::OPTIONS, world.url("/v1/events")).send().await.unwrap()).await;
    assert_eq!((options.status, options.header("allow")), (204, Some("GET, HEAD, OPTIONS, POST")));
}

#[tokio::test]
async fn no_site_may_call_unless_one_is_listed() {
    let world = World::start().await;
    let asks = [("Access-Control-Request-Method", "POST")];
    let preflight = from_site(&world, SHOP, Method::OPTIONS, "/v1/events", &asks).await;
    assert_eq!(preflight.header("access-control-allow-origin"), None);
    let read = from_site(&world, SHOP, Method::GET, "/v1/events", &[]).await;
    assert_eq!(read.header("access-control-allow-origin"), None);
}
