//! Whose address counts: the limits of an address are where it shows.

use crate::temporary::TemporaryFile;
use crate::world::World;

/// Lets each address read once a day.
const ONCE: &str = "[[policy]]\nname = \"once\"\nfor = \"reading\"\nper = \"address\"\n\
    algorithm = \"token_bucket\"\nlimit = 1\nwindow_seconds = 86400\n";

async fn limited(policies: &TemporaryFile, proxies: &[&str]) -> World {
    World::start_with(&[&["--rate-limits", policies.name()], proxies].concat()).await
}

async fn read(world: &World, fields: &[(&str, &str)]) -> u16 {
    let mut request = world.http.get(world.url("/v1/events"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_client_that_no_trusted_proxy_speaks_for_cannot_choose_its_address() {
    let once = TemporaryFile::new("once", ONCE);
    for proxies in [&[][..], &["--trusted-proxies", "10.0.0.0/8,192.0.2.7"][..]] {
        let world = limited(&once, proxies).await;
        assert_eq!(read(&world, &[]).await, 200);
        assert_eq!(read(&world, &[("X-Forwarded-For", "198.51.100.1")]).await, 429);
        assert_eq!(read(&world, &[("Forwarded", "for=198.51.100.2")]).await, 429);
        assert_eq!(read(&world, &[("X-Real-IP", "198.51.100.3")]).await, 429);
    }
}

#[tokio::test]
async fn what_a_client_writes_in_front_of_the_proxys_word_gives_it_no_other_address() {
    let once = TemporaryFile::new("once", ONCE);
    let world = limited(&once, &["--trusted-proxies", "127.0.0.0/8,10.0.0.0/8"]).await;
    assert_eq!(read(&world, &[("X-Forwarded-For", "203.0.113.5")]).await, 200);
    for spoofed in [
        "1.1.1.1, 203.0.113.5",
        "1.1.1.1, 203.0.113.5, 10.1.2.3",
        "10.0.0.9, 203.0.113.5",
        "127.0.0.1, 203.0.113.5",
        "nonsense, 203.0.113.5",
        "203.0.113.5:4711",
        "::ffff:203.0.113.5",
    ] {
        assert_eq!(read(&world, &[("X-Forwarded-For", spoofed)]).await, 429, "{spoofed}");
    }
    assert_eq!(
        read(&world, &[("X-Forwarded-For", "1.1.1.1"), ("X-Forwarded-For", "203.0.113.5")]).await,
        429
    );
    assert_eq!(read(&world, &[("X-Forwarded-For", "203.0.113.6")]).await, 200, "another client is another");
}
