use std::convert::Infallible;
use std::sync::Mutex;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::*;
use crate::directories::Index;
use crate::push::Hub;
use crate::state::StateDir;

/// Together more than the cluster keeps, and less without what has ended.
fn full() -> Kept {
    let target = json!({"kind": "token", "issuer": "gitlab", "id": "x".repeat(2_000)});
    let revocation = |id: usize| json!({"id": format!("r-{id}"), "target": target, "reason": "leaked", "by": "me", "at": 1, "until": 4_000_000_000_i64});
    let ended = json!({
        "id": "s-1", "kind": "suspended", "what": "sales/orders", "reason": "x".repeat(1_000), "by": "me", "at": 1, "until": 2,
        "end": {"at": 2, "how": "time"},
    });
    let revocations: Vec<_> = (1..=400).map(revocation).collect();
    let kept = json!({
        "revision": 3, "given": 400, "pin": null, "revocations": revocations, "suspensions": [],
        "past": {"since": 0, "ended": vec![ended; 100]},
    });
    serde_json::from_value(kept).unwrap()
}

/// A cluster in which the object is gone. It keeps what is written.
fn cluster(written: &Arc<Mutex<Option<Value>>>) -> Client {
    let written = written.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let written = written.clone();
        async move {
            let is_write = request.method() == Method::POST;
            let body = request.into_body().collect_bytes().await.unwrap();
            let (status, answer) = match is_write {
                true => {
                    *written.lock().unwrap() = Some(serde_json::from_slice(&body).unwrap());
                    (StatusCode::CREATED, body.to_vec())
                }
                false => {
                    let none = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "gone",
                        "reason": "NotFound", "code": 404});
                    (StatusCode::NOT_FOUND, none.to_string().into_bytes())
                }
            };
            Ok::<_, Infallible>(Response::builder().status(status).body(Body::from(answer)).unwrap())
        }
    });
    Client::new(service, "tidegate-system")
}

#[tokio::test]
async fn a_new_leader_gives_up_what_has_ended_for_what_is_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let state = Arc::new(StateDir::open(folder.path()).unwrap());
    state.write_json(FILE, &full()).unwrap();
    let written = Arc::default();
    let shared = Arc::new(SharedKept::new(cluster(&written), "tidegate-system"));
    let hub = Arc::new(Hub::new(Index::new(Duration::from_secs(1))));
    let control = Control::open(state, hub, watch::Sender::default(), Some(shared), true).unwrap();
    tokio::task::spawn_blocking(move || control.settle()).await.unwrap().unwrap();
    let object = written.lock().unwrap().take().unwrap();
    let past = &object["spec"]["past"];
    let left = past["ended"].as_array().unwrap().len();
    assert_eq!(object["spec"]["revocations"].as_array().unwrap().len(), 400);
    assert!((1..100).contains(&left), "{left}");
    assert_eq!(past["since"], 3, "it says what is missing");
}
