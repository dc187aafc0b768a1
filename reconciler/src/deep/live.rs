//! What Redis has: looked for in PostgreSQL, and in itself. Each hold has an entry in the expiry queue, and each customer a
//! count.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use boxoffice_schema::fingerprint::{CustomerHash, IdempotencyField};
use boxoffice_schema::ids::BookingId;
use boxoffice_schema::image::BookingImage;
use boxoffice_schema::position::Position;
use boxoffice_schema::scripts::{allowances, expiry_member};
use boxoffice_schema::slot;
use boxoffice_schema::status::BookingStatus;
use boxoffice_schema::time;
use redis::RedisError;
use uuid::Uuid;

use crate::audit::FindingKind;
use crate::number;
use crate::redis_link::of_its_type;

use super::{Comparison, DeepError, Subject};

/// Slots that are read in one round trip; a slot has about 64 bookings.
const SLOTS: usize = 32;

/// Customers that are read in one step.
const CUSTOMERS: usize = 1_000;

/// Where the next page of a customers hash begins, or 0; and the counts of this one by their fields.
type CustomersPage = (u64, Vec<(Vec<u8>, u64)>);

/// A slot's hash.
type Slot = Vec<(Vec<u8>, Vec<u8>)>;

/// What lies in some slots.
#[derive(Default)]
struct Content {
    bookings: Vec<(BookingId, BookingImage)>,
    /// What is none.
    unreadable: Vec<Unreadable>,
    /// Keys of slots under which something of another type lies: the slots are lost.
    lost: Vec<String>,
}

/// What lies in a slot and is no booking.
struct Unreadable {
    field: Vec<u8>,
    /// As far as that can be read.
    id: Option<BookingId>,
    reason: String,
}

/// Of a longer field only the beginning is told; a booking's has ten bytes.
const FIELD_TOLD: usize = 32;

impl Unreadable {
    fn tell(&self, found: &mut Comparison) {
        let field = self.field[..self.field.len().min(FIELD_TOLD)].escape_ascii();
        let booking = self.id.map_or_else(String::new, |id| format!(", perhaps of booking {id},"));
        let detail = format!("a slot's field {field}{booking} in Redis: {}", self.reason);
        found.add(FindingKind::UnreadableBookings, self.id, detail);
    }
}

impl Content {
    /// With what lies under a field of a slot.
    fn with(mut self, (field, value): &(Vec<u8>, Vec<u8>)) -> Self {
        let mut unreadable =
            |id, reason| self.unreadable.push(Unreadable { field: field.clone(), id, reason });
        let Ok(end) = field.as_slice().try_into().map(IdempotencyField::from_bytes) else {
            unreadable(None, "no booking's field has that length".to_owned());
            return self;
        };
        match slot::decode(end, value) {
            Ok(booking) => self.bookings.push(booking),
            Err(error) => {
                let id = value.first_chunk().map(|time| BookingId::from_parts(*time, end));
                unreadable(id, error.to_string());
            }
        }
        self
    }
}

/// The tickets that count against limits, by field of the customers hash.
type Allowances = BTreeMap<Vec<u8>, u64>;

/// How often customers who are in doubt are looked at again.
const LOOKS_AGAIN: usize = 2;

/// Why a customer is in doubt.
#[derive(Clone, Copy, Debug)]
enum Doubt {
    /// The count changed while the bookings were added up.
    Moved,
    /// It stayed, and is not their sum.
    Differs { counted: u64, summed: u64 },
}

impl Subject<'_> {
    pub(super) async fn compare_live(&self, found: &mut Comparison) -> Result<(), DeepError> {
        let before = self.read_customers().await?;
        let mut summed = Allowances::new();
        // What lies where one of PostgreSQL's bookings should was told when those were compared.
        let differing = found.bookings_with(FindingKind::BookingsDiffer);
        let told: HashSet<Vec<u8>> = differing.iter().map(|id| id.field().as_bytes().to_vec()).collect();
        for slots in self.slots().chunks(SLOTS) {
            let content = self.read_slots(slots).await?;
            self.look_for_rows(&content.bookings, found).await?;
            content.unreadable.iter().filter(|of| !told.contains(&of.field)).for_each(|of| of.tell(found));
            for key in &content.lost {
                let detail = format!("what lies under {key} in Redis is of another type than a slot");
                found.add(FindingKind::UnreadableBookings, None, detail);
            }
            self.compare_expiries(&content.bookings, found).await?;
            self.sum(&content.bookings, &mut summed);
        }
        let (Some(before), Some(after)) = (before, self.read_customers().await?) else {
            let key = self.sources.redis.keys.customers(self.shard, self.event.id);
            let detail = format!("what lies under {key} in Redis is of another type than customers' counts");
            found.add(FindingKind::AllowancesDiffer, None, detail);
            return Ok(());
        };
        self.compare_allowances(doubts(&before, &summed, &after), found).await
    }

    fn slots(&self) -> Vec<u32> {
        (0..self.event.slots).collect()
    }

    fn sum(&self, bookings: &[(BookingId, BookingImage)], summed: &mut Allowances) {
        for (field, tickets) in allowances(self.event, bookings) {
            *summed.entry(field).or_default() += tickets;
        }
    }

    /// Only the question what PostgreSQL lacks. Returns the keys of slots that are lost.
    pub(super) async fn look_for_all_rows(&self, found: &mut Comparison) -> Result<Vec<String>, DeepError> {
        let mut all_lost = Vec::new();
        for slots in self.slots().chunks(SLOTS) {
            let Content { bookings, lost, .. } = self.read_slots(slots).await?;
            self.look_for_rows(&bookings, found).await?;
            all_lost.extend(lost);
        }
        Ok(all_lost)
    }

    async fn read_slots(&self, slots: &[u32]) -> Result<Content, DeepError> {
        let key = |slot: &u32| self.sources.redis.keys.slot(self.shard, self.event.id, *slot);
        let mut pipeline = redis::pipe();
        for slot in slots {
            pipeline.cmd("HGETALL").arg(key(slot));
        }
        let read: Vec<Option<Slot>> = self.sources.redis.ask_each(&mut pipeline).await?;
        let mut content = Content::default();
        for (slot, fields) in slots.iter().zip(read) {
            match fields {
                // Each slot has an empty field, too.
                Some(fields) => {
                    let bookings = fields.iter().filter(|(field, _)| !field.is_empty());
                    content = bookings.fold(content, Content::with);
                }
                None => content.lost.push(key(slot)),
            }
        }
        Ok(content)
    }

    /// Bookings that PostgreSQL lacks, or has older, although it has applied the decision: it lost one.
    async fn look_for_rows(
        &self,
        bookings: &[(BookingId, BookingImage)],
        found: &mut Comparison,
    ) -> Result<(), DeepError> {
        let live: HashMap<BookingId, Position> =
            bookings.iter().map(|(id, image)| (*id, image.position)).collect();
        let behind = self.rows_behind(&live).await?;
        let Some(last) = behind.keys().filter_map(|id| live.get(id)).max() else { return Ok(()) };
        if !self.wait_until_applied(*last).await? {
            found.leave_open(format!(
                "event {}: {} bookings of Redis are ahead of PostgreSQL, which stands still before decision {last}",
                self.event.id,
                behind.len()
            ));
            return Ok(());
        }
        for (id, recorded) in self.rows_behind(&live).await? {
            let recorded = recorded.map_or_else(|| "not at all".to_owned(), |at| format!("as of {at}"));
            let detail = format!("Redis has booking {id} as of {} and PostgreSQL {recorded}", live[&id]);
            found.add(FindingKind::UnrecordedBookings, Some(id), detail);
        }
        Ok(())
    }

    /// Of these bookings those that PostgreSQL lacks or has older, with their positions there.
    async fn rows_behind(
        &self,
        live: &HashMap<BookingId, Position>,
    ) -> sqlx::Result<BTreeMap<BookingId, Option<Position>>> {
        let ids: Vec<Uuid> = live.keys().map(BookingId::as_uuid).collect();
        let rows: Vec<(Uuid, i32, i64)> =
            sqlx::query_as("SELECT id, epoch, sequence FROM bookings WHERE id = ANY ($1)")
                .bind(ids)
                .fetch_all(self.sources.pool)
                .await?;
        let mut behind: BTreeMap<BookingId, Option<Position>> = live.keys().map(|id| (*id, None)).collect();
        for (id, epoch, sequence) in rows {
            let id = BookingId::from_uuid(id);
            let recorded = number::position(epoch, sequence);
            if live.get(&id).is_some_and(|live| recorded >= *live) {
                behind.remove(&id);
            } else {
                behind.insert(id, Some(recorded));
            }
        }
        Ok(behind)
    }

    async fn compare_expiries(
        &self,
        bookings: &[(BookingId, BookingImage)],
        found: &mut Comparison,
    ) -> Result<(), DeepError> {
        let held = |image: &BookingImage| image.status == BookingStatus::Held;
        let holds: Vec<_> = bookings.iter().filter(|(_, image)| held(image)).collect();
        if holds.is_empty() {
            return Ok(());
        }
        let mut scores = redis::cmd("ZMSCORE");
        scores.arg(self.sources.redis.keys.expiry(self.shard));
        for (id, _) in &holds {
            scores.arg(expiry_member(self.event.id, *id));
        }
        let scores: Vec<Option<f64>> = self.sources.redis.ask(&scores).await?;
        for ((id, image), score) in holds.into_iter().zip(scores) {
            if score == expiry_score(image) {
                continue;
            }
            // Read together with the booking, which may have been decided upon since.
            let Some((value, score)) = self.read_hold(*id).await? else { continue };
            let image = match value {
                Some(value) => slot::decode(id.field(), &value)?.1,
                None => image.clone(),
            };
            if held(&image) && score != expiry_score(&image) {
                let detail = format!("in Redis the hold of booking {id} would not expire at its time");
                found.add(FindingKind::LostExpiries, Some(*id), detail);
            }
        }
        Ok(())
    }

    /// The booking and its place in the queue, at one moment; none where it was decided upon just then. Without a transaction, which may
    /// not begin in a Redis that is full.
    async fn read_hold(&self, id: BookingId) -> Result<Option<(Option<Vec<u8>>, Option<f64>)>, RedisError> {
        let mut booking = redis::cmd("HGET");
        booking.arg(self.slot_key(id)).arg(id.field().as_bytes());
        let mut score = redis::cmd("ZSCORE");
        score.arg(self.sources.redis.keys.expiry(self.shard)).arg(expiry_member(self.event.id, id));
        let mut step = redis::pipe();
        step.add_command(booking.clone()).add_command(score).add_command(booking);
        let (before, score, after): (Option<Vec<u8>>, _, _) = self.sources.redis.ask_all(&step).await?;
        Ok((before == after).then_some((after, score)))
    }

    /// Looks again at customers who are in doubt, and only at them: who buys once is at rest the next time.
    async fn compare_allowances(
        &self,
        mut doubted: BTreeMap<Vec<u8>, Doubt>,
        found: &mut Comparison,
    ) -> Result<(), DeepError> {
        for _ in 0..LOOKS_AGAIN {
            if doubted.is_empty() {
                return Ok(());
            }
            let before = self.read_customers().await?.unwrap_or_default();
            let mut summed = Allowances::new();
            for slots in self.slots().chunks(SLOTS) {
                self.sum(&self.read_slots(slots).await?.bookings, &mut summed);
            }
            let mut again = doubts(&before, &summed, &self.read_customers().await?.unwrap_or_default());
            again.retain(|field, _| doubted.contains_key(field));
            doubted = again;
        }
        let mut moved = 0;
        for (field, doubt) in doubted {
            let Doubt::Differs { counted, summed } = doubt else {
                moved += 1;
                continue;
            };
            let name: String = field.iter().map(|byte| format!("{byte:02x}")).collect();
            let detail = format!(
                "Redis counts {counted} tickets for customer {name}, whose bookings in Redis add up to {summed}"
            );
            found.add(FindingKind::AllowancesDiffer, None, detail);
        }
        if moved > 0 {
            found.not_compared.push(format!(
                "event {}: the allowances of {moved} customers, who bought at every look",
                self.event.id
            ));
        }
        Ok(())
    }

    /// None where something of another type lies under their key.
    async fn read_customers(&self) -> Result<Option<Allowances>, DeepError> {
        let key = self.sources.redis.keys.customers(self.shard, self.event.id);
        let mut counted = Allowances::new();
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("HSCAN");
            scan.arg(&key).arg(cursor).arg("COUNT").arg(CUSTOMERS);
            let page: Option<CustomersPage> = of_its_type(self.sources.redis.ask(&scan).await)?;
            let Some((next, page)) = page else { return Ok(None) };
            counted.extend(page.into_iter().filter(|(field, _)| is_customer(field)));
            if next == 0 {
                return Ok(Some(counted));
            }
            cursor = next;
        }
    }
}

/// The other fields of the customers hash say which slots there are.
const fn is_customer(field: &[u8]) -> bool {
    field.len() >= CustomerHash::FIELD
}

/// The score of a hold in the expiry queue.
#[expect(clippy::cast_precision_loss, reason = "Redis keeps scores as floats; milliseconds fit")]
fn expiry_score(image: &BookingImage) -> Option<f64> {
    image.hold_expires_at.map(|at| time::to_millis(at) as f64)
}

/// The customers whose bookings do not add up to their counts, or who bought while they were added up.
fn doubts(before: &Allowances, summed: &Allowances, after: &Allowances) -> BTreeMap<Vec<u8>, Doubt> {
    let of = |counts: &Allowances, field: &Vec<u8>| counts.get(field).copied().unwrap_or(0);
    let fields: BTreeSet<&Vec<u8>> = before.keys().chain(summed.keys()).chain(after.keys()).collect();
    let doubt = |field: &Vec<u8>| {
        let (counted, summed) = (of(after, field), of(summed, field));
        if of(before, field) != counted {
            Some(Doubt::Moved)
        } else if counted != summed {
            Some(Doubt::Differs { counted, summed })
        } else {
            None
        }
    };
    fields.into_iter().filter_map(|field| Some((field.clone(), doubt(field)?))).collect()
}
