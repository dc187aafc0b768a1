//! Rate limits as HTTP has them: who asks, the refusal, and the fields of an answer, as in
//! draft-ietf-httpapi-ratelimit-headers-11.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use actix_web::http::Method;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::web::Data;
use actix_web::{HttpMessage, HttpRequest, HttpResponse};
use boxoffice_schema::ids::EventId;
use boxoffice_schema::text::Customer;

use crate::error::Problem;
use crate::identity::{Caller, Scope};
use crate::inventory::InventoryError;
use crate::limits::{Action, Asked, Policy, Subjects, Verdict};
use crate::office::Office;
use crate::request::customer;

/// How long Redis may take to say whether a request that is no booking may be let in. A Redis that hangs must not cost
/// readers their own deadline.
const CHARGED_WITHIN: Duration = Duration::from_millis(200);

static RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
static RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Lets a request to a route in, or refuses it. Whoever may book is let in: the limits of a booking are decided with it.
pub(crate) async fn admit(route: &'static str, request: &HttpRequest) -> Result<(), Problem> {
    let Some(action) = action_of(route, request.method()) else { return Ok(()) };
    let Some(office) = request.app_data::<Data<Office>>() else { return Ok(()) };
    let Some(limits) = &office.limits else { return Ok(()) };
    let path = request.match_info();
    let event = path.get("event_id").and_then(|id| id.parse().ok());
    // A flood is refused before its credentials are verified and its bodies read, which would cost more than all of this.
    if limits.has_floods() {
        ask(office, action, request, None, None, event)?;
    }
    // Whoever comes without a credential, or with one that is bad or allows something else, is counted too, by what else is
    // known; the handler refuses them.
    let caller = match Caller::of(request) {
        // That nobody can tell who comes is no fault of theirs; of reads that is said by the handler.
        Err(problem) if action == Action::Booking && problem.is_ours() => return Err(problem),
        caller => caller.ok(),
    };
    let may_book = |caller: &Caller| caller.trades(Scope::BookingsWrite).is_ok();
    if action == Action::Booking && caller.as_ref().is_some_and(may_book) {
        return Ok(());
    }
    // They use up nothing of an event that others may book.
    let event = event.filter(|_| action != Action::Booking);
    let named = match &caller {
        // Only whoever may read of a customer uses up what that one may read.
        Some(caller) if path.get("customer").is_some() && caller.trades(Scope::BookingsRead).is_ok() => {
            customer(request).ok()
        }
        _ => None,
    };
    let whose = caller.as_ref().and_then(Caller::customer).or(named.as_ref());
    let asked = ask(office, action, request, caller.as_ref(), whose.map(Customer::as_str), event)?;
    let since = Instant::now();
    let charged = charge(office, request, &asked).await;
    note_wait(request, since.elapsed());
    charged
}

/// How long a request waited until it was let in, among its extensions.
struct Waited(Duration);

/// Notes it for the deadline of the work that follows.
pub(super) fn note_wait(request: &HttpRequest, time: Duration) {
    request.extensions_mut().insert(Waited(time));
}

/// How long the request waited until it was let in.
pub(super) fn waited(request: &HttpRequest) -> Duration {
    request.extensions().get::<Waited>().map_or(Duration::ZERO, |Waited(time)| *time)
}

/// What a call does as far as limits go; `None` where there is no limit for it. The contract documents it by the same.
pub(crate) fn action_of(route: &str, method: &Method) -> Option<Action> {
    if !route.starts_with("/v1/") {
        return None;
    }
    match *method {
        Method::GET | Method::HEAD => Some(Action::Reading),
        Method::POST if route.ends_with("/bookings") => Some(Action::Booking),
        Method::POST if route.ends_with("/confirm") || route.ends_with("/cancel") => Some(Action::Changing),
        _ => None,
    }
}

/// What must be checked for a request; refuses an obvious flood without asking Redis.
pub(super) fn ask(
    office: &Office,
    action: Action,
    request: &HttpRequest,
    caller: Option<&Caller>,
    customer: Option<&str>,
    event: Option<EventId>,
) -> Result<Asked, Problem> {
    let Some(limits) = &office.limits else { return Ok(Asked::default()) };
    let api_key = caller.and_then(Caller::key);
    let address = office.proxies.client_of(request);
    let asked = limits.ask(action, &Subjects { api_key, customer, address, event });
    stand(request, asked.refused_from_memory())?;
    Ok(asked)
}

/// Counts a request that is no booking. Where Redis does not answer it is let in: what needs Redis fails by itself, and
/// what does not should go on.
pub(super) async fn charge(office: &Office, request: &HttpRequest, asked: &Asked) -> Result<(), Problem> {
    if asked.is_empty() {
        return Ok(());
    }
    let check = office.stores.inventory.check_rates(asked.checks());
    match tokio::time::timeout(CHARGED_WITHIN, check).await {
        Ok(Ok(standings)) => stand(request, asked.decided(&standings)),
        // Redis answers, and more is asked than it can answer: letting all of it in would help nobody.
        Ok(Err(error @ InventoryError::Overloaded)) => Err(error.into()),
        Ok(Err(_)) | Err(_) => {
            metrics::counter!("boxoffice_rate_checks_unanswered_total").increment(1);
            Ok(())
        }
    }
}

/// Keeps how the request stands for the fields of its answer, and refuses it where a policy does.
pub(super) fn stand(request: &HttpRequest, verdict: Option<Verdict>) -> Result<(), Problem> {
    let Some(verdict) = verdict else { return Ok(()) };
    let refusal = verdict.is_refused().then(|| {
        let names: Vec<&str> = verdict.refusals().map(|(policy, _)| policy.name.as_str()).collect();
        Problem::rate_limited(&names, verdict.retry_after_seconds())
    });
    request.extensions_mut().insert(verdict);
    refusal.map_or(Ok(()), Err)
}

/// Puts the fields on an answer whose request was counted.
pub(crate) fn mark(request: &HttpRequest, response: &mut HttpResponse) {
    let extensions = request.extensions();
    let Some(verdict) = extensions.get::<Verdict>() else { return };
    let (policies, limits) = fields(verdict);
    for (name, value) in [(&RATE_LIMIT_POLICY, policies), (&RATE_LIMIT, limits)] {
        // A policy's name needs no escape, and the rest are numbers.
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name.clone(), value);
        }
    }
}

/// `RateLimit-Policy` and `RateLimit`: lists with an item a policy.
fn fields(verdict: &Verdict) -> (String, String) {
    let (mut policies, mut limits) = (String::new(), String::new());
    for (policy, standing) in &verdict.standings {
        let (separator, name) = (if policies.is_empty() { "" } else { ", " }, policy.name.as_str());
        let (quota, window) = shown(policy);
        let (remaining, reset) = (standing.remaining, standing.reset_ms.div_ceil(1_000));
        // Writing into a text does not fail.
        let _ = write!(policies, "{separator}\"{name}\";q={quota};w={window}");
        let _ = write!(limits, "{separator}\"{name}\";r={remaining};t={reset}");
    }
    (policies, limits)
}

/// The quota and the window in seconds. A bucket is shown with what it holds and the time in which that flows in: the
/// same rate, and never less than what remains.
fn shown(policy: &Policy) -> (u32, u64) {
    let quota = policy.quota;
    let flow = u64::from(quota.burst()) * u64::from(quota.window_seconds());
    (quota.burst(), flow.div_ceil(u64::from(quota.limit())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_limited_and_so_are_changes_and_what_machines_ask_is_not() {
        let event = "/v1/events/{event_id}";
        assert_eq!(action_of(event, &Method::GET), Some(Action::Reading));
        assert_eq!(action_of(event, &Method::PATCH), None);
        assert_eq!(action_of("/v1/events/{event_id}/bookings", &Method::POST), Some(Action::Booking));
        assert_eq!(action_of("/v1/events", &Method::POST), None);
        let confirm = "/v1/events/{event_id}/bookings/{booking_id}/confirm";
        assert_eq!(action_of(confirm, &Method::POST), Some(Action::Changing));
        assert_eq!(action_of("/metrics", &Method::GET), None);
        assert_eq!(action_of("unknown", &Method::GET), None);
    }
}
