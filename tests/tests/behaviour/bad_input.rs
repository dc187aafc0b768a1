//! What clients send by mistake or on purpose: the status and code of the contract, and nothing changed.

use reqwest::Method;
use serde_json::{Value, json};

use crate::http::{Event, Reply, id};
use crate::world::World;

async fn unchanged(world: &World, event: &Event) {
    assert_eq!(world.counts(event, 0).await, (0, 0, 10));
    assert_eq!(world.rows_of(event).await, 0);
}

async fn raw(
    world: &World,
    event: &str,
    content_type: Option<&str>,
    body: impl Into<reqwest::Body>,
) -> Reply {
    let mut request =
        world.http.post(world.url(&format!("/v1/events/{event}/bookings"))).header("Idempotency-Key", "k");
    if let Some(content_type) = content_type {
        request = request.header("Content-Type", content_type);
    }
    Reply::of(request.body(body).send().await.unwrap()).await
}

#[tokio::test]
async fn an_idempotency_key_must_be_there_and_be_visible_ascii() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let url = world.url(&format!("/v1/events/{}/bookings", event.id));
    let body = event.request("ann", 1);
    let post = || world.http.post(&url).json(&body);
    Reply::of(post().send().await.unwrap()).await.refused(400, "idempotency_key_missing");
    for bad in [Vec::new(), vec![b'k'; 256], "schlüssel".as_bytes().to_vec(), b"a b".to_vec()] {
        let reply = Reply::of(post().header("Idempotency-Key", bad.as_slice()).send().await.unwrap()).await;
        reply.refused(400, "idempotency_key_invalid");
    }
    let twice = post().header("Idempotency-Key", "a").header("Idempotency-Key", "b");
    Reply::of(twice.send().await.unwrap()).await.refused(400, "idempotency_key_invalid");
    unchanged(&world, &event).await;
    let longest = "k".repeat(255);
    world.book(&event.id, &longest, &body).await.expect(201);
    world.book(&event.id, "{s00}*?\\'\"[]", &body).await.expect(201);
}

#[tokio::test]
async fn a_booking_with_wrong_values_is_refused_with_the_field() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let ticket_type = &event.types[0];
    let item = |quantity: Value| json!({"customer": "ann", "items": [{"ticket_type_id": ticket_type, "quantity": quantity}]});
    let cases = [
        (item(json!(0)), "quantity"),
        (item(json!(-1)), "quantity"),
        (item(json!(1.5)), "quantity"),
        (item(json!(2_147_483_648_u64)), "quantity"),
        (item(json!(u64::MAX)), "quantity"),
        (item(json!(1_001)), "quantity"),
        (item(json!("2")), "quantity"),
        (item(json!(null)), "quantity"),
        (json!({"customer": "ann", "items": []}), "items"),
        (
            json!({"customer": "ann", "items": vec![json!({"ticket_type_id": ticket_type, "quantity": 1}); 21]}),
            "items",
        ),
        (
            json!({"customer": "ann", "items": vec![json!({"ticket_type_id": ticket_type, "quantity": 1}); 500]}),
            "items",
        ),
        (
            json!({"customer": "ann", "items": vec![json!({"ticket_type_id": ticket_type, "quantity": 1}); 2]}),
            "items",
        ),
        (json!({"customer": "", "items": [{"ticket_type_id": ticket_type, "quantity": 1}]}), "customer"),
        (
            json!({"customer": "c".repeat(10_240), "items": [{"ticket_type_id": ticket_type, "quantity": 1}]}),
            "customer",
        ),
        (
            json!({"customer": "a\u{0}b", "items": [{"ticket_type_id": ticket_type, "quantity": 1}]}),
            "customer",
        ),
        (json!({"customer": "a\nb", "items": [{"ticket_type_id": ticket_type, "quantity": 1}]}), "customer"),
        (json!({"customer": 7, "items": [{"ticket_type_id": ticket_type, "quantity": 1}]}), "customer"),
        (json!({"items": [{"ticket_type_id": ticket_type, "quantity": 1}]}), "customer"),
        (json!({"customer": "ann"}), "items"),
        (
            json!({"customer": "ann", "items": [{"ticket_type_id": ticket_type, "quantity": 1}], "price": 0}),
            "price",
        ),
        (json!({"customer": "ann", "items": [{"ticket_type_id": ticket_type, "quantity": 1, "x": 1}]}), "x"),
        (
            json!({"customer": "ann", "items": [{"ticket_type_id": ticket_type, "quantity": 1}], "hold": "yes"}),
            "hold",
        ),
        (json!([]), ""),
        (json!("text"), ""),
    ];
    for (body, field) in cases {
        let problem = world.book(&event.id, "k", &body).await.refused(422, "validation_failed");
        let errors = problem["errors"].as_array().unwrap_or_else(|| panic!("no errors: {problem}"));
        assert!(!errors.is_empty());
        for error in errors {
            assert!(error["field"].is_string() && error["message"].is_string(), "{problem}");
        }
        let named = errors.iter().any(|e| e["field"].as_str().unwrap().contains(field));
        assert!(named, "{field} should be named: {problem}");
    }
    unchanged(&world, &event).await;
}

#[tokio::test]
async fn all_wrong_fields_are_named_at_once() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let body = json!({"customer": "", "items": [{"ticket_type_id": event.types[0], "quantity": 0}]});
    let problem = world.book(&event.id, "k", &body).await.refused(422, "validation_failed");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 2, "{problem}");
    let body = json!({
        "customer": 7,
        "items": [
            {"ticket_type_id": event.types[0], "quantity": "2", "seat": {"row": 1, "number": 2}},
            {"ticket_type_id": 5, "quantity": 1.5},
            3,
        ],
        "hold": "yes",
        "price": 0,
    });
    let problem = world.book(&event.id, "k", &body).await.refused(422, "validation_failed");
    let mut named: Vec<&str> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["pointer"].as_str().unwrap())
        .collect();
    named.sort_unstable();
    let wrong = [
        "/customer",
        "/hold",
        "/items/0/quantity",
        "/items/0/seat",
        "/items/1/quantity",
        "/items/1/ticket_type_id",
        "/items/2",
        "/price",
    ];
    assert_eq!(named, wrong, "{problem}");
    let twice = r#"{"customer": "ann", "customer": "ann", "items": []}"#;
    let refused = raw(&world, &event.id, Some("application/json"), twice).await;
    let problem = refused.refused(422, "validation_failed");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 1, "{problem}");
    assert_eq!(problem["errors"][0]["message"], "duplicate field `customer`", "{problem}");
}

#[tokio::test]
async fn a_body_that_cannot_be_parsed_is_malformed() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let whole = event.request("ann", 1).to_string();
    let deep = format!("{}1{}", "[".repeat(33), "]".repeat(33));
    let json_type = Some("application/json");
    let bodies: [Vec<u8>; 6] = [
        Vec::new(),
        whole.as_bytes()[..whole.len() / 2].to_vec(),
        deep.into_bytes(),
        b"{\"customer\": \"\xff\xfe\"}".to_vec(),
        b"not json".to_vec(),
        format!("{whole} trailing").into_bytes(),
    ];
    for body in bodies {
        raw(&world, &event.id, json_type, body).await.refused(400, "malformed_request");
    }
    let at_the_limit = format!("{}1{}", "[".repeat(32), "]".repeat(32));
    raw(&world, &event.id, json_type, at_the_limit).await.refused(422, "validation_failed");
    unchanged(&world, &event).await;
}

#[tokio::test]
async fn a_body_that_is_too_large_or_of_another_type_is_refused() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let json_type = Some("application/json");
    raw(&world, &event.id, json_type, vec![b' '; 64 * 1024 + 1]).await.refused(413, "body_too_large");
    raw(&world, &event.id, json_type, vec![b' '; 10 * 1024 * 1024]).await.refused(413, "body_too_large");
    let many = json!({"customer": "ann", "items": vec![json!({"ticket_type_id": event.types[0], "quantity": 1}); 1_000]});
    world.book(&event.id, "k", &many).await.refused(413, "body_too_large");
    let whole = event.request("ann", 1).to_string();
    raw(&world, &event.id, Some("text/plain"), whole.clone()).await.refused(415, "unsupported_media_type");
    raw(&world, &event.id, None, whole.clone()).await.refused(415, "unsupported_media_type");
    unchanged(&world, &event).await;
    let padded = format!("{whole}{}", " ".repeat(64 * 1024 - whole.len()));
    assert_eq!(raw(&world, &event.id, Some("application/json; charset=utf-8"), padded).await.status, 201);
}

#[tokio::test]
async fn a_body_that_is_compressed_is_refused_for_that() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let request = world.http.post(world.url(&format!("/v1/events/{}/bookings", event.id)));
    let request = request.header("Idempotency-Key", "k").header("Content-Encoding", "gzip");
    let reply = Reply::of(request.json(&event.request("ann", 1)).send().await.unwrap()).await;
    let problem = reply.refused(415, "unsupported_media_type");
    assert!(problem["detail"].as_str().unwrap().contains("without Content-Encoding"), "{problem}");
}

#[tokio::test]
async fn a_refusal_names_what_it_is_about() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10, 10])).await;
    let draft = world.post("/v1/events", &World::draft(&[10])).await.expect(201);
    let says = |problem: &Value, what: &str| {
        assert!(problem["detail"].as_str().unwrap().contains(what), "{what} should be named: {problem}");
    };
    let unknown = uuid::Uuid::now_v7().to_string();
    for bad in [unknown.as_str(), "not-a-uuid"] {
        let item = |ticket_type: &str| json!({"ticket_type_id": ticket_type, "quantity": 1});
        let body = json!({"customer": "ann", "items": [item(&event.types[0]), item(bad)]});
        let refused = world.book(&event.id, "k", &body).await.refused(404, "ticket_type_not_found");
        says(&refused, "items[1].ticket_type_id");
        for (event, own) in [(&event.id, &event.types[0]), (&id(&draft), &id(&draft["ticket_types"][0]))] {
            let types = json!([{"id": own, "capacity": 5}, {"id": bad, "capacity": 5}]);
            let refused = world.patch(event, &json!({"ticket_types": types})).await;
            says(&refused.refused(404, "ticket_type_not_found"), "ticket_types[1].id");
        }
    }
    world.book(&event.id, "k", &event.request("ann", 3)).await.expect(201);
    let types = json!([{"id": event.types[1], "capacity": 5}, {"id": event.types[0], "capacity": 2}]);
    let refused = world.patch(&event.id, &json!({"ticket_types": types})).await;
    says(&refused.refused(409, "capacity_below_sold"), "ticket_types[1].capacity");
    world.patch(&event.id, &json!({"status": "paused"})).await.expect(200);
    let refused = world.book(&event.id, "paused", &event.request("ann", 1)).await;
    says(&refused.refused(409, "not_on_sale"), "status");
}

#[tokio::test]
async fn what_does_not_exist_is_not_found() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let other = world.on_sale(&World::draft(&[10])).await;
    let unknown = uuid::Uuid::now_v7().to_string();
    let body = event.request("ann", 1);
    for bad in [unknown.as_str(), "not-a-uuid", "1", "%00", "..%2f", "{s00}"] {
        world.book(bad, "k", &body).await.refused(404, "event_not_found");
        world.get(&format!("/v1/events/{bad}")).await.refused(404, "event_not_found");
        world.get(&format!("/v1/events/{bad}/availability")).await.refused(404, "event_not_found");
        world.get(&format!("/v1/events/{bad}/audit")).await.refused(404, "event_not_found");
        world.publish(bad).await.refused(404, "event_not_found");
        world.booking(&event.id, bad).await.refused(404, "booking_not_found");
        world.confirm(&event.id, bad, "pay").await.refused(404, "booking_not_found");
        world.cancel(&event.id, bad).await.refused(404, "booking_not_found");
    }
    world.patch(&unknown, &json!({"name": "x"})).await.refused(404, "event_not_found");
    for ticket_type in [unknown.as_str(), other.types[0].as_str(), "not-a-uuid"] {
        let body = json!({"customer": "ann", "items": [{"ticket_type_id": ticket_type, "quantity": 1}]});
        world.book(&event.id, "k", &body).await.refused(404, "ticket_type_not_found");
    }
    let elsewhere = id(&world.book(&other.id, "k", &other.request("ann", 1)).await.expect(201));
    world.booking(&event.id, &elsewhere).await.refused(404, "booking_not_found");
    world.cancel(&event.id, &elsewhere).await.refused(404, "booking_not_found");
    world.get("/v1/nowhere").await.refused(404, "not_found");
    world.get("/").await.refused(404, "not_found");
    unchanged(&world, &event).await;
}

#[tokio::test]
async fn an_address_that_is_no_utf_8_is_malformed_and_every_other_name_is_found() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let of_event = format!("/v1/events/{}/bookings?customer=", event.id);
    // No beginning, no end, half a pair of UTF-16, and a slash that is longer than it must be.
    for bad in ["%FF", "ann%C3", "%ED%A0%80", "%C0%AF"] {
        let of_customer = world.get(&format!("/v1/customers/{bad}/bookings")).await;
        of_customer.refused(400, "malformed_request");
        world.get(&format!("{of_event}{bad}")).await.refused(400, "malformed_request");
    }
    // In a query a plus is a blank, and in a path it is a plus.
    let names = [
        ("ä b+c/d", "%C3%A4%20b+c%2Fd", "%c3%a4+b%2Bc/d"),
        ("100%", "100%25", "100%25"),
        ("%FF", "%25FF", "%25FF"),
        ("\u{fffd}", "%EF%BF%BD", "%EF%BF%BD"),
    ];
    for (name, key, _) in names {
        world.book(&event.id, key, &event.request(name, 1)).await.expect(201);
    }
    world.drained(&event).await;
    for (name, in_path, in_query) in names {
        for path in [format!("/v1/customers/{in_path}/bookings"), format!("{of_event}{in_query}")] {
            let items = world.get(&path).await.expect(200)["items"].clone();
            assert_eq!((items.as_array().unwrap().len(), &items[0]["customer"]), (1, &json!(name)), "{path}");
        }
    }
}

/// A booking lies under the end of its id.
#[tokio::test]
async fn an_id_that_differs_from_a_bookings_in_its_time_alone_is_not_found() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let held = id(&world.book(&event.id, "k", &event.hold("ann", 1)).await.expect(201));
    let other = format!("f{}", &held[1..]);
    for _ in ["Redis alone has the booking", "PostgreSQL has it too"] {
        world.booking(&event.id, &other).await.refused(404, "booking_not_found");
        world.confirm(&event.id, &other, "pay").await.refused(404, "booking_not_found");
        world.cancel(&event.id, &other).await.refused(404, "booking_not_found");
        world.drained(&event).await;
    }
    assert_eq!(world.booking(&event.id, &held).await.expect(200)["status"], "held");
    world.confirm(&event.id, &held, "pay").await.expect(200);
}

#[tokio::test]
async fn another_method_is_not_allowed() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    for (method, path) in [
        (Method::DELETE, format!("/v1/events/{}", event.id)),
        (Method::PUT, format!("/v1/events/{}/bookings", event.id)),
        (Method::GET, format!("/v1/events/{}/publish", event.id)),
        (Method::POST, "/livez".to_owned()),
        (Method::PATCH, "/v1/events".to_owned()),
    ] {
        let reply =
            Reply::of(world.http.request(method.clone(), world.url(&path)).send().await.unwrap()).await;
        reply.refused(405, "method_not_allowed");
        assert!(reply.header("allow").is_some(), "{method} {path}");
    }
}

#[tokio::test]
async fn an_event_with_wrong_values_is_refused_with_the_field() {
    let world = World::start().await;
    let with = |pointer: &str, value: Value| {
        let mut draft = World::draft(&[10, 10]);
        if let Some(place) = draft.pointer_mut(pointer) {
            *place = value;
        } else {
            draft[pointer.trim_start_matches('/')] = value;
        }
        draft
    };
    let cases = [
        ("/ticket_types/0/capacity", json!(0)),
        ("/ticket_types/0/capacity", json!(-1)),
        ("/ticket_types/0/capacity", json!(2_147_483_648_u64)),
        ("/ticket_types/0/capacity", json!(1.5)),
        ("/ticket_types/0/price/amount", json!(-1)),
        ("/ticket_types/0/price/amount", json!(1_000_000_000_001_u64)),
        ("/ticket_types/0/price/currency", json!("euro")),
        ("/ticket_types/0/price/currency", json!("USD")),
        ("/ticket_types/0/name", json!("")),
        ("/ticket_types", json!([])),
        ("/name", json!("")),
        ("/name", json!("n".repeat(201))),
        ("/name", json!("a\tb")),
        ("/starts_at", json!("2001-01-01T00:00:00Z")),
        ("/starts_at", json!("tomorrow")),
        ("/sales_close_at", json!("2001-01-01T00:00:00Z")),
        ("/per_customer_limit", json!(0)),
        ("/per_customer_limit", json!(1_000_001)),
        ("/hold_seconds", json!(0)),
        ("/hold_seconds", json!(86_401)),
        ("/status", json!("on_sale")),
    ];
    for (pointer, value) in cases {
        let problem =
            world.post("/v1/events", &with(pointer, value.clone())).await.refused(422, "validation_failed");
        assert!(!problem["errors"].as_array().unwrap().is_empty(), "{pointer} {value}: {problem}");
    }
    let mut inverted = World::draft(&[10]);
    inverted["sales_open_at"] = json!("2098-01-02T00:00:00Z");
    inverted["sales_close_at"] = json!("2098-01-01T00:00:00Z");
    world.post("/v1/events", &inverted).await.refused(422, "validation_failed");
    let mut many = World::draft(&[1]);
    many["ticket_types"] = json!(vec![many["ticket_types"][0].clone(); 101]);
    world.post("/v1/events", &many).await.refused(422, "validation_failed");
    assert_eq!(world.get("/v1/events").await.expect(200)["items"], json!([]));
}

#[tokio::test]
async fn a_time_is_written_as_rfc_3339_has_it_or_refused() {
    let world = World::start().await;
    let mut draft = World::draft(&[10]);
    for bad in [
        "2099-06-01 20:00:00Z",
        "2099-06-01T20:00:00\u{2212}02:00",
        "2099-06-01T20:00:00+02:",
        "2099-06-01T20:00:00+0200",
        "2099-06-01T20:00:00",
        "2099-06-01T20:00Z",
        " 2099-06-01T20:00:00Z",
    ] {
        draft["starts_at"] = json!(bad);
        let problem = world.post("/v1/events", &draft).await.refused(422, "validation_failed");
        assert_eq!(problem["errors"][0]["field"], "starts_at", "{bad}: {problem}");
    }
    for good in ["2099-06-01t20:00:00z", "2099-06-01T22:00:00.0000000001+02:00", "2099-06-01T19:30:00-00:30"]
    {
        draft["starts_at"] = json!(good);
        let event = world.post("/v1/events", &draft).await.expect(201);
        assert_eq!(event["starts_at"], "2099-06-01T20:00:00.000Z", "{good}");
    }
}

#[tokio::test]
async fn a_change_with_wrong_values_changes_nothing() {
    let world = World::start().await;
    let draft = id(&world.post("/v1/events", &World::draft(&[10])).await.expect(201));
    let event = world.on_sale(&World::draft(&[10])).await;
    world.patch(&event.id, &json!({"sales_open_at": "2098-01-02T00:00:00Z"})).await.expect(200);
    let unknown = uuid::Uuid::now_v7().to_string();
    for target in [draft.as_str(), event.id.as_str()] {
        let before = world.get(&format!("/v1/events/{target}")).await.expect(200);
        for bad in [
            json!({"name": null}),
            json!({"name": ""}),
            json!({"starts_at": null}),
            json!({"starts_at": "2001-01-01T00:00:00Z"}),
            json!({"status": "draft"}),
            json!({"status": "sold"}),
            json!({"hold_seconds": 5}),
            json!({"per_customer_limit": 0}),
            json!({"ticket_types": [{"id": before["ticket_types"][0]["id"], "capacity": 0}]}),
            json!({"ticket_types": [{"id": before["ticket_types"][0]["id"]}]}),
            json!({"name": "ok", "sales_open_at": "2098-01-02T00:00:00Z", "sales_close_at": "2098-01-01T00:00:00Z"}),
        ] {
            world.patch(target, &bad).await.refused(422, "validation_failed");
        }
        let other = json!({"name": "ok", "ticket_types": [{"id": unknown, "capacity": 5}]});
        world.patch(target, &other).await.refused(404, "ticket_type_not_found");
        assert_eq!(world.get(&format!("/v1/events/{target}")).await.expect(200), before);
    }
    world
        .patch(&event.id, &json!({"sales_close_at": "2098-01-01T00:00:00Z"}))
        .await
        .refused(422, "validation_failed");
}

#[tokio::test]
async fn a_confirmation_needs_a_payment_reference() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let held = id(&world.book(&event.id, "k", &event.hold("ann", 1)).await.expect(201));
    let path = format!("/v1/events/{}/bookings/{held}/confirm", event.id);
    for bad in [
        json!({}),
        json!({"payment_reference": ""}),
        json!({"payment_reference": "a\u{1}"}),
        json!({"payment_reference": 5}),
        json!({"payment_reference": "p", "x": 1}),
    ] {
        world.post(&path, &bad).await.refused(422, "validation_failed");
    }
    assert_eq!(world.counts(&event, 0).await, (1, 0, 9));
}
