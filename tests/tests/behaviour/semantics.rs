//! HTTP's own means: entity tags, preconditions, links, encodings, methods; and the page that shows the contract.

use std::io::Read;

use futures_util::future::join_all;
use reqwest::Method;
use reqwest::header::{ACCEPT_ENCODING, IF_MATCH, IF_NONE_MATCH};
use serde_json::{Value, json};

use crate::http::{Reply, id};
use crate::world::World;

const DOCUMENT: &str = include_str!("../../../docs/openapi.json");

async fn get_with(world: &World, path: &str, header: &str, value: &str) -> Reply {
    Reply::of(world.http.get(world.url(path)).header(header, value).send().await.unwrap()).await
}

async fn patch_if(world: &World, event: &str, tag: &str, body: &Value) -> Reply {
    let request = world.http.patch(world.url(&format!("/v1/events/{event}"))).header(IF_MATCH, tag);
    Reply::of(request.json(body).send().await.unwrap()).await
}

fn tag(reply: &Reply) -> String {
    reply.header("etag").unwrap_or_else(|| panic!("no tag: {reply:?}")).to_owned()
}

#[tokio::test]
async fn a_read_that_is_still_right_is_answered_by_its_tag() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    world.post("/v1/events", &World::draft(&[10])).await.expect(201);
    let booking = id(&world.book(&event.id, "k", &event.request("ann", 1)).await.expect(201));
    world.drained(&event).await;
    for path in [
        "/v1/events".to_owned(),
        "/v1/events?limit=1".to_owned(),
        format!("/v1/events/{}", event.id),
        format!("/v1/events/{}/availability", event.id),
        format!("/v1/events/{}/bookings", event.id),
        format!("/v1/events/{}/bookings/{booking}", event.id),
        "/v1/customers/ann/bookings".to_owned(),
    ] {
        let first = world.get(&path).await;
        first.expect(200);
        let known = tag(&first);
        let same = get_with(&world, &path, "if-none-match", &format!("\"other\", {known}")).await;
        assert_eq!((same.status, same.body.len()), (304, 0), "{path}");
        assert_eq!(tag(&same), known, "{path}");
        assert_eq!(same.header("link"), first.header("link"), "{path}");
        assert_eq!(get_with(&world, &path, "if-none-match", "*").await.status, 304, "{path}");
        assert_eq!(get_with(&world, &path, "if-none-match", "\"other\"").await.status, 200, "{path}");
        assert_eq!(get_with(&world, &path, "if-none-match", "not a tag").await.status, 200, "{path}");
        let head = world.http.head(world.url(&path)).header(IF_NONE_MATCH, known.as_str());
        assert_eq!(head.send().await.unwrap().status(), 304, "{path}");
    }
    let availability = format!("/v1/events/{}/availability", event.id);
    let before = tag(&world.get(&availability).await);
    world.cancel(&event.id, &booking).await.expect(200);
    assert_eq!(get_with(&world, &availability, "if-none-match", &before).await.status, 200);
}

#[tokio::test]
async fn a_change_of_what_has_changed_since_is_refused_and_changes_nothing() {
    let world = World::start().await;
    let draft = id(&world.post("/v1/events", &World::draft(&[10])).await.expect(201));
    let published = world.on_sale(&World::draft(&[10])).await.id;
    for event in [draft, published] {
        let path = format!("/v1/events/{event}");
        let old = tag(&world.get(&path).await);
        let changed = patch_if(&world, &event, &old, &json!({"name": "first"})).await;
        changed.expect(200);
        patch_if(&world, &event, &old, &json!({"name": "second"})).await.refused(412, "precondition_failed");
        patch_if(&world, &event, "W/\"weak\"", &json!({"name": "x"}))
            .await
            .refused(412, "precondition_failed");
        patch_if(&world, &event, "not a tag", &json!({"name": "x"}))
            .await
            .refused(412, "precondition_failed");
        assert_eq!(world.get(&path).await.expect(200)["name"], "first");
        let new = tag(&changed);
        assert_eq!(new, tag(&world.get(&path).await));
        patch_if(&world, &event, &format!("{old}, {new}"), &json!({"name": "third"})).await.expect(200);
        patch_if(&world, &event, "*", &json!({"name": "fourth"})).await.expect(200);
        world.patch(&event, &json!({"name": "fifth"})).await.expect(200);
    }
}

#[tokio::test]
async fn of_many_changes_of_one_version_one_is_made() {
    let world = World::start().await;
    let draft = id(&world.post("/v1/events", &World::draft(&[10])).await.expect(201));
    let published = world.on_sale(&World::draft(&[10])).await.id;
    for event in [draft, published] {
        let known = tag(&world.get(&format!("/v1/events/{event}")).await);
        let names: Vec<Value> = (0..6).map(|n| json!({"name": format!("name {n}")})).collect();
        let replies = join_all(names.iter().map(|name| patch_if(&world, &event, &known, name))).await;
        let made: Vec<&Reply> = replies.iter().filter(|reply| reply.status == 200).collect();
        assert_eq!(made.len(), 1, "{replies:?}");
        for refused in replies.iter().filter(|reply| reply.status != 200) {
            refused.refused(412, "precondition_failed");
        }
        assert_eq!(world.get(&format!("/v1/events/{event}")).await.expect(200), made[0].json());
    }
}

#[tokio::test]
async fn a_draft_that_was_published_meanwhile_is_another() {
    let world = World::start().await;
    let created = world.post("/v1/events", &World::draft(&[10])).await;
    let event = id(&created.expect(201));
    let published = world.publish(&event).await;
    patch_if(&world, &event, &tag(&created), &json!({"name": "x"})).await.refused(412, "precondition_failed");
    patch_if(&world, &event, &tag(&published), &json!({"name": "x"})).await.expect(200);
}

#[tokio::test]
async fn pages_stay_while_entries_are_added() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[50])).await;
    let book = async |n: usize| {
        id(&world.book(&event.id, &format!("k{n}"), &event.request("ann", 1)).await.expect(201))
    };
    let mut made = Vec::new();
    for n in 0..6 {
        made.push(book(n).await);
    }
    world.drained(&event).await;
    made.reverse();
    let mut seen = Vec::new();
    let mut next = Some(format!("/v1/events/{}/bookings?limit=2&status=confirmed&customer=ann", event.id));
    while let Some(path) = next {
        let page = world.get(&path).await;
        let body = page.expect(200);
        seen.extend(body["items"].as_array().unwrap().iter().map(id));
        next = page.header("link").map(|link| {
            let target = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\""));
            target.unwrap_or_else(|| panic!("{link}")).to_owned()
        });
        assert_eq!(next.is_some(), body["next_cursor"].is_string());
        book(100 + seen.len()).await;
        world.drained(&event).await;
    }
    assert_eq!(seen, made);
}

#[tokio::test]
async fn lists_are_narrowed_by_status_and_customer() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[50])).await;
    let draft = id(&world.post("/v1/events", &World::draft(&[10])).await.expect(201));
    let anns = id(&world.book(&event.id, "a", &event.request("ann", 1)).await.expect(201));
    world.book(&event.id, "b", &event.hold("bob", 1)).await.expect(201);
    world.drained(&event).await;
    let ids = async |path: String| -> Vec<String> {
        world.get(&path).await.expect(200)["items"].as_array().unwrap().iter().map(id).collect()
    };
    assert_eq!(ids("/v1/events?status=draft".to_owned()).await, [draft]);
    assert_eq!(ids("/v1/events?status=on_sale".to_owned()).await, std::slice::from_ref(&event.id));
    assert_eq!(ids(format!("/v1/events/{}/bookings?customer=ann", event.id)).await, [anns]);
    assert!(ids(format!("/v1/events/{}/bookings?customer=ann&status=held", event.id)).await.is_empty());
    world.get("/v1/events?status=held").await.refused(400, "malformed_request");
    world.get("/v1/customers/ann/bookings?customer=bob").await.refused(400, "malformed_request");
}

#[tokio::test]
async fn lists_are_small_on_the_wire_for_who_takes_gzip() {
    let world = World::start().await;
    for _ in 0..5 {
        world.post("/v1/events", &World::draft(&[1])).await.expect(201);
    }
    // Some client of the workspace's has its HTTP library decode by itself.
    let http = reqwest::Client::builder().no_gzip().build().unwrap();
    let get_taking = async |takes: &str| {
        let request = http.get(world.url("/v1/events")).header(ACCEPT_ENCODING, takes);
        Reply::of(request.send().await.unwrap()).await
    };
    let plain = world.get("/v1/events").await;
    assert_eq!((plain.header("content-encoding"), plain.header("vary")), (None, Some("Accept-Encoding")));
    for takes in ["gzip", "br, gzip;q=0.5"] {
        let small = get_taking(takes).await;
        assert_eq!(small.header("content-encoding"), Some("gzip"), "{takes}");
        assert_eq!((small.header("vary"), tag(&small)), (Some("Accept-Encoding"), tag(&plain)));
        assert!(small.body.len() < plain.body.len() / 2);
        let mut whole = Vec::new();
        flate2::read::GzDecoder::new(small.body.as_slice()).read_to_end(&mut whole).unwrap();
        assert_eq!(whole, plain.body);
    }
    for refuses in ["identity", "gzip;q=0", "br"] {
        let reply = get_taking(refuses).await;
        assert_eq!((reply.header("content-encoding"), &reply.body), (None, &plain.body), "{refuses}");
    }
}

#[tokio::test]
async fn every_address_says_the_methods_that_the_document_gives_it() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let document: Value = serde_json::from_str(DOCUMENT).unwrap();
    for (path, item) in document["paths"].as_object().unwrap() {
        let path = path.replace("{event_id}", &event.id).replace("{booking_id}", &event.id);
        let url = world.url(&path.replace("{customer}", "ann"));
        let mut expected: Vec<String> = item.as_object().unwrap().keys().map(|m| m.to_uppercase()).collect();
        if expected.iter().any(|method| method == "GET") {
            expected.push("HEAD".to_owned());
        }
        expected.push("OPTIONS".to_owned());
        expected.sort();
        let options = Reply::of(world.http.request(Method::OPTIONS, &url).send().await.unwrap()).await;
        assert_eq!(
            (options.status, options.header("allow")),
            (204, Some(expected.join(", ").as_str())),
            "{url}"
        );
        let refused = Reply::of(world.http.delete(&url).send().await.unwrap()).await;
        refused.refused(405, "method_not_allowed");
        assert_eq!(refused.header("allow"), options.header("allow"), "{url}");
    }
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    for path in ["/v1/events".to_owned(), format!("/v1/events/{}", event.id), "/openapi.json".to_owned()] {
        let get = world.get(&path).await;
        let head = Reply::of(world.http.head(world.url(&path)).send().await.unwrap()).await;
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        for header in ["content-length", "content-type", "etag"] {
            assert_eq!(head.header(header), get.header(header), "{header} of {path}");
        }
    }
}

#[tokio::test]
async fn a_wrong_field_is_named_by_its_path_and_by_a_json_pointer() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let item = json!({"ticket_type_id": event.types[0], "quantity": 1});
    let with = |member: &str, value: Value| {
        let mut item = item.clone();
        item[member] = value;
        json!({"customer": "ann", "items": [item]})
    };
    for (body, field, pointer) in [
        (with("seat", json!(1)), "items[0].seat", "/items/0/seat"),
        (with("quantity", json!(0)), "items[0].quantity", "/items/0/quantity"),
        (with("quantity", json!("1")), "items[0].quantity", "/items/0/quantity"),
        (with("a/b~c", json!(1)), "items[0].a/b~c", "/items/0/a~1b~0c"),
        (json!({"items": [item], "customer": "ann", "status": "confirmed"}), "status", "/status"),
        (json!([]), "", ""),
    ] {
        let problem = world.book(&event.id, "k", &body).await.refused(422, "validation_failed");
        let error = &problem["errors"][0];
        assert_eq!((&error["field"], &error["pointer"]), (&json!(field), &json!(pointer)), "{problem}");
    }
}

#[tokio::test]
async fn a_whole_number_may_be_written_with_a_fraction_of_zero() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let body = event.request("ann", 2).to_string().replace("\"quantity\":2", "\"quantity\":2.0");
    assert!(body.contains("2.0"));
    let request = world.http.post(world.url(&format!("/v1/events/{}/bookings", event.id)));
    let request = request.header("Idempotency-Key", "k").header("Content-Type", "application/json");
    let booking = Reply::of(request.body(body).send().await.unwrap()).await.expect(201);
    assert_eq!(booking["items"][0]["quantity"], 2);
    world.book(&event.id, "k", &event.request("ann", 2)).await.expect(201);
    for wrong in [json!(0.5), json!(1e300), json!(-1e300)] {
        let item = json!({"ticket_type_id": event.types[0], "quantity": wrong});
        let reply = world.book(&event.id, "w", &json!({"customer": "ann", "items": [item]})).await;
        reply.refused(422, "validation_failed");
    }
}

#[tokio::test]
async fn the_contract_is_served_for_people_without_any_other_server() {
    let world = World::start().await;
    let page = world.get("/docs").await;
    assert_eq!(
        (page.status, page.header("content-type")),
        (200, Some("text/html")),
        "by a redirect to /docs/"
    );
    let html = String::from_utf8(page.body).unwrap();
    assert!(!html.contains("http:") && !html.contains("https:"), "{html}");
    let parts: Vec<&str> =
        html.split(['"']).filter(|part| part.ends_with(".js") || part.ends_with(".css")).collect();
    assert!(parts.len() >= 4, "{html}");
    for part in parts {
        let reply = world.get(&format!("/docs/{part}")).await;
        assert_eq!(reply.status, 200, "{part}");
        assert!(reply.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
    }
    let starts = String::from_utf8(world.get("/docs/swagger-initializer.js").await.body).unwrap();
    assert!(starts.contains("\"/openapi.json\"") && starts.contains("\"tryItOutEnabled\": true"), "{starts}");
    let served = world.get("/openapi.json").await.expect(200);
    assert!(served == serde_json::from_str::<Value>(DOCUMENT).unwrap(), "another document is served");
    world.get("/docs/nowhere.js").await.refused(404, "not_found");
}
