//! One stream: what a filter says, and what it is sent.
//!
//! A session is a state machine behind a response body. Its connection polls it when there is room to send, so a slow
//! receiver makes no queue: it misses the releases between and gets the newest when it is ready again.
//!
//! INVARIANT: at most one push is outstanding; the next one waits for its `Ack` or `Nack`. A stream goes on only while its
//! peer is the workload that it was when it began, which is asked again before every push and now and then.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::StreamBody;
use pb::subscribe_request::Message as Up;
use pb::subscribe_response::Message as Down;
use tidegate_identity::keys::MAX_KEY_ID_BYTES;
use tidegate_proto::v1 as pb;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tonic::Status;
use tracing::{debug, info, warn};

use super::fleet::VmKey;
use super::frames::frame;
use super::hello::{MAX_WORKLOAD, Proven, identify, validate};
use super::inbound::{Inbound, Measured};
use super::presence::Presence;
use super::questions::Questions;
use super::server::Sender;
use super::{Hub, Offer, Offered, Subscription, stopped};
use crate::bundle::{Sha256, hex};
use crate::metrics::ReasonLabel;
use crate::transport::StreamPass;

/// How long a client may take to say who it is.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// After this time without an answer a push counts as lost, and a newer one is sent.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest name of a directory in a question, in bytes. The name of a Dataflow job has up to 1024.
pub(super) const MAX_DIRECTORY: usize = 2 << 10;
/// Longest id in a question, in bytes.
pub(super) const MAX_ID: usize = 256;
/// Longest text of a filter that is logged and shown, in characters.
const MAX_DETAIL: usize = 512;

/// Runs a session as the body of a response.
pub(super) fn body(
    hub: Arc<Hub>,
    sender: Sender,
    inbound: Inbound<pb::SubscribeRequest>,
) -> impl http_body::Body<Data = Bytes, Error = Infallible> {
    let session = Session {
        stop: hub.stopping(),
        hub,
        sender,
        inbound,
        outbox: VecDeque::new(),
        phase: Phase::Greeting,
    };
    StreamBody::new(futures_util::stream::unfold(session, |mut session| async move {
        let frame = session.next().await?;
        Some((Ok(frame), session))
    }))
}

struct Session {
    hub: Arc<Hub>,
    sender: Sender,
    inbound: Inbound<pb::SubscribeRequest>,
    stop: watch::Receiver<bool>,
    outbox: VecDeque<Bytes>,
    phase: Phase,
}

enum Phase {
    /// Waits for `Hello`.
    Greeting,
    Serving(Box<Serving>),
    /// Everything is said, the status too.
    Ended,
}

/// A stream whose filter is known.
struct Serving {
    presence: Presence,
    /// Absent where nobody was asked.
    proven: Option<Proven>,
    /// When it is asked again who the peer is.
    identified_until: Instant,
    pass: Option<StreamPass>,
    offers: watch::Receiver<Offered>,
    /// Whether the current offer was not looked at yet.
    fresh: bool,
    /// The manifest that was offered last, or was enforced before.
    offered: Option<Sha256>,
    /// Sections that need not travel.
    held: Vec<Sha256>,
    outstanding: Option<Outstanding>,
    questions: Questions,
}

struct Outstanding {
    offer: Arc<Offer>,
    deadline: Instant,
}

// === impl Session ===

impl Session {
    /// The next piece of the body; `None` at its end.
    async fn next(&mut self) -> Option<Frame<Bytes>> {
        loop {
            if let Some(data) = self.outbox.pop_front() {
                return Some(Frame::data(data));
            }
            self.outbox.shrink_to(4);
            let step = match &mut self.phase {
                Phase::Greeting => self.greet().await,
                Phase::Serving(serving) => {
                    serving.step(&self.hub, &mut self.inbound, &mut self.stop, &mut self.outbox).await
                }
                Phase::Ended => return None,
            };
            if let Err(status) = step {
                // Dropping the phase takes the VM out of the fleet.
                self.phase = Phase::Ended;
                return Some(Frame::trailers(trailers(&status)));
            }
        }
    }

    async fn greet(&mut self) -> Result<(), Status> {
        let hello = tokio::select! {
            message = tokio::time::timeout(HELLO_TIMEOUT, self.inbound.message()) => match message {
                Ok(message) => match message? {
                    Some(Measured { message: pb::SubscribeRequest { message: Some(Up::Hello(hello)) }, bytes }) => {
                        (hello, bytes)
                    }
                    _ => return Err(self.refuse(Status::invalid_argument("the first message must be `hello`"))),
                },
                Err(_) => return Err(self.refuse(Status::deadline_exceeded("no `hello` within 10 s"))),
            },
            () = stopped(&mut self.stop) => return Err(stopping()),
        };
        let sender = Sender { caller: self.sender.caller.take(), pass: self.sender.pass.take() };
        let (hello, bytes) = hello;
        let serving =
            Serving::begin(&self.hub, hello, bytes, sender).map_err(|status| self.refuse(status))?;
        self.phase = Phase::Serving(Box::new(serving));
        Ok(())
    }

    fn refuse(&self, status: Status) -> Status {
        let reason = match status.code() {
            tonic::Code::NotFound => "unknown_workload",
            tonic::Code::Unavailable => "not_ready",
            tonic::Code::DeadlineExceeded => "no_hello",
            tonic::Code::FailedPrecondition => "protocol_version",
            tonic::Code::PermissionDenied => "not_its_own",
            tonic::Code::ResourceExhausted => "quota",
            _ => "invalid_hello",
        };
        self.hub.metrics.refused_streams.get_or_create(&ReasonLabel::new(reason)).inc();
        info!(reason, "stream refused: {}", status.message());
        status
    }
}

// === impl Serving ===

impl Serving {
    fn begin(hub: &Arc<Hub>, hello: pb::Hello, bytes: usize, mut sender: Sender) -> Result<Self, Status> {
        if hello.protocol_version != tidegate_proto::VERSION {
            return Err(Status::failed_precondition(format!(
                "`hello.protocol_version` is {}, and this control plane speaks {}; install matching versions",
                hello.protocol_version,
                tidegate_proto::VERSION
            )));
        }
        let held = validate(&hello)?;
        if let Some(pass) = &mut sender.pass {
            pass.message(bytes).map_err(|exceeded| hub.exceeded(exceeded, "a hello"))?;
        }
        let (workload, proven) = identify(hub, hello.workload.as_ref(), sender.caller)?;
        let offers = match hub.distributor.subscribe(&workload) {
            Subscription::To(offers) => offers,
            Subscription::NotReady => {
                return Err(Status::unavailable("no rules have been compiled yet; try again"));
            }
            Subscription::Unknown => {
                return Err(Status::not_found(format!(
                    "unknown workload `{workload}`; `workload` in the plugin configuration must be `namespace/name` of a \
                     workload or gateway that the Mesh lists"
                )));
            }
        };
        let vm = hello.vm.clone().unwrap_or_default();
        let key = VmKey { workload, instance: vm.instance, generation: vm.generation };
        // What it enforces already need not be sent again.
        let mut presence = Presence::enter(hub, key, &hello);
        let offer = offers.borrow().of(&presence.key.instance).clone();
        let release = offer.release();
        // A warm start has no candidate.
        let lacks_candidate = presence.takes_candidate()
            && release.candidate().iter().any(|section| !held.contains(section.sha256()));
        let fresh = release.sha256()[..] != hello.enforced_manifest[..] || lacks_candidate;
        if !fresh {
            presence.compare(release);
            presence.enforces(release);
        }
        let offered = (!fresh).then(|| *release.sha256());
        Ok(Self {
            presence,
            proven,
            identified_until: hub.identified_until(),
            pass: sender.pass,
            offers,
            fresh,
            offered,
            held,
            outstanding: None,
            questions: Questions::default(),
        })
    }

    async fn step(
        &mut self,
        hub: &Arc<Hub>,
        inbound: &mut Inbound<pb::SubscribeRequest>,
        stop: &mut watch::Receiver<bool>,
        outbox: &mut VecDeque<Bytes>,
    ) -> Result<(), Status> {
        if self.fresh && self.outstanding.is_none() {
            self.fresh = false;
            let offer = self.offers.borrow_and_update().of(&self.presence.key.instance).clone();
            // What changed may be for others.
            if self.offered == Some(*offer.release().sha256()) {
                return Ok(());
            }
            self.identify_again(hub)?;
            self.offer(hub, offer, outbox);
            return Ok(());
        }
        // Installed, not only sent: a filter that hears "listed" looks at what it has.
        if !self.fresh && self.outstanding.is_none() && !self.offers.has_changed().unwrap_or(false) {
            outbox.extend(self.questions.take_listed().into_iter().map(|nonce| answer(nonce, true)));
            if !outbox.is_empty() {
                return Ok(());
            }
        }
        let answer_until = self.outstanding.as_ref().map(|outstanding| outstanding.deadline);
        let identified_until = self.proven.as_ref().map(|_| self.identified_until);
        let deadline = answer_until.into_iter().chain(identified_until).min();
        tokio::select! {
            message = inbound.message() => match message? {
                Some(Measured { message, bytes }) => {
                    if let Some(pass) = &mut self.pass {
                        let exceeded = |exceeded| hub.exceeded(exceeded, &self.presence.to_string());
                        pass.message(bytes).map_err(exceeded)?;
                    }
                    self.take(hub, message, outbox)?;
                }
                None => return Err(Status::ok("the filter ended the stream")),
            },
            changed = self.offers.changed(), if !self.fresh => match changed {
                Ok(()) => self.fresh = true,
                Err(_) => return Err(Status::not_found("the workload is no longer part of the mesh")),
            },
            unlisted = self.questions.unlisted() => outbox.extend(unlisted.map(|nonce| answer(nonce, false))),
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                let now = Instant::now();
                if self.outstanding.take_if(|outstanding| outstanding.deadline <= now).is_some() {
                    warn!(vm = %self.presence, "a push was not answered within 30 s");
                }
                if self.identified_until <= now {
                    self.identify_again(hub)?;
                }
            }
            () = stopped(stop) => return Err(stopping()),
        }
        Ok(())
    }

    /// The Mesh may have changed since the stream began, and with it whose the workload is.
    fn identify_again(&mut self, hub: &Hub) -> Result<(), Status> {
        self.identified_until = hub.identified_until();
        self.proven.as_ref().map_or(Ok(()), |proven| proven.again(hub, &self.presence.key.workload))
    }

    fn offer(&mut self, hub: &Hub, offer: Arc<Offer>, outbox: &mut VecDeque<Bytes>) {
        // Never withheld: what it lacks it enforces more strictly, and what it would misread it refuses itself.
        self.presence.compare(offer.release());
        let frames = offer.frames(&self.held, self.presence.takes_candidate());
        let bytes: usize = frames.iter().map(Bytes::len).sum();
        outbox.extend(frames.iter().cloned());
        hub.metrics.pushes.inc();
        hub.metrics.push_bytes.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
        self.offered = Some(*offer.release().sha256());
        self.outstanding = Some(Outstanding { offer, deadline: Instant::now() + ANSWER_TIMEOUT });
    }

    fn take(
        &mut self,
        hub: &Arc<Hub>,
        request: pb::SubscribeRequest,
        outbox: &mut VecDeque<Bytes>,
    ) -> Result<(), Status> {
        match request.message {
            Some(Up::Ack(ack)) => self.take_ack(hub, &ack)?,
            Some(Up::Nack(nack)) => self.take_nack(hub, &nack)?,
            Some(Up::Receipt(receipt)) => {
                self.presence.receipt(&receipt);
                // A filter gives up a stream on which it hears nothing. What says nothing, every filter ignores.
                outbox.push_back(frame(&pb::SubscribeResponse { message: None }));
            }
            Some(Up::Lookup(lookup)) => {
                let is_bounded = lookup.directory.len() <= MAX_DIRECTORY && lookup.id.len() <= MAX_ID;
                let (nonce, hub, workload) = (lookup.nonce, hub.clone(), self.presence.key.workload.clone());
                let listed = async move { hub.look_up(&workload, &lookup.directory, &lookup.id).await };
                if !is_bounded || !self.questions.ask(nonce, listed) {
                    outbox.push_back(answer(nonce, false));
                }
            }
            Some(Up::KeyLookup(lookup)) => {
                let is_bounded =
                    lookup.issuer.len() <= MAX_WORKLOAD && lookup.key_id.len() <= MAX_KEY_ID_BYTES;
                let (nonce, hub, workload) = (lookup.nonce, hub.clone(), self.presence.key.workload.clone());
                let known = async move { hub.has_key(workload, lookup.issuer, lookup.key_id).await };
                if !is_bounded || !self.questions.ask(nonce, known) {
                    outbox.push_back(answer(nonce, false));
                }
            }
            Some(Up::Uses(uses)) => hub.used(&self.presence.key.workload, uses),
            Some(Up::Hello(_)) => debug!(vm = %self.presence, "a second hello is ignored"),
            // "Unknown message kinds are ignored by the receiver."
            None => {}
        }
        Ok(())
    }

    fn take_ack(&mut self, hub: &Hub, ack: &pb::Ack) -> Result<(), Status> {
        let Some(outstanding) = self.outstanding.take_if(|push| push.offer.nonce() == ack.nonce) else {
            debug!(vm = %self.presence, nonce = ack.nonce, "an answer to no push is ignored");
            return Ok(());
        };
        hub.metrics.acks.inc();
        let release = outstanding.offer.release();
        if release.sha256()[..] != ack.manifest_sha256[..] {
            warn!(
                vm = %self.presence,
                pushed = hex(release.sha256()),
                enforced = hex(&ack.manifest_sha256),
                "a filter acknowledged a push and enforces something else"
            );
            self.presence.enforces_other(&ack.manifest_sha256);
            return Err(Status::aborted("acknowledged another manifest than was pushed; connect again"));
        }
        let takes_candidate = self.presence.takes_candidate();
        let candidate = release.candidate().iter().filter(|_| takes_candidate);
        self.held = release.sections().iter().chain(candidate).map(|section| *section.sha256()).collect();
        hub.metrics.fleet.acknowledged(outstanding.offer.age());
        self.presence.enforces(release);
        Ok(())
    }

    fn take_nack(&mut self, hub: &Hub, nack: &pb::Nack) -> Result<(), Status> {
        let Some(outstanding) = self.outstanding.take_if(|push| push.offer.nonce() == nack.nonce) else {
            debug!(vm = %self.presence, nonce = nack.nonce, "an answer to no push is ignored");
            return Ok(());
        };
        let (label, reason) = nack_reason(nack.reason);
        hub.metrics.nacks.get_or_create(&ReasonLabel::new(label)).inc();
        let detail: String = nack.detail.chars().filter(|c| !c.is_control()).take(MAX_DETAIL).collect();
        warn!(
            vm = %self.presence,
            revision = outstanding.offer.release().revision().counter,
            reason = label,
            "a filter refused a push and keeps what it enforces: {detail}"
        );
        self.presence.refused(&outstanding.offer, label, detail);
        // What it holds is not what was believed; its next `Hello` says.
        let is_partial =
            outstanding.offer.release().sections().iter().any(|section| self.held.contains(section.sha256()));
        if reason == Some(pb::NackReason::MissingSection) && is_partial {
            return Err(Status::aborted("sections are missing that were taken for held; connect again"));
        }
        Ok(())
    }
}

fn nack_reason(reason: i32) -> (&'static str, Option<pb::NackReason>) {
    let Ok(reason) = pb::NackReason::try_from(reason) else { return ("unknown", None) };
    let label = match reason {
        pb::NackReason::Unspecified => "unspecified",
        pb::NackReason::Malformed => "malformed",
        pb::NackReason::BadSignature => "bad_signature",
        pb::NackReason::WrongAudience => "wrong_audience",
        pb::NackReason::StaleRevision => "stale_revision",
        pb::NackReason::Expired => "expired",
        pb::NackReason::DigestMismatch => "digest_mismatch",
        pb::NackReason::MissingSection => "missing_section",
        pb::NackReason::InvalidSection => "invalid_section",
        pb::NackReason::MissingCapability => "missing_capability",
        pb::NackReason::TooLarge => "too_large",
    };
    (label, Some(reason))
}

fn answer(nonce: u64, listed: bool) -> Bytes {
    let result = pb::LookupResult { nonce, listed };
    frame(&pb::SubscribeResponse { message: Some(Down::LookupResult(result)) })
}

pub(super) fn stopping() -> Status {
    Status::unavailable("the control plane is shutting down; connect again")
}

pub(super) fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    // Fails only for metadata, and there is none.
    let _ = status.add_header(&mut trailers);
    trailers
}
