//! A client that speaks literal HTTP and JSON.

use serde_json::{Value, json};

use crate::documented;
use crate::world::World;

/// What came back.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Vec<u8>,
}

impl Reply {
    /// What came back; it must be documented.
    pub async fn of(response: reqwest::Response) -> Self {
        let path = response.url().path().to_owned();
        let reply = Self::undocumented(response).await;
        documented::assert(&path, &reply);
        reply
    }

    async fn undocumented(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self { status, headers, body: response.bytes().await.unwrap().to_vec() }
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| {
            panic!("{} with no JSON ({e}): {}", self.status, String::from_utf8_lossy(&self.body))
        })
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Asserts the status and gives the body.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// Asserts a problem of RFC 9457 with this status and code.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) -> Value {
        let problem = self.expect(status);
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(problem["status"], status);
        for member in ["type", "title", "detail", "request_id"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {problem}");
        }
        assert_eq!(self.header("x-request-id"), problem["request_id"].as_str());
        assert_eq!(self.header("retry-after").is_some(), matches!(status, 429 | 503), "{problem}");
        problem
    }
}

impl World {
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub async fn get(&self, path: &str) -> Reply {
        Reply::of(self.http.get(self.url(path)).send().await.unwrap()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        Reply::of(self.http.post(self.url(path)).json(body).send().await.unwrap()).await
    }

    pub async fn patch(&self, event: &str, body: &Value) -> Reply {
        let url = self.url(&format!("/v1/events/{event}"));
        Reply::of(self.http.patch(url).json(body).send().await.unwrap()).await
    }

    pub async fn book(&self, event: &str, key: &str, body: &Value) -> Reply {
        let request =
            self.http.post(self.url(&format!("/v1/events/{event}/bookings"))).header("Idempotency-Key", key);
        Reply::of(request.json(body).send().await.unwrap()).await
    }

    pub async fn booking(&self, event: &str, booking: &str) -> Reply {
        self.get(&format!("/v1/events/{event}/bookings/{booking}")).await
    }

    pub async fn confirm(&self, event: &str, booking: &str, payment: &str) -> Reply {
        let body = json!({"payment_reference": payment});
        self.post(&format!("/v1/events/{event}/bookings/{booking}/confirm"), &body).await
    }

    pub async fn cancel(&self, event: &str, booking: &str) -> Reply {
        let url = self.url(&format!("/v1/events/{event}/bookings/{booking}/cancel"));
        Reply::of(self.http.post(url).send().await.unwrap()).await
    }

    pub async fn publish(&self, event: &str) -> Reply {
        Reply::of(self.http.post(self.url(&format!("/v1/events/{event}/publish"))).send().await.unwrap())
            .await
    }

    pub async fn availability(&self, event: &str) -> Value {
        self.get(&format!("/v1/events/{event}/availability")).await.expect(200)
    }

    /// A draft as sent, with these capacities.
    pub fn draft(capacities: &[u32]) -> Value {
        let types: Vec<Value> = capacities
            .iter()
            .enumerate()
            .map(|(i, capacity)| {
                json!({"name": format!("type {i}"), "capacity": capacity, "price": {"amount": 1000 + i, "currency": "EUR"}})
            })
            .collect();
        json!({"name": "A night out", "starts_at": "2099-06-01T20:00:00Z", "ticket_types": types})
    }

    /// Creates and publishes an event; the event as it was answered.
    pub async fn on_sale(&self, draft: &Value) -> Event {
        let created = self.post("/v1/events", draft).await.expect(201);
        let id = created["id"].as_str().unwrap().to_owned();
        let published = self.publish(&id).await.expect(200);
        assert_eq!(published["status"], "on_sale");
        let types = published["ticket_types"].as_array().unwrap();
        let types = types.iter().map(|t| t["id"].as_str().unwrap().to_owned()).collect();
        Event { id, types }
    }

    /// An event of another shard.
    pub async fn on_sale_elsewhere(&self, other: &Event, draft: &Value) -> Event {
        loop {
            let event = self.on_sale(draft).await;
            if self.shard_of(&event) != self.shard_of(other) {
                return event;
            }
        }
    }

    /// Held, sold and available of a ticket type, by the API.
    pub async fn counts(&self, event: &Event, ordinal: usize) -> (i64, i64, i64) {
        let availability = self.availability(&event.id).await;
        let t = &availability["ticket_types"][ordinal];
        assert_eq!(t["ticket_type_id"], event.types[ordinal]);
        (t["held"].as_i64().unwrap(), t["sold"].as_i64().unwrap(), t["available"].as_i64().unwrap())
    }
}

/// An event on sale.
#[derive(Clone, Debug)]
pub struct Event {
    pub id: String,
    pub types: Vec<String>,
}

impl Event {
    /// A booking request for so many tickets of the first type.
    pub fn request(&self, customer: &str, quantity: i64) -> Value {
        json!({"customer": customer, "items": [{"ticket_type_id": self.types[0], "quantity": quantity}]})
    }

    /// The same, held.
    pub fn hold(&self, customer: &str, quantity: i64) -> Value {
        let mut request = self.request(customer, quantity);
        request["hold"] = json!(true);
        request
    }
}

/// The id of a booking or an event in an answer.
#[track_caller]
pub fn id(answer: &Value) -> String {
    answer["id"].as_str().unwrap_or_else(|| panic!("no id: {answer}")).to_owned()
}
