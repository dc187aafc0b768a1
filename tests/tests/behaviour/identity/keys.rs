//! API keys: none, a wrong one, one that was revoked, has expired, or was exchanged.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::{KEYS, Key, command, operated};
use crate::gate::{Server, gated};
use crate::http::{Reply, id};
use crate::world::{World, eventually};

/// A call that the document of the contract lists, and the scope that it says a key must have.
struct ClosedCall {
    method: Method,
    path: String,
    scope: String,
}

/// Whatever the document lists, but for what anybody may read. Both are marked as what they are.
fn closed_calls(contract: &Value) -> Vec<ClosedCall> {
    let open = ["/v1/events", "/v1/events/{event_id}", "/v1/events/{event_id}/availability"];
    let mut calls = Vec::new();
    let paths = contract["paths"].as_object().unwrap().iter();
    for (path, item) in paths.filter(|(path, _)| path.starts_with("/v1/")) {
        for (method, operation) in item.as_object().unwrap() {
            let ways = operation["security"].as_array().unwrap();
            let is_open = ways.contains(&json!({}));
            assert_eq!(is_open, method == "get" && open.contains(&path.as_str()), "{method} {path}");
            if !is_open {
                let scope = ways[0]["apiKey"][0].as_str().unwrap().to_owned();
                let id = uuid::Uuid::now_v7().to_string();
                let path = path.replace("{event_id}", &id).replace("{booking_id}", &id);
                let path = path.replace("{customer}", "ann");
                calls.push(ClosedCall { method: method.to_uppercase().parse().unwrap(), path, scope });
            }
        }
    }
    calls
}

async fn send(world: &World, ClosedCall { method, path, .. }: &ClosedCall) -> Reply {
    let request = world.http.request(method.clone(), world.url(path)).header("Idempotency-Key", "k");
    Reply::of(request.json(&json!({})).send().await.unwrap()).await
}

#[tokio::test]
async fn without_a_key_only_what_is_public_is_answered() {
    let (mut world, _) = operated(&KEYS).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    world.present(None);
    let calls = closed_calls(&world.get("/openapi.json").await.expect(200));
    assert_eq!(calls.len(), 11);
    for call in &calls {
        let reply = send(&world, call).await;
        reply.refused(401, "unauthenticated");
        assert_eq!(reply.header("www-authenticate"), Some(r#"Bearer realm="boxoffice""#), "{}", call.path);
    }
    for path in ["/v1/events".to_owned(), format!("/v1/events/{}", event.id), "/livez".to_owned()] {
        world.get(&path).await.expect(200);
    }
    assert_eq!(world.counts(&event, 0).await, (0, 0, 10));
}

#[tokio::test]
async fn a_call_needs_the_scope_that_the_document_names_and_no_other() {
    let (mut world, _) = operated(&KEYS).await;
    let calls = closed_calls(&world.get("/openapi.json").await.expect(200));
    let all = ["events:write", "bookings:write", "bookings:read", "audit:read", "limits:check"];
    for scope in all {
        let others: Vec<&str> = all.into_iter().filter(|other| *other != scope).collect();
        for (scopes, is_enough) in [(scope, true), (others.join(",").as_str(), false)] {
            let key = Key::create(&world.settings, &["--operator"], scopes);
            world.present_key(&key).await;
            let needing: Vec<&ClosedCall> = calls.iter().filter(|call| call.scope == scope).collect();
            assert!(!needing.is_empty(), "{scope}");
            for call in needing {
                let reply = send(&world, call).await;
                assert_eq!(reply.status == 403, !is_enough, "{} with {scopes}: {reply:?}", call.path);
                assert_ne!(reply.status, 401, "{} with {scopes}", call.path);
            }
        }
    }
}

#[tokio::test]
async fn a_wrong_key_is_refused_and_nothing_tells_how_near_it_came() {
    let (mut world, operator) = operated(&KEYS).await;
    let secret = operator.text.split_at(operator.text.len() - 1);
    let last = if secret.1 == "0" { "1" } else { "0" };
    let wrong = format!("{}{last}", secret.0);
    let unknown = format!("bok_0123456789abcdef_{}", "0".repeat(64));
    let mut told = Vec::new();
    for bad in [wrong.as_str(), &unknown, "bok_", "bok", &operator.text.to_uppercase(), "x", &operator.id] {
        world.present(Some(bad));
        // Not even what is public: a client is to learn of it.
        let reply = world.get("/v1/events").await;
        let mut problem = reply.refused(401, "unauthenticated");
        assert_eq!(
            reply.header("www-authenticate"),
            Some(r#"Bearer realm="boxoffice", error="invalid_token""#)
        );
        problem["request_id"] = Value::Null;
        told.push(problem);
    }
    assert!(told.windows(2).all(|pair| pair[0] == pair[1]), "{told:?}");
}

#[tokio::test]
async fn a_credential_in_another_dress_is_refused() {
    let (mut world, operator) = operated(&KEYS).await;
    world.present(None);
    let url = world.url("/v1/events");
    for value in
        [operator.text.clone(), format!("Basic {}", operator.text), format!("Bearer {} x", operator.text)]
    {
        let reply = world.http.get(&url).header("Authorization", value).send().await.unwrap();
        Reply::of(reply).await.refused(401, "unauthenticated");
    }
    let credential = format!("Bearer {}", operator.text);
    let twice =
        world.http.get(&url).header("Authorization", &credential).header("Authorization", &credential);
    Reply::of(twice.send().await.unwrap()).await.refused(401, "unauthenticated");
    // A key in the address would be in every log on the way.
    world.get(&format!("/v1/events?key={}", operator.text)).await.refused(400, "malformed_request");
}

#[tokio::test]
async fn a_revoked_key_is_refused_within_five_seconds() {
    let (mut world, _) = operated(&KEYS).await;
    let stolen = Key::operator(&world.settings);
    world.present_key(&stolen).await;
    let revoked = Instant::now();
    command(&world.settings, &["keys", "revoke", &format!("bok_{}", stolen.id)]).unwrap();
    eventually("the key to be refused", || async { world.get("/v1/events").await.status == 401 }).await;
    assert!(revoked.elapsed() < Duration::from_secs(5), "{:?}", revoked.elapsed());
    world.post("/v1/events", &World::draft(&[1])).await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn an_expired_key_is_refused_though_nobody_revoked_it() {
    let (mut world, _) = operated(&KEYS).await;
    let key = Key::operator(&world.settings);
    world.present_key(&key).await;
    // Long enough that the API reads the keys again before, and looks at the clock from then on.
    sqlx::query("UPDATE api_keys SET expires_at = now() + interval '4 s' WHERE id = $1")
        .bind(&key.id)
        .execute(&world.pool)
        .await
        .unwrap();
    sqlx::query("UPDATE installation SET keys_version = keys_version + 1")
        .execute(&world.pool)
        .await
        .unwrap();
    eventually("the key to have expired", || async { world.get("/v1/events").await.status == 401 }).await;
}

#[tokio::test]
async fn a_rotated_key_is_followed_by_one_whose_retries_are_still_replays() {
    let (mut world, _) = operated(&KEYS).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let old = Key::storefront(&world.settings, "acme");
    world.present_key(&old).await;
    let first = world.book(&event.id, "order-1", &event.request("ann", 1)).await;
    let new = old.rotate(&world.settings, "1");
    // Both are valid for an hour.
    world.get(&format!("/v1/events/{}/bookings", event.id)).await.expect(200);
    world.present_key(&new).await;
    let replay = world.book(&event.id, "order-1", &event.request("ann", 1)).await;
    assert_eq!((replay.status, replay.header("idempotent-replayed")), (201, Some("true")));
    assert_eq!(replay.body, first.body);
    let newest = new.rotate(&world.settings, "0");
    eventually("the old key to end", || async { world.get("/v1/events").await.status == 401 }).await;
    world.present_key(&newest).await;
    world.booking(&event.id, &id(&first.json())).await.expect(200);
}

#[tokio::test]
async fn keys_that_are_known_stay_valid_while_postgresql_is_away_but_not_for_ever() {
    let (mut world, gate) = gated(Server::Postgres, &["--auth", "keys", "--keys-kept-seconds", "6"]).await;
    let operator = Key::operator(&world.settings);
    world.present_key(&operator).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    world.drained(&event).await;
    gate.shut();
    world.book(&event.id, "away", &event.request("ann", 1)).await.expect(201);
    eventually("the keys to be too old to be believed", || async {
        world.book(&event.id, "later", &event.request("ann", 1)).await.status == 503
    })
    .await;
    world.book(&event.id, "later", &event.request("ann", 1)).await.refused(503, "postgres_unavailable");
    let question = json!({"policy": "mails", "key": "ann"});
    world.post("/v1/rate-limit/check", &question).await.refused(503, "postgres_unavailable");
    gate.open();
    eventually("the keys to be known again", || async {
        world.book(&event.id, "later", &event.request("ann", 1)).await.status == 201
    })
    .await;
}

#[tokio::test]
async fn a_key_is_shown_once_and_its_secret_is_kept_nowhere() {
    let (world, operator) = operated(&KEYS).await;
    let secret = operator.text.rsplit('_').next().unwrap();
    let listed = command(&world.settings, &["keys", "list", "--all"]).unwrap();
    let listed = listed + &command(&world.settings, &["keys", "list", "--json"]).unwrap();
    let noted = command(&world.settings, &["audit-log", "--json"]).unwrap();
    assert!(listed.contains(&operator.id) && noted.contains(&operator.id), "{listed}{noted}");
    assert!(!listed.contains(secret) && !noted.contains(secret));
    let row: String = sqlx::query_scalar("SELECT to_jsonb(k)::text FROM api_keys k WHERE id = $1")
        .bind(&operator.id)
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert!(!row.contains(secret), "{row}");
}

#[tokio::test]
async fn a_key_that_would_be_too_mighty_or_endless_is_not_made() {
    let (world, _) = operated(&KEYS).await;
    for bad in [
        vec!["keys", "create", "x", "--storefront", "acme", "--scopes", "events:write"],
        vec!["keys", "create", "x", "--storefront", "acme", "--operator", "--scopes", "bookings:read"],
        vec!["keys", "create", "x", "--scopes", "bookings:read"],
        vec!["keys", "create", "x", "--operator", "--scopes", "everything"],
        vec!["keys", "create", "x", "--operator", "--scopes", "events:write,keys:write"],
        vec!["keys", "create", "x", "--operator"],
        vec!["keys", "create", "", "--operator", "--scopes", "bookings:read"],
        vec!["keys", "create", "x", "--storefront", "a{b}", "--scopes", "bookings:read"],
        vec!["keys", "create", "x", "--operator", "--scopes", "bookings:read", "--expires-in-days", "0"],
        vec!["keys", "create", "x", "--operator", "--scopes", "bookings:read", "--expires-in-days", "4000"],
        vec!["keys", "revoke", "0123456789abcdef"],
        vec!["keys", "rotate", "' OR 1=1 --"],
    ] {
        command(&world.settings, &bad).unwrap_err();
    }
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM api_keys").fetch_one(&world.pool).await.unwrap();
    assert_eq!(rows, 1);
}
