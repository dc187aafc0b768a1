//! A storefront's key: what it may not do, and what of another storefront it may not reach.

use reqwest::header::IF_NONE_MATCH;
use serde_json::json;

use super::{KEYS, Key, operated};
use crate::http::{Event, Reply, id};
use crate::world::World;

#[tokio::test]
async fn a_storefronts_key_operates_nothing() {
    let (mut world, operator) = operated(&KEYS).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let draft = id(&world.post("/v1/events", &World::draft(&[10])).await.expect(201));
    world.present_key(&Key::storefront(&world.settings, "acme")).await;
    let refusals = [
        world.post("/v1/events", &World::draft(&[1])).await,
        world.publish(&draft).await,
        world.patch(&event.id, &json!({"status": "closed"})).await,
        world.patch(&draft, &json!({"name": "mine"})).await,
    ];
    for reply in refusals {
        reply.refused(403, "forbidden");
        let challenge = reply.header("www-authenticate").unwrap();
        assert!(challenge.contains(r#"error="insufficient_scope", scope="events:write""#), "{challenge}");
    }
    world.get(&format!("/v1/events/{}/audit", event.id)).await.refused(403, "forbidden");
    world.present_key(&operator).await;
    assert_eq!(world.get(&format!("/v1/events/{}", event.id)).await.expect(200)["status"], "on_sale");
    assert_eq!(world.get(&format!("/v1/events/{draft}")).await.expect(200)["status"], "draft");
}

#[tokio::test]
async fn a_key_does_only_what_its_scopes_say() {
    let (mut world, _) = operated(&KEYS).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let acme = ["--storefront", "acme"];
    let (reader, writer) = (
        Key::create(&world.settings, &acme, "bookings:read"),
        Key::create(&world.settings, &acme, "bookings:write"),
    );
    world.present_key(&writer).await;
    let hold = id(&world.book(&event.id, "k", &event.hold("ann", 1)).await.expect(201));
    world.booking(&event.id, &hold).await.refused(403, "forbidden");
    world.get("/v1/customers/ann/bookings").await.refused(403, "forbidden");
    world.get(&format!("/v1/events/{}/bookings", event.id)).await.refused(403, "forbidden");
    world.present_key(&reader).await;
    world.booking(&event.id, &hold).await.expect(200);
    world.book(&event.id, "k2", &event.hold("ann", 1)).await.refused(403, "forbidden");
    world.confirm(&event.id, &hold, "p").await.refused(403, "forbidden");
    world.cancel(&event.id, &hold).await.refused(403, "forbidden");
}

/// A booking of one storefront, and a world in which another's key is presented.
async fn two_storefronts() -> (World, Event, String, Key) {
    let (mut world, operator) = operated(&KEYS).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    world.present_key(&Key::storefront(&world.settings, "acme")).await;
    let hold = id(&world.book(&event.id, "order-1", &event.hold("ann", 1)).await.expect(201));
    world.present_key(&Key::storefront(&world.settings, "other")).await;
    (world, event, hold, operator)
}

#[tokio::test]
async fn another_storefronts_booking_is_as_if_it_did_not_exist() {
    let (mut world, event, hold, operator) = two_storefronts().await;
    let nobodys = uuid::Uuid::now_v7().to_string();
    for booking in [&hold, &nobodys] {
        world.booking(&event.id, booking).await.refused(404, "booking_not_found");
        world.confirm(&event.id, booking, "p").await.refused(404, "booking_not_found");
        world.cancel(&event.id, booking).await.refused(404, "booking_not_found");
    }
    world.present_key(&operator).await;
    assert_eq!(world.booking(&event.id, &hold).await.expect(200)["status"], "held");
}

#[tokio::test]
async fn another_storefronts_bookings_are_in_no_list() {
    let (mut world, event, hold, operator) = two_storefronts().await;
    let own = id(&world.book(&event.id, "mine", &event.hold("ann", 1)).await.expect(201));
    world.present_key(&operator).await;
    world.drained(&event).await;
    let lists = [format!("/v1/events/{}/bookings", event.id), "/v1/customers/ann/bookings".to_owned()];
    for path in &lists {
        assert_eq!(world.get(path).await.expect(200)["items"].as_array().unwrap().len(), 2);
    }
    world.present_key(&Key::storefront(&world.settings, "other")).await;
    for path in &lists {
        let list = world.get(path).await.expect(200);
        let ids: Vec<&str> =
            list["items"].as_array().unwrap().iter().map(|b| b["id"].as_str().unwrap()).collect();
        assert_eq!(ids, [own.as_str()], "{hold} is another's");
    }
}

#[tokio::test]
async fn no_tag_filter_or_page_shows_what_is_another_storefronts() {
    let (mut world, event, hold, operator) = two_storefronts().await;
    let own = id(&world.book(&event.id, "mine", &event.hold("ann", 1)).await.expect(201));
    world.present_key(&operator).await;
    world.drained(&event).await;
    let booking = format!("/v1/events/{}/bookings/{hold}", event.id);
    let tag = world.get(&booking).await.header("etag").unwrap().to_owned();
    let list = format!("/v1/events/{}/bookings?customer=ann&status=held&limit=1", event.id);
    let tag_of_list = world.get(&list).await.header("etag").unwrap().to_owned();
    let with_tag = async |world: &World, path: &str, tag: &str| {
        Reply::of(world.http.get(world.url(path)).header(IF_NONE_MATCH, tag).send().await.unwrap()).await
    };
    world.present_key(&Key::storefront(&world.settings, "other")).await;
    for known in [tag.as_str(), "*"] {
        with_tag(&world, &booking, known).await.refused(404, "booking_not_found");
    }
    // Its own is the newest; the operator's first page has it too, and another after it.
    let page = world.get(&list).await;
    let ids: Vec<String> = page.expect(200)["items"].as_array().unwrap().iter().map(id).collect();
    assert_eq!((ids, page.header("link")), (vec![own], None));
    assert_eq!(with_tag(&world, &list, &tag_of_list).await.status, 200);
}

#[tokio::test]
async fn another_storefronts_idempotency_key_replays_nothing() {
    let (world, event, hold, _) = two_storefronts().await;
    let reply = world.book(&event.id, "order-1", &event.hold("ann", 1)).await;
    assert_eq!(reply.header("idempotent-replayed"), None);
    assert_ne!(id(&reply.expect(201)), hold);
    assert_eq!(world.counts(&event, 0).await, (2, 0, 8));
}
