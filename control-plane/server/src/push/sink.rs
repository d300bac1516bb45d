//! Takes decision records from filters.
//!
//! They are counted and acknowledged; nothing a record says is trusted, and no label comes from it.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use prost::Message as _;
use tidegate_proto::v1 as pb;
use tidegate_proto::v1::decision_sink_server::DecisionSink;
use tonic::{Request, Response, Status, Streaming};

use super::{Hub, stopped};
use crate::metrics::ReasonLabel;
use crate::transport::Caller;

pub(super) struct Sink {
    hub: Arc<Hub>,
}

// === impl Sink ===

impl Sink {
    pub(super) fn new(hub: Arc<Hub>) -> Self {
        Self { hub }
    }
}

fn count(hub: &Hub, batch: &pb::ReportRequest) {
    for record in &batch.records {
        let outcome = match record.outcome() {
            pb::Outcome::Allow => "allow",
            pb::Outcome::Deny => "deny",
            pb::Outcome::Unspecified => "unspecified",
        };
        hub.metrics.decisions.get_or_create(&ReasonLabel::new(outcome)).inc();
    }
    hub.metrics.decisions_dropped.inc_by(batch.dropped);
}

#[tonic::async_trait]
impl DecisionSink for Sink {
    type ReportStream = Pin<Box<dyn Stream<Item = Result<pb::ReportResponse, Status>> + Send>>;

    async fn report(
        &self,
        request: Request<Streaming<pb::ReportRequest>>,
    ) -> Result<Response<Self::ReportStream>, Status> {
        let pass = self.hub.admit(request.extensions().get::<Caller>())?;
        let state = (self.hub.clone(), self.hub.stopping(), pass, request.into_inner());
        let acknowledgements = futures_util::stream::try_unfold(
            state,
            |(hub, mut stop, mut pass, mut batches)| async move {
                let batch = tokio::select! {
                    batch = batches.message() => batch?,
                    () = stopped(&mut stop) => return Err(Status::unavailable("shutting down; connect again")),
                };
                let Some(batch) = batch else { return Ok(None) };
                if let Some(pass) = &mut pass {
                    pass.message(batch.encoded_len())
                        .map_err(|exceeded| hub.exceeded(exceeded, "decision records"))?;
                }
                count(&hub, &batch);
                Ok(Some((pb::ReportResponse { sequence: batch.sequence }, (hub, stop, pass, batches))))
            },
        );
        Ok(Response::new(Box::pin(acknowledgements)))
    }
}
