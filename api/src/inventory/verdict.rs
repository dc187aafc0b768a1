//! What becomes of a booking request that waits for a look with others: either the look tells, or it is decided as ever.

use boxoffice_schema::scripts::{Book, Outcome};

use super::InventoryError;
use super::crowd::{Crowd, Unanswered, Waiting};

/// What becomes of a request.
pub(super) enum Verdict {
    /// The look says so.
    Told(Outcome),
    /// It must be decided.
    Open(Book),
}

/// A request that waits.
pub(super) type Undecided = Waiting<Book, Verdict>;

impl Crowd<Book, Verdict> {
    /// What a look says of the request; whoever finds no room to wait is decided.
    ///
    /// # Errors
    /// Where the inventory is about to end.
    pub(super) async fn judge(&self, request: Book) -> Result<Verdict, InventoryError> {
        match self.ask(request).await {
            Ok(verdict) => Ok(verdict),
            Err(Unanswered::Full(request)) => Ok(Verdict::Open(request)),
            Err(Unanswered::Ending) => Err(InventoryError::Overloaded),
        }
    }
}

impl Undecided {
    /// Whoever is gone retries with their key.
    pub(super) fn tell(self, outcome: Option<Outcome>) {
        let _ = self.answer.send(outcome.map_or(Verdict::Open(self.question), Verdict::Told));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use boxoffice_schema::ids::{EventId, TicketTypeId};
    use boxoffice_schema::image::ImageItem;
    use boxoffice_schema::money::Currency;
    use boxoffice_schema::text::{Caller, Customer, IdempotencyKey};

    use super::super::crowd::crowd;
    use super::*;

    /// Ann's, of an event with one slot.
    pub(in crate::inventory) fn request(key: &str, quantity: u16) -> Book {
        let id = TicketTypeId::from_bytes([1; 16]);
        let item = ImageItem { ordinal: 0, quantity, ticket_type_id: id, unit_price: 4_500 };
        let key = IdempotencyKey::parse(key.as_bytes()).unwrap();
        let customer = Customer::try_from("ann".to_owned()).unwrap();
        let (event, currency) = (EventId::from_bytes([2; 16]), Currency::parse("EUR").unwrap());
        Book::new(event, 1, &Caller::anonymous(), &key, &customer, currency, 0, vec![item])
    }

    #[tokio::test]
    async fn whom_a_look_does_not_tell_and_whom_the_queue_has_no_room_for_must_be_decided() {
        let (crowd, mut turns) = crowd(2);
        let judge = async |key| match crowd.judge(request(key, 1)).await.unwrap() {
            Verdict::Told(outcome) => Some(outcome),
            Verdict::Open(_) => None,
        };
        let serve = async {
            // All three have asked by the time that the first turn is served.
            tokio::task::yield_now().await;
            let [first, second] = <[Undecided; 2]>::try_from(turns.next().await.unwrap()).ok().unwrap();
            first.tell(Some(Outcome::SoldOut));
            second.tell(None);
        };
        let (first, second, third, ()) = tokio::join!(judge("a"), judge("b"), judge("c"), serve);
        assert_eq!((first, second, third), (Some(Outcome::SoldOut), None, None));
    }
}
