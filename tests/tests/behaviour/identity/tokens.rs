//! Tokens of buyers: forged in every way that is known to work somewhere, and what a right one reaches.

use std::sync::{Arc, Mutex};

use chrono::Utc;
use serde_json::{Value, json};

use super::provider::{By, Provider, provided, serve, with_tokens};
use super::{Key, command};
use crate::http::{Event, Reply, id};
use crate::world::{World, eventually};

fn ed() -> Value {
    json!({"alg": "EdDSA", "kid": "ed", "typ": "JWT"})
}

fn claims_with(field: &str, value: Value) -> Value {
    let mut claims = Provider::claims("ann");
    claims[field] = value;
    claims
}

/// Asserts that a token is refused, also where none is needed.
async fn refused(world: &mut World, token: &str) {
    world.present(Some(token));
    let reply = world.get("/v1/events").await;
    let problem = reply.refused(401, "unauthenticated");
    assert!(reply.header("www-authenticate").unwrap().contains(r#"error="invalid_token""#), "{problem}");
    world.get("/v1/customers/ann/bookings").await.refused(401, "unauthenticated");
}

async fn taken(world: &mut World, token: &str) {
    world.present(Some(token));
    world.get("/v1/customers/ann/bookings").await.expect(200);
}

#[tokio::test]
async fn a_right_token_is_taken_by_either_algorithm() {
    let (mut world, _, provider) = provided().await;
    taken(&mut world, &provider.token("ann")).await;
    let rsa = json!({"alg": "RS256", "kid": "rsa"});
    taken(&mut world, &provider.sign(&rsa, &Provider::claims("ann"), By::Rsa)).await;
    let audiences = claims_with("aud", json!(["other", "boxoffice"]));
    taken(&mut world, &provider.sign(&ed(), &audiences, By::Ed)).await;
}

#[tokio::test]
async fn an_expired_token_is_refused_beyond_the_leeway() {
    let (mut world, _, provider) = provided().await;
    let now = Utc::now().timestamp();
    taken(&mut world, &provider.sign(&ed(), &claims_with("exp", json!(now - 2)), By::Ed)).await;
    for exp in [json!(now - 60), json!(0), json!(-1), json!("9999999999"), json!(null), json!([now + 600])] {
        refused(&mut world, &provider.sign(&ed(), &claims_with("exp", exp), By::Ed)).await;
    }
}

#[tokio::test]
async fn a_token_that_is_not_yet_valid_is_refused() {
    let (mut world, _, provider) = provided().await;
    let now = Utc::now().timestamp();
    taken(&mut world, &provider.sign(&ed(), &claims_with("nbf", json!(now + 10)), By::Ed)).await;
    for nbf in [json!(now + 300), json!("soon")] {
        refused(&mut world, &provider.sign(&ed(), &claims_with("nbf", nbf), By::Ed)).await;
    }
}

#[tokio::test]
async fn an_unsigned_token_is_refused_however_none_is_spelled() {
    let (mut world, _, provider) = provided().await;
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        for kid in ["ed", "rsa"] {
            let header = json!({"alg": alg, "kid": kid});
            refused(&mut world, &provider.sign(&header, &Provider::claims("ann"), By::Nothing)).await;
        }
    }
    refused(&mut world, &provider.sign(&ed(), &Provider::claims("ann"), By::Nothing)).await;
}

#[tokio::test]
async fn a_token_signed_with_the_public_key_as_a_secret_is_refused() {
    let (mut world, _, provider) = provided().await;
    for kid in ["rsa", "ed"] {
        for alg in ["HS256", "RS256", "EdDSA"] {
            let header = json!({"alg": alg, "kid": kid});
            refused(&mut world, &provider.sign(&header, &Provider::claims("ann"), By::PublicKey)).await;
        }
    }
}

#[tokio::test]
async fn a_key_verifies_by_its_own_algorithm_and_no_other() {
    let (mut world, _, provider) = provided().await;
    for (alg, kid, by) in [
        ("EdDSA", "rsa", By::Ed),
        ("EdDSA", "rsa", By::Rsa),
        ("RS256", "ed", By::Rsa),
        ("RS384", "rsa", By::Rsa),
        ("PS256", "rsa", By::Rsa),
        ("ES256", "unused", By::Rsa),
    ] {
        let header = json!({"alg": alg, "kid": kid});
        refused(&mut world, &provider.sign(&header, &Provider::claims("ann"), by)).await;
    }
}

#[tokio::test]
async fn a_token_of_another_issuer_is_refused() {
    let (mut world, _, provider) = provided().await;
    for issuer in [
        json!("https://evil.example/"),
        json!("https://id.example"),
        json!(["https://id.example/"]),
        json!(null),
    ] {
        refused(&mut world, &provider.sign(&ed(), &claims_with("iss", issuer), By::Ed)).await;
    }
    // Another provider's own keys, under the names of this one's.
    refused(&mut world, &Provider::new().token("ann")).await;
}

#[tokio::test]
async fn a_token_for_another_audience_is_refused() {
    let (mut world, _, provider) = provided().await;
    for audience in [json!("other"), json!(["other"]), json!([]), json!(null), json!("boxoffice "), json!(7)]
    {
        refused(&mut world, &provider.sign(&ed(), &claims_with("aud", audience), By::Ed)).await;
    }
}

#[tokio::test]
async fn a_kid_with_a_path_or_sql_in_it_is_only_a_name_that_nobody_has() {
    let (mut world, _, provider) = provided().await;
    for kid in [
        json!("../../../../dev/null"),
        json!("/etc/hostname"),
        json!("ed' OR '1'='1"),
        json!("x'; DROP TABLE api_keys; --"),
        json!("http://evil.example/jwks"),
        json!("ed\u{0}"),
        json!(""),
        json!("k".repeat(4_000)),
        json!(null),
        json!(7),
    ] {
        let header = json!({"alg": "EdDSA", "kid": kid});
        refused(&mut world, &provider.sign(&header, &Provider::claims("ann"), By::Ed)).await;
    }
    command(&world.settings, &["keys", "list"]).unwrap();
}

#[tokio::test]
async fn a_key_that_the_token_brings_along_is_not_believed() {
    let (mut world, _, _) = provided().await;
    let evil = Provider::new();
    let set = Arc::new(Mutex::new(evil.jwks("")));
    let url = serve(set).await;
    let own = evil.jwks("")["keys"][1].clone();
    for (field, value) in [("jwk", own), ("jku", json!(url)), ("x5u", json!(url)), ("crit", json!(["exp"]))] {
        let mut header = ed();
        header[field] = value;
        refused(&mut world, &evil.sign(&header, &Provider::claims("ann"), By::Ed)).await;
    }
}

#[tokio::test]
async fn a_token_that_is_cut_bent_or_too_long_is_refused() {
    let (mut world, _, provider) = provided().await;
    let token = provider.token("ann");
    let parts: Vec<&str> = token.split('.').collect();
    let bob = provider.token("bob");
    let of_bob = bob.split('.').nth(1).unwrap();
    let long = provider.sign(&ed(), &claims_with("padding", json!("x".repeat(7_000))), By::Ed);
    for bad in [
        format!("{}.{}", parts[0], parts[1]),
        format!("{}.{of_bob}.{}", parts[0], parts[2]),
        format!("{token}.{}", parts[2]),
        format!("{}..{}", parts[0], parts[2]),
        token[..token.len() - 10].to_owned(),
        "..".to_owned(),
        "a.b.c".to_owned(),
        long,
    ] {
        refused(&mut world, &bad).await;
    }
    for subject in [json!(""), json!("a\u{1}"), json!("x".repeat(256)), json!(7), json!(null)] {
        refused(&mut world, &provider.sign(&ed(), &claims_with("sub", subject), By::Ed)).await;
    }
}

#[tokio::test]
async fn the_customer_is_the_tokens_subject_and_cannot_be_stated_otherwise() {
    let (mut world, _, provider) = provided().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    world.present(Some(&provider.token("ann")));
    let mut request = event.request("bob", 1);
    let problem = world.book(&event.id, "k", &request).await.refused(422, "validation_failed");
    assert_eq!(problem["errors"][0]["field"], "customer");
    request.as_object_mut().unwrap().remove("customer");
    assert_eq!(world.book(&event.id, "k", &request).await.expect(201)["customer"], "ann");
    let replay = world.book(&event.id, "k", &event.request("ann", 1)).await;
    assert_eq!(replay.header("idempotent-replayed"), Some("true"));
    assert_eq!(world.counts(&event, 0).await, (0, 1, 9));
}

/// Ann's held booking, and a world in which Bob's token is presented.
async fn ann_and_bob() -> (World, Key, Provider, Event, String) {
    let (mut world, operator, provider) = provided().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    world.present(Some(&provider.token("ann")));
    let held = id(&world.book(&event.id, "order-1", &event.hold("ann", 1)).await.expect(201));
    world.present(Some(&provider.token("bob")));
    (world, operator, provider, event, held)
}

/// But for what names the request, two problems say the same.
fn same(one: &Reply, other: &Reply) {
    let bare = |reply: &Reply| {
        let mut problem = reply.json();
        problem["request_id"] = Value::Null;
        (reply.status, problem)
    };
    assert_eq!(bare(one), bare(other));
}

#[tokio::test]
async fn another_customers_booking_cannot_be_read_and_is_not_told_from_none() {
    let (world, _, _, event, held) = ann_and_bob().await;
    let reply = world.booking(&event.id, &held).await;
    reply.refused(404, "booking_not_found");
    same(&reply, &world.booking(&event.id, &uuid::Uuid::now_v7().to_string()).await);
}

#[tokio::test]
async fn another_customers_booking_cannot_be_confirmed() {
    let (mut world, _, provider, event, held) = ann_and_bob().await;
    world.confirm(&event.id, &held, "p").await.refused(404, "booking_not_found");
    world.present(Some(&provider.token("ann")));
    assert_eq!(world.booking(&event.id, &held).await.expect(200)["status"], "held");
    world.confirm(&event.id, &held, "p").await.expect(200);
}

#[tokio::test]
async fn another_customers_booking_cannot_be_cancelled() {
    let (mut world, _, provider, event, held) = ann_and_bob().await;
    world.cancel(&event.id, &held).await.refused(404, "booking_not_found");
    world.present(Some(&provider.token("ann")));
    assert_eq!(world.booking(&event.id, &held).await.expect(200)["status"], "held");
    world.cancel(&event.id, &held).await.expect(200);
}

#[tokio::test]
async fn another_customers_bookings_cannot_be_listed() {
    let (mut world, operator, provider, event, held) = ann_and_bob().await;
    world.get("/v1/customers/ann/bookings").await.refused(404, "not_found");
    world.get(&format!("/v1/events/{}/bookings", event.id)).await.refused(404, "not_found");
    world.present_key(&operator).await;
    world.drained(&event).await;
    world.present(Some(&provider.token("bob")));
    assert_eq!(world.get("/v1/customers/bob/bookings").await.expect(200)["items"], json!([]));
    world.present(Some(&provider.token("ann")));
    assert_eq!(world.get("/v1/customers/ann/bookings").await.expect(200)["items"][0]["id"], held.as_str());
}

#[tokio::test]
async fn another_customers_idempotency_key_replays_nothing_and_tells_nothing() {
    let (world, _, _, event, held) = ann_and_bob().await;
    // As Ann, he is not let in; as himself he gets a booking of his own, and does not learn that the key was used.
    world.book(&event.id, "order-1", &event.hold("ann", 1)).await.refused(422, "validation_failed");
    let own = world.book(&event.id, "order-1", &event.hold("bob", 1)).await;
    assert_eq!(own.header("idempotent-replayed"), None);
    assert_ne!(id(&own.expect(201)), held);
}

#[tokio::test]
async fn to_a_buyer_operators_calls_do_not_exist() {
    let (world, _, _, event, _) = ann_and_bob().await;
    world.post("/v1/events", &World::draft(&[1])).await.refused(404, "not_found");
    world.publish(&event.id).await.refused(404, "not_found");
    world.patch(&event.id, &json!({"status": "closed"})).await.refused(404, "not_found");
    world.get(&format!("/v1/events/{}/audit", event.id)).await.refused(404, "not_found");
    world.get(&format!("/v1/events/{}", event.id)).await.expect(200);
}

#[tokio::test]
async fn keys_of_the_provider_may_change_while_tokens_are_used() {
    let (old, new) = (Provider::new(), Provider::new());
    let set = Arc::new(Mutex::new(old.jwks("")));
    let (mut world, _) = with_tokens(&serve(set.clone()).await).await;
    taken(&mut world, &old.token("ann")).await;
    let header = json!({"alg": "EdDSA", "kid": "2-ed"});
    let token = new.sign(&header, &Provider::claims("ann"), By::Ed);
    refused(&mut world, &token).await;
    *set.lock().unwrap() = new.jwks("2-");
    // A key that is not known is asked for, at most every five seconds.
    eventually("the new key to be known", || async {
        world.get("/v1/customers/ann/bookings").await.status == 200
    })
    .await;
    refused(&mut world, &old.token("ann")).await;
    // A provider that answers nonsense changes nothing.
    *set.lock().unwrap() = json!({"keys": []});
    refused(&mut world, &old.token("ann")).await;
    taken(&mut world, &token).await;
}

#[tokio::test]
async fn a_token_is_worth_nothing_where_only_keys_are_taken() {
    let (mut world, _) = super::operated(&super::KEYS).await;
    refused(&mut world, &Provider::new().token("ann")).await;
}
