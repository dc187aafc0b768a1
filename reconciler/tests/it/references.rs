//! References that triggers check once a statement.

use boxoffice_schema::ids::TicketTypeId;
use boxoffice_schema::record::Change;

use crate::sale::Sale;
use crate::stack::{FIRST, Stack};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_of_another_events_ticket_type_or_of_none_is_refused_and_the_rest_of_its_batch_applied() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let (mut sale, mut other) = (Sale::new(FIRST, 10), Sale::new(FIRST, 10));
    let foreign = other.ticket_type().id;
    let mut published = other.publish();
    published.position.sequence = 2;
    let mut log = vec![sale.publish(), published];
    sale.position.sequence = 2;
    log.push(sale.book("a", 1));
    for (key, ticket_type) in [("foreign", foreign), ("none", TicketTypeId::new())] {
        let mut stray = sale.book(key, 1);
        sale.ticket_type().sold -= 1;
        let Change::Booking(change) = &mut stray.change else { unreachable!() };
        change.image.items[0].ticket_type_id = ticket_type;
        log.push(stray);
    }
    log.push(sale.book("b", 1));
    stack.append(&log).await;
    stack.wait_for_sequence(FIRST, 6).await;

    assert_eq!(stack.words("SELECT idempotency_key FROM bookings ORDER BY 1").await, ["a", "b"]);
    assert_eq!(stack.number("SELECT sum(sold)::int8 FROM ticket_types").await, 2);
    let reasons = stack.words("SELECT reason FROM dead_letters").await;
    assert_eq!(reasons.len(), 2);
    assert!(reasons.iter().all(|reason| reason.contains("its event has no such ticket type")), "{reasons:?}");
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_removed_or_renamed_that_an_item_names() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let mut sale = Sale::new(FIRST, 10);
    stack.append(&[sale.publish(), sale.book("a", 1)]).await;
    stack.wait_for_sequence(FIRST, 2).await;
    service.stop().await;

    for (statement, complaint) in [
        ("DELETE FROM bookings", "has items of what was to be removed from bookings"),
        ("DELETE FROM ticket_types", "has items of what was to be removed from ticket_types"),
        ("TRUNCATE bookings", "has items of what was to be removed from bookings"),
        ("TRUNCATE ticket_types", "has items of what was to be removed from ticket_types"),
        ("DELETE FROM events", "ticket_types_event_id_fkey"),
        ("UPDATE bookings SET id = gen_random_uuid()", "ids of bookings never change"),
        ("UPDATE bookings SET event_id = gen_random_uuid()", "ids of bookings never change"),
        ("UPDATE ticket_types SET id = gen_random_uuid()", "ids of ticket_types never change"),
        ("UPDATE booking_items SET booking_id = gen_random_uuid()", "there is no such booking"),
        ("UPDATE booking_items SET ticket_type_id = gen_random_uuid()", "no such ticket type"),
    ] {
        let error = sqlx::query(statement).execute(&stack.pool).await.unwrap_err().to_string();
        assert!(error.contains(complaint), "{statement}: {error}");
    }
    assert_eq!(stack.number("SELECT count(*) FROM bookings JOIN booking_items ON id = booking_id").await, 1);
    stack.execute("DELETE FROM booking_items").await;
    let mut old_snapshot = stack.pool.begin().await.unwrap();
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").execute(&mut *old_snapshot).await.unwrap();
    let error =
        sqlx::query("DELETE FROM bookings").execute(&mut *old_snapshot).await.unwrap_err().to_string();
    assert!(error.contains("READ COMMITTED only"), "{error}");
    old_snapshot.rollback().await.unwrap();
    stack.execute("DELETE FROM bookings").await;
    stack.execute("DELETE FROM ticket_types").await;
    stack.remove().await;
}
