"""Books, replays, confirms and cancels through the client that was generated from the contract, and asks too often.

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
from boxoffice_client.api.limits import check_rate_limit
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
    RateLimitCheck,
)

NOBODY = uuid.UUID(int=0)

# As rate-limits.toml says.
BOOKINGS_AT_ONCE = 20
MAILS = 1000


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


def book_too_often(client: AuthenticatedClient, event) -> None:
    """Until a limit refuses."""
    wanted = NewBooking(customer=f"eve-{uuid.uuid4()}", items=[NewItem(ticket_type_id=event.ticket_types[0].id, quantity=3)])
    answers = [
        create_booking.sync_detailed(event.id, client=client, body=wanted, idempotency_key=f"often-{number}")
        for number in range(BOOKINGS_AT_ONCE + 1)
    ]
    check(all(answer.status_code == 409 for answer in answers[:-1]), answers)
    check(answers[0].headers["ratelimit"].startswith('"bookings-per-customer";r=19;'), answers[0].headers)
    refused = answers[-1]
    check(refused.status_code == 429 and refused.parsed.code == ProblemCode.RATE_LIMITED, refused)
    check(int(refused.headers["retry-after"]) > 0, refused.headers)


def ask_first(client: AuthenticatedClient) -> None:
    """As another service does before it works."""
    question = RateLimitCheck(policy="mails-per-customer", key=str(uuid.uuid4()), cost=MAILS)
    first, second = (check_rate_limit.sync(client=client, body=question) for _ in range(2))
    check(first.allowed and first.remaining == 0 and first.retry_after_seconds is None, first)
    check(not second.allowed and second.retry_after_seconds > 0, second)


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
    book_too_often(client, event)
    ask_first(client)
    print("the generated client booked, replayed, was refused, confirmed, cancelled, and was told that it asks too often")


if __name__ == "__main__":
    main()
