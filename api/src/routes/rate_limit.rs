//! `POST /v1/rate-limit/check`: other services ask before they work.

use std::num::NonZeroU32;

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use actix_web::web::Payload;
use boxoffice_schema::text::RateSubject;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Answer, SharedOffice, in_time, json};
use crate::contract::{self, OPERATING, READ_BODY, refusals};
use crate::error::{Code, Problem};
use crate::identity::{Caller, Scope};
use crate::limits::Asked;
use crate::office::Office;
use crate::request::{Checks, Integer, parse, read_json};

/// The most units of one check, and so what one call can cost.
const COST_MAX: i64 = 1_000;

/// What somebody wants to do.
#[derive(Deserialize, ToSchema)]
#[schema(as = RateLimitCheck, examples(contract::rate_limit_check))]
#[serde(deny_unknown_fields)]
pub(crate) struct Question {
    #[schema(schema_with = contract::policy_name, required = true)]
    policy: Option<String>,
    #[schema(schema_with = contract::rate_subject, required = true)]
    key: Option<String>,
    #[schema(schema_with = contract::cost_or_null)]
    cost: Option<Integer>,
}

/// Whether they may.
#[derive(Serialize, ToSchema)]
#[schema(as = RateLimitVerdict, examples(contract::rate_limit_verdict))]
pub(crate) struct AnswerBody<'a> {
    /// Where it is true, the units are taken.
    allowed: bool,
    #[schema(schema_with = contract::policy_name)]
    policy: &'a str,
    /// The most units that can be taken at once.
    #[schema(minimum = 1, maximum = 1_000_000)]
    limit: u32,
    /// Units that are left now.
    #[schema(minimum = 0, maximum = 1_000_000)]
    remaining: u32,
    /// After how many seconds all units are back.
    #[schema(minimum = 0)]
    reset_seconds: u32,
    /// After how many seconds it would be allowed, if nobody else takes anything; null where it is allowed.
    #[schema(value_type = Option<u32>, minimum = 1, required = true)]
    retry_after_seconds: Option<NonZeroU32>,
}

// An API key is not believed for ever while PostgreSQL is away.
refusals!(CheckRefusals:
    OPERATING,
    READ_BODY,
    &[Code::RedisUnavailable, Code::PostgresUnavailable, Code::Overloaded],
);

/// Ask whether something may be done, and take what it costs
///
/// 200 whether it is allowed or not: the question was answered.
#[utoipa::path(
    post,
    path = "/v1/rate-limit/check",
    operation_id = "checkRateLimit",
    tag = "limits",
    security(("apiKey" = [Scope::LimitsCheck])),
    request_body = Question,
    responses(
        (status = 200, description = "The policy's answer.", body = AnswerBody<'_>),
        CheckRefusals,
    ),
)]
pub(crate) async fn check(
    caller: Caller,
    office: SharedOffice,
    request: HttpRequest,
    payload: Payload,
) -> Answer {
    caller.operates(Scope::LimitsCheck)?;
    let body = read_json(&request, payload).await?;
    let asked = parse::<Question>(&body)?.check(&office)?;
    let verdict = match asked.refused_from_memory() {
        Some(verdict) => verdict,
        None => {
            let checks = office.stores.inventory.check_rates(asked.checks());
            let standings = in_time(async { Ok(checks.await?) }).await?;
            asked.decided(&standings).ok_or_else(|| Problem::internal("a check was not answered"))?
        }
    };
    let [(policy, standing)] = &verdict.standings[..] else {
        return Err(Problem::internal("one policy was asked, and not one answered"));
    };
    let body = AnswerBody {
        allowed: !standing.refuses,
        policy: policy.name.as_str(),
        limit: policy.quota.burst(),
        remaining: standing.remaining,
        reset_seconds: standing.reset_ms.div_ceil(1_000),
        retry_after_seconds: standing.refuses.then(|| verdict.retry_after_seconds()),
    };
    json(StatusCode::OK, &body)
}

impl Question {
    fn check(self, office: &Office) -> Result<Asked, Problem> {
        let mut checks = Checks::default();
        let policy = checks.required("policy", self.policy);
        let key = checks.required("key", self.key);
        let key: Option<RateSubject> = key.and_then(|key| checks.text("key", key));
        let cost = checks.number("cost", self.cost.unwrap_or(Integer(1)), 1..=COST_MAX);
        let asked = match (&office.limits, &policy, &key, cost) {
            (Some(limits), Some(policy), Some(key), Some(cost)) => {
                limits.ask_for_service(policy, key.as_str(), cost)
            }
            _ => None,
        };
        let is_complete = policy.is_some() && key.is_some() && cost.is_some();
        match (&asked, cost) {
            (None, _) if is_complete => checks.wrong("policy", "is no policy for services"),
            (Some(asked), Some(cost)) if u32::from(cost) > asked.cost_max() => {
                checks.wrong("cost", format_args!("can never be allowed: at most {}", asked.cost_max()));
            }
            _ => {}
        }
        checks.done()?;
        asked.ok_or_else(|| Problem::internal("a check let something through"))
    }
}
