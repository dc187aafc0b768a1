//! Requests that a server behind a proxy must not read otherwise than the proxy did.

use super::{Raw, booking, booking_head};
use crate::world::World;

/// What an attacker wants to be seen as a second request.
fn smuggled(event: &str) -> String {
    let body = r#"{"customer":"mallory"}"#;
    booking(event, "smuggled", body)
}

#[tokio::test]
async fn a_request_whose_end_could_be_argued_about_is_refused_and_its_connection_ended() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let smuggled = smuggled(&event.id);
    let chunk = format!("0\r\n\r\n{smuggled}");
    for (what, fields, behind) in [
        ("both lengths", "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n", &chunk),
        (
            "both lengths the other way round",
            "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n",
            &chunk,
        ),
        ("two lengths", "Content-Length: 4\r\nContent-Length: 5\r\n\r\n", &chunk),
        ("one length twice", "Content-Length: 4\r\nContent-Length: 4\r\n\r\n", &chunk),
        ("a list of lengths", "Content-Length: 4, 4\r\n\r\n", &chunk),
        ("a signed length", "Content-Length: +4\r\n\r\n", &chunk),
        ("a negative length", "Content-Length: -4\r\n\r\n", &chunk),
        ("a hexadecimal length", "Content-Length: 0x4\r\n\r\n", &chunk),
        ("a length beyond 64 bits", "Content-Length: 18446744073709551616\r\n\r\n", &chunk),
        ("chunked twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", &chunk),
        ("chunked, chunked", "Transfer-Encoding: chunked, chunked\r\n\r\n", &chunk),
        ("chunked and more", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n", &chunk),
        ("identity", "Transfer-Encoding: identity\r\n\r\n", &chunk),
        ("gzip", "Transfer-Encoding: gzip, chunked\r\n\r\n", &chunk),
        ("xchunked", "Transfer-Encoding: xchunked\r\n\r\n", &chunk),
        ("a vertical tab", "Transfer-Encoding: \u{b}chunked\r\n\r\n", &chunk),
        ("quoted", "Transfer-Encoding: \"chunked\"\r\n\r\n", &chunk),
        ("a space before the colon", "Transfer-Encoding : chunked\r\n\r\n", &chunk),
        ("a length with a space before the colon", "Content-Length : 4\r\n\r\n", &chunk),
        ("a folded line", "X-Fold: a\r\n Transfer-Encoding: chunked\r\n\r\n", &chunk),
        ("a NUL", "X-Nul: a\0b\r\nContent-Length: 4\r\n\r\n", &chunk),
        ("a bare CR", "X-Bare: a\rTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n", &chunk),
        ("two hosts", "Host: other\r\nContent-Length: 4\r\n\r\n", &chunk),
        ("a chunk of a wrong size", "Transfer-Encoding: chunked\r\n\r\n", &"g\r\nx\r\n0\r\n\r\n".to_owned()),
        ("a chunk beyond 64 bits", "Transfer-Encoding: chunked\r\n\r\n", &format!("{}\r\nx", "f".repeat(17))),
        (
            "a chunk that ends elsewhere",
            "Transfer-Encoding: chunked\r\n\r\n",
            &"1\r\nxy\r\n0\r\n\r\n".to_owned(),
        ),
    ] {
        let mut client = Raw::to(&world).await;
        client.send(booking_head(&event.id, "k") + fields + behind).await;
        let answer = client.answer().await.unwrap_or_else(|| panic!("{what}: no answer"));
        assert_eq!(answer.status, 400, "{what}: {answer:?}");
        let more = client.rest().await;
        assert_eq!(more, 0, "{what}: the connection went on");
    }
    assert_eq!(world.counts(&event, 0).await, (0, 0, 10));
}

#[tokio::test]
async fn a_request_line_of_another_shape_is_refused() {
    let world = World::start().await;
    for line in [
        "GET /livez\r\n",
        "GET /livez HTTP/0.9\r\n",
        "GET /livez HTTP/3.0\r\n",
        "GET  /livez HTTP/1.1\r\n",
        "G\0T /livez HTTP/1.1\r\n",
        "GET /li\0vez HTTP/1.1\r\n",
        "GET livez HTTP/1.1\r\n",
        "PRI * HTTP/2.0\r\n",
    ] {
        let mut client = Raw::to(&world).await;
        client.send(format!("{line}Host: boxoffice\r\n\r\n")).await;
        if let Some(answer) = client.answer().await {
            assert!(matches!(answer.status, 400 | 404), "{line:?}: {answer:?}");
        }
    }
    let mut client = Raw::to(&world).await;
    client.send("GET /livez HTTP/1.1\r\n\r\n").await;
    assert_eq!(client.answer().await.unwrap().status, 400, "a request without Host");
    world.get("/livez").await.expect(200);
}

/// A proxy that sees one line where we see two would be led astray. Bare line feeds end lines for us, as RFC 9112 lets
/// them (section 2.2), in the whole head alike: so nothing can hide behind one.
#[tokio::test]
async fn a_bare_line_feed_ends_a_line_and_hides_nothing() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let mut client = Raw::to(&world).await;
    client
        .send(
            booking_head(&event.id, "k")
                + "X-Hides: a\nTransfer-Encoding: chunked\nContent-Length: 4\r\n\r\n0\r\n\r\n"
                + &smuggled(&event.id),
        )
        .await;
    assert_eq!(client.answer().await.unwrap().status, 400, "both lengths were seen");
    client.ended().await;
    assert_eq!(world.counts(&event, 0).await, (0, 0, 10));
}

/// As Java's client asks by default. A connection that ends without a word loses the request that is sent next.
#[tokio::test]
async fn a_request_to_upgrade_is_answered_and_told_that_its_connection_ends() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let body = event.request("ann", 1).to_string();
    let asks = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    let booking =
        booking_head(&event.id, "k") + asks + &format!("Content-Length: {}\r\n\r\n{body}", body.len());
    let read = format!("GET /v1/events/{} HTTP/1.1\r\nHost: boxoffice\r\n{asks}\r\n", event.id);
    let nowhere = format!("GET /nowhere HTTP/1.1\r\nHost: boxoffice\r\n{asks}\r\n");
    for (sent, status) in [(booking, 201), (read, 200), (nowhere, 404)] {
        let mut client = Raw::to(&world).await;
        client.send(&sent).await;
        let answer = client.answer().await.unwrap();
        assert_eq!((answer.status, answer.header("connection")), (status, Some("close")), "{answer:?}");
        client.ended().await;
    }
    assert_eq!(world.counts(&event, 0).await, (0, 1, 9));
}

#[tokio::test]
async fn what_follows_a_refused_body_is_not_taken_for_a_request() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let mut client = Raw::to(&world).await;
    // Refused by its declared length, before any of it is read; what comes is body nevertheless.
    client
        .send(booking_head(&event.id, "k") + "Content-Length: 1000000\r\n\r\n" + &smuggled(&event.id))
        .await;
    assert_eq!(client.answer().await.unwrap().status, 413);
    client.ended().await;
    let mut client = Raw::to(&world).await;
    let small = smuggled(&event.id);
    let chunked = format!("{:x}\r\n{small}\r\n0\r\n\r\n", small.len());
    client.send(booking_head(&event.id, "k") + "Transfer-Encoding: chunked\r\n\r\n" + &chunked).await;
    assert_eq!(client.answer().await.unwrap().status, 400, "it is a body that is no JSON");
    client.send("GET /livez HTTP/1.1\r\nHost: boxoffice\r\n\r\n").await;
    assert_eq!(client.answer().await.unwrap().status, 200, "and the next request is the next");
    assert_eq!(world.counts(&event, 0).await, (0, 0, 10));
}
