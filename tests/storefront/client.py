"""Books, replays, confirms and cancels through the client that was generated from the contract.

Usage: client.py URL, with an operator's key as BOXOFFICE_TOKEN, and the generated package `boxoffice_client` on the path.
"""

import datetime
import os
import sys
import time
import uuid

from boxoffice_client import AuthenticatedClient
from boxoffice_client.api.bookings import (
    cancel_booking,
    confirm_booking,
    create_booking,
    get_booking,
)
from boxoffice_client.api.events import create_event, get_availability, publish_event
from boxoffice_client.models import (
    BookingStatus,
    EventStatus,
    NewBooking,
    NewEvent,
    NewItem,
    NewTicketType,
    Payment,
    Price,
    Problem,
    ProblemCode,
)

NOBODY = uuid.UUID(int=0)


def check(holds: bool, what: object) -> None:
    if not holds:
        sys.exit(f"not as the contract says: {what}")


def on_sale(client: AuthenticatedClient, capacity: int):
    """An event of one ticket type."""
    price = Price(amount=2500, currency="EUR")
    draft = NewEvent(
        name="A night out",
        starts_at=datetime.datetime(2099, 6, 1, 20, tzinfo=datetime.timezone.utc),
        ticket_types=[NewTicketType(name="Stalls", capacity=capacity, price=price)],
    )
    event = create_event.sync(client=client, body=draft)
    # The shard of an API that has just started may have to be verified first.
    deadline = time.monotonic() + 30
    while isinstance(published := publish_event.sync(event.id, client=client), Problem):
        check(published.status == 503 and time.monotonic() < deadline, published)
        time.sleep(1)
    check(published.status == EventStatus.ON_SALE, published)
    return published


def main() -> None:
    client = AuthenticatedClient(base_url=sys.argv[1], token=os.environ["BOXOFFICE_TOKEN"])
    event = on_sale(client, 2)
    item = NewItem(ticket_type_id=event.ticket_types[0].id, quantity=2)
    wanted = NewBooking(customer="ann", items=[item], hold=True)

    def book(key: str):
        return create_booking.sync_detailed(event.id, client=client, body=wanted, idempotency_key=key)

    first, replay = book("key-1"), book("key-1")
    check(first.status_code == 201 and first.parsed.status == BookingStatus.HELD, first)
    check(replay.status_code == 201 and replay.content == first.content, replay)
    check(replay.headers.get("idempotent-replayed") == "true", replay.headers)

    refused = book("key-2")
    check(refused.status_code == 409, refused)
    check(isinstance(refused.parsed, Problem) and refused.parsed.code == ProblemCode.SOLD_OUT, refused)

    booking = first.parsed
    paid = confirm_booking.sync(event.id, booking.id, client=client, body=Payment(payment_reference="pay_1"))
    check(paid.status == BookingStatus.CONFIRMED and paid.payment_reference == "pay_1", paid)
    cancelled = cancel_booking.sync(event.id, booking.id, client=client)
    check(cancelled.status == BookingStatus.CANCELLED, cancelled)
    check(get_booking.sync(event.id, booking.id, client=client) == cancelled, cancelled)
    left = get_availability.sync(event.id, client=client)
    check(left.ticket_types[0].available == 2, left)
    missing = get_booking.sync(event.id, NOBODY, client=client)
    check(missing.code == ProblemCode.BOOKING_NOT_FOUND, missing)
    print("the generated client booked, replayed, was refused, confirmed and cancelled")


if __name__ == "__main__":
    main()
