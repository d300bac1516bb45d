//! What people do to what is in force: the part of the admin interface that writes.
//!
//! INVARIANT: nothing here is reached but by whom [`super::access::admit_writer`] has let through, and each entry names them.

use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{delete, post};
use axum::{Router, extract::DefaultBodyLimit};
use serde::{Deserialize, Serialize};

use super::access::{self, Writer, elsewhere};
use super::{Admin, lock};
use crate::control::{
    AskedPin, AskedRevocation, AskedRollout, AskedSuspension, Broken, Control, ControlReport, Pin, Refused,
    Revocation, RuleSet, Suspension,
};
use crate::rollout::RolloutReport;

/// Largest request, in bytes.
const MAX_BODY: usize = 64 << 10;

/// What is in force, and what was done to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ControlState {
    /// Rules of which everything is on offer to filters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered: Option<RuleSet>,
    /// Rules that were accepted last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<RuleSet>,
    /// Whether what is on disk, or in the cluster, is what was accepted last.
    pub up_to_date: bool,
    /// Errors in what is there.
    pub errors: usize,
    /// Rules that are kept on offer instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
    /// What is taken back.
    #[serde(default)]
    pub revocations: Vec<Revocation>,
    /// Revocations that do not go together with the newest rules, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub broken: Vec<Broken>,
    /// Workloads whose Guards only report.
    #[serde(default)]
    pub suspensions: Vec<Suspension>,
    /// Rules that can be gone back to, oldest first.
    #[serde(default)]
    pub history: Vec<RuleSet>,
    /// Changed rules that not all proxies enforce.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rollouts: Vec<RolloutReport>,
}

pub(super) fn router(admin: &Admin) -> Router<Admin> {
    Router::new()
        .route("/control/revocations", post(revoke))
        .route("/control/suspensions", post(suspend))
        .route("/control/entries/{id}", delete(lift))
        .route("/control/pin", post(pin).delete(release))
        .route("/control/rollouts", post(end_rollout))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(admin.clone(), access::admit_writer))
}

pub(super) async fn control(State(admin): State<Admin>) -> Response {
    // Rules may be being compiled, and that is waited for.
    match tokio::task::spawn_blocking(move || state(&admin)).await {
        Ok(state) => Json(state).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn state(admin: &Admin) -> ControlState {
    // First what is on offer: it is no newer than what is said to be accepted.
    let offered = admin.offered.borrow().as_ref().map(|offered| offered.set.clone());
    let diagnosis = lock(&admin.diagnosis);
    let (up_to_date, errors) =
        (diagnosis.up_to_date, diagnosis.findings.iter().filter(|found| found.is_error()).count());
    drop(diagnosis);
    // What has ended is evidence.
    let ControlReport { accepted, pin, revocations, broken, suspensions, history, rollouts, .. } =
        admin.control.report();
    ControlState {
        offered,
        accepted,
        up_to_date,
        errors,
        pin,
        revocations,
        broken,
        suspensions,
        history,
        rollouts,
    }
}

async fn revoke(
    State(admin): State<Admin>,
    Extension(writer): Extension<Writer>,
    asked: Result<Json<AskedRevocation>, JsonRejection>,
) -> Response {
    answer(&admin, asked, move |control, asked| control.revoke(asked, &writer.0)).await
}

async fn suspend(
    State(admin): State<Admin>,
    Extension(writer): Extension<Writer>,
    asked: Result<Json<AskedSuspension>, JsonRejection>,
) -> Response {
    answer(&admin, asked, move |control, asked| control.suspend(asked, &writer.0)).await
}

async fn pin(
    State(admin): State<Admin>,
    Extension(writer): Extension<Writer>,
    asked: Result<Json<AskedPin>, JsonRejection>,
) -> Response {
    // Which rules a number means is the leader's history.
    if let Some(other) = admin.leadership.borrow().other.clone() {
        return elsewhere(&other, "earlier rules are those that it keeps");
    }
    answer(&admin, asked, move |control, asked| control.pin(&asked, &writer.0)).await
}

async fn end_rollout(
    State(admin): State<Admin>,
    Extension(writer): Extension<Writer>,
    asked: Result<Json<AskedRollout>, JsonRejection>,
) -> Response {
    answer(&admin, asked, move |control, asked| control.end_rollout(asked, &writer.0)).await
}

async fn lift(
    State(admin): State<Admin>,
    Extension(writer): Extension<Writer>,
    Path(id): Path<String>,
) -> Response {
    answer(&admin, Ok(Json(id)), move |control, id| control.lift(&id, &writer.0)).await
}

async fn release(State(admin): State<Admin>, Extension(writer): Extension<Writer>) -> Response {
    answer(&admin, Ok(Json(())), move |control, ()| control.release(&writer.0)).await
}

async fn answer<A: Send + 'static, T: Serialize + Send + 'static>(
    admin: &Admin,
    asked: Result<Json<A>, JsonRejection>,
    act: impl FnOnce(&Control, A) -> Result<T, Refused> + Send + 'static,
) -> Response {
    let refuse = |status: StatusCode, why: String| (status, format!("{why}\n")).into_response();
    let asked = match asked {
        Ok(Json(asked)) => asked,
        Err(rejection) => return refuse(rejection.status(), rejection.body_text()),
    };
    let control = Arc::clone(&admin.control);
    match tokio::task::spawn_blocking(move || act(&control, asked)).await {
        Ok(Ok(done)) => Json(done).into_response(),
        Ok(Err(refused)) => {
            let status = match &refused {
                Refused::Asked(_) => StatusCode::UNPROCESSABLE_ENTITY,
                Refused::Unknown(_) => StatusCode::NOT_FOUND,
                Refused::Other(_) => StatusCode::CONFLICT,
                Refused::Away(_) => StatusCode::SERVICE_UNAVAILABLE,
                Refused::State(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            refuse(status, refused.to_string())
        }
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}
