//! Which rules and keys are used.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::{Admin, fleet, issuers};
use crate::clock;
use crate::uses::{Forecast, forecast, unused};

/// Since when uses count where nobody says, in seconds: monthly work comes within it.
const SINCE_S: i64 = 30 * 86_400;

pub(super) async fn rules(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Response {
    let now = clock::now();
    let (mut since, mut all) = (now.saturating_sub(SINCE_S), false);
    for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        let understood = match &*name {
            "since" => value.parse().map(|asked| since = asked).is_ok(),
            "all" => value.parse().map(|asked| all = asked).is_ok(),
            _ => false,
        };
        if !understood || since > now {
            let why = "`since`: Unix seconds in the past; `all`: `true` or `false`\n";
            return (StatusCode::BAD_REQUEST, why).into_response();
        }
    }
    let known = admin.hub.decisions.known();
    Json(unused(&admin.hub.uses, &fleet(&admin.hub), &known.rules, (since, now), all)).into_response()
}

pub(super) async fn keys(State(admin): State<Admin>) -> Json<Forecast> {
    let issuers = issuers(&admin.issuers);
    Json(forecast(&admin.hub.uses, &issuers, &fleet(&admin.hub), clock::now()))
}
