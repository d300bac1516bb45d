//! What a filter sends, message by message.
//!
//! gRPC's frames are read here rather than by tonic, which makes room for a message as soon as its length is announced: five
//! bytes of a caller would cost 64 KiB of ours.
//!
//! INVARIANT: what is kept of a message that is not finished was sent, is counted among what its principal has begun, and is
//! dropped after a while.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use prost::Message;
use tokio::time::{Instant, sleep_until};
use tonic::body::Body;
use tonic::{Code, Status};

use super::Hub;
use crate::transport::{MAX_MESSAGE, STREAM_WINDOW, Unfinished};

/// How long a message may take from its first byte to its last.
const UNFINISHED_FOR: Duration = Duration::from_secs(30);
/// "Compressed-Flag Message-Length" (gRPC over HTTP/2).
const PREFIX: usize = 5;

/// Reads messages of one kind.
pub(super) struct Inbound<M> {
    hub: Arc<Hub>,
    /// Largest message that is taken, in bytes.
    largest: usize,
    body: Body,
    /// Of messages that were not taken yet.
    rest: BytesMut,
    /// When the first byte of `rest` came.
    begun: Option<Instant>,
    /// Absent where nobody was asked who they are.
    unfinished: Option<Unfinished>,
    kind: PhantomData<fn() -> M>,
}

/// A message, and how many bytes it was sent in: what is not known of it is dropped, and must be paid for all the same.
#[derive(Debug)]
pub(super) struct Measured<M> {
    pub message: M,
    pub bytes: usize,
}

// === impl Inbound ===

impl<M: Message + Default> Inbound<M> {
    pub(super) fn new(hub: Arc<Hub>, body: Body, unfinished: Option<Unfinished>) -> Self {
        Self {
            hub,
            largest: MAX_MESSAGE,
            body,
            rest: BytesMut::new(),
            begun: None,
            unfinished,
            kind: PhantomData,
        }
    }

    /// The same, for messages of at most so many bytes.
    pub(super) fn with_largest(self, largest: usize) -> Self {
        Self { largest, ..self }
    }

    /// The next message; `None` when the caller has ended the stream. Nothing is lost when this is dropped before it is done.
    pub(super) async fn message(&mut self) -> Result<Option<Measured<M>>, Status> {
        let Some(message) = self.raw().await? else { return Ok(None) };
        let bytes = message.len();
        let message = M::decode(message)
            .map_err(|error| Status::invalid_argument(format!("malformed message: {error}")))?;
        Ok(Some(Measured { message, bytes }))
    }

    /// Waits for the beginning of a message; false when the caller has ended the stream. Nothing is lost when this is dropped
    /// before it is done.
    pub(super) async fn begins(&mut self) -> Result<bool, Status> {
        while self.rest.is_empty() {
            let Some(data) = self.data().await? else { return Ok(false) };
            self.add(&data)?;
        }
        Ok(true)
    }

    /// The time begins anew in which what is begun must be finished: it was not read for a while.
    pub(super) fn go_on(&mut self) {
        self.begun = self.begun.map(|_| Instant::now());
    }

    /// The next message as it was sent; else as [`Self::message`].
    pub(super) async fn raw(&mut self) -> Result<Option<BytesMut>, Status> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            let data = match self.begun {
                None => self.data().await?,
                Some(begun) => tokio::select! {
                    data = self.data() => data?,
                    () = sleep_until(begun + UNFINISHED_FOR) => {
                        return Err(Status::deadline_exceeded("a message was begun and not finished within 30 s"));
                    }
                },
            };
            match data {
                Some(data) => self.add(&data)?,
                None if self.rest.is_empty() => return Ok(None),
                None => return Err(Status::internal("the stream ended in the middle of a message")),
            }
        }
    }

    /// What comes next.
    async fn data(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(status)) if status.code() == Code::Cancelled => return Ok(None),
                Some(Err(status)) => return Err(status),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => return Ok(Some(data)),
                    // Trailers: the last that comes.
                    Err(_) => return Ok(None),
                },
            }
        }
    }

    fn add(&mut self, data: &[u8]) -> Result<(), Status> {
        self.rest.extend_from_slice(data);
        self.begun.get_or_insert_with(Instant::now);
        self.count()
    }

    /// What is no longer than a window is counted with the stream.
    fn count(&mut self) -> Result<(), Status> {
        let is_small = u32::try_from(self.rest.len()).is_ok_and(|length| length <= STREAM_WINDOW);
        let held = if is_small { 0 } else { self.rest.len() };
        match &mut self.unfinished {
            Some(unfinished) => unfinished
                .hold(held)
                .map_err(|exceeded| self.hub.exceeded(exceeded, "a message that is not finished")),
            None => Ok(()),
        }
    }

    /// A message that is there as a whole.
    fn take(&mut self) -> Result<Option<BytesMut>, Status> {
        let Some(message) = self.split()? else { return Ok(None) };
        // Most messages are acknowledgements of under 100 bytes; room for larger ones is given back.
        self.rest = BytesMut::from(&self.rest[..]);
        self.begun = (!self.rest.is_empty()).then(Instant::now);
        self.count()?;
        Ok(Some(message))
    }

    /// The bytes of the first message, if all of them are there.
    fn split(&mut self) -> Result<Option<BytesMut>, Status> {
        let Some((prefix, rest)) = self.rest.split_at_checked(PREFIX) else { return Ok(None) };
        let (flag, length) = prefix.split_at(1);
        if flag != [0] {
            return Err(Status::unimplemented("compressed messages are not taken"));
        }
        let length = length.iter().fold(0_usize, |length, byte| length << 8 | usize::from(*byte));
        if length > self.largest {
            let why = format!("a message has {length} bytes; at most {} are taken", self.largest);
            return Err(Status::out_of_range(why));
        }
        if rest.len() < length {
            return Ok(None);
        }
        self.rest.advance(PREFIX);
        Ok(Some(self.rest.split_to(length)))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::StreamExt;
    use http_body::Frame;
    use http_body_util::StreamBody;
    use tidegate_proto::v1 as pb;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;
    use crate::directories::Index;
    use crate::transport::{Exceeded, QuotaOptions, Quotas};

    type Requests = Inbound<pb::SubscribeRequest>;

    fn inbound(frames: &[&[u8]], unfinished: Option<Unfinished>) -> Requests {
        let frames: Vec<_> = frames
            .iter()
            .map(|data| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(data))))
            .collect();
        let body = Body::new(StreamBody::new(futures_util::stream::iter(frames)));
        Inbound::new(hub(), body, unfinished)
    }

    fn hub() -> Arc<Hub> {
        Arc::new(Hub::new(Index::new(Duration::from_secs(1))))
    }

    fn sent(content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).unwrap().to_be_bytes();
        [&[0], &length[..], content].concat()
    }

    fn nack(detail: &str) -> pb::SubscribeRequest {
        let nack = pb::Nack { nonce: 1, detail: detail.to_owned(), ..Default::default() };
        pb::SubscribeRequest { message: Some(pb::subscribe_request::Message::Nack(nack)) }
    }

    #[tokio::test]
    async fn messages_are_read_however_they_are_cut() {
        let messages = [nack(""), nack("a"), nack(&"x".repeat(30_000)), nack("b")];
        let all: Vec<u8> = messages.iter().flat_map(|message| sent(&message.encode_to_vec())).collect();
        for size in [1, 2, 5, 6, 7, 4_096, all.len()] {
            let chunks: Vec<_> = all.chunks(size).collect();
            let mut inbound = inbound(&chunks, None);
            for message in &messages {
                let read = inbound.message().await.unwrap().unwrap();
                assert_eq!((&read.message, read.bytes), (message, message.encoded_len()), "{size}");
            }
            assert!(inbound.message().await.unwrap().is_none());
        }
    }

    #[tokio::test]
    async fn what_is_not_known_of_a_message_counts_as_sent() {
        // Field 1000, which there is none of: 1000 bytes.
        let mut message = vec![0xc2, 0x3e, 0xe8, 0x07];
        message.extend([b'x'; 1000]);
        let read = inbound(&[&sent(&message)], None).message().await.unwrap().unwrap();
        assert_eq!((read.message.encoded_len(), read.bytes), (0, 1004));
    }

    #[tokio::test]
    async fn what_is_no_message_is_refused() {
        let large = u32::try_from(MAX_MESSAGE + 1).unwrap().to_be_bytes();
        for (frames, code) in [
            (vec![[&[0][..], &large[..]].concat()], Code::OutOfRange),
            (vec![vec![0, 0xff, 0xff, 0xff, 0xff]], Code::OutOfRange),
            (vec![vec![1, 0, 0, 0, 0]], Code::Unimplemented),
            (vec![vec![0, 0, 0]], Code::Internal),
            (vec![vec![0, 0, 0, 0, 9, 1]], Code::Internal),
            (vec![sent(&[0xff])], Code::InvalidArgument),
        ] {
            let cut: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
            let refused = inbound(&cut, None).message().await.unwrap_err();
            assert_eq!(refused.code(), code, "{frames:?}: {refused}");
        }
    }

    /// Of a message of which only the length was sent, nothing is kept but that.
    #[tokio::test]
    async fn an_announced_length_costs_nothing() {
        let (sender, frames) = mpsc::channel(4);
        let body = Body::new(StreamBody::new(
            ReceiverStream::new(frames)
                .map(|data: Vec<u8>| Ok::<_, Infallible>(Frame::data(Bytes::from(data)))),
        ));
        let mut inbound = Requests::new(hub(), body, None);
        let length = u32::try_from(MAX_MESSAGE).unwrap().to_be_bytes();
        sender.send([&[0][..], &length[..]].concat()).await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(50), inbound.message()).await.is_err());
        assert!(inbound.rest.capacity() < 1_024, "{}", inbound.rest.capacity());
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_is_never_finished_ends_its_stream() {
        let (sender, frames) = mpsc::channel(4);
        let body = Body::new(StreamBody::new(
            ReceiverStream::new(frames)
                .map(|data: Vec<u8>| Ok::<_, Infallible>(Frame::data(Bytes::from(data)))),
        ));
        let mut inbound = Requests::new(hub(), body, None);
        let message = sent(&nack(&"a".repeat(1_000)).encode_to_vec());
        let (begin, end) = message.split_at(7);
        // A stream that is silent between messages goes on.
        for _ in 0..3 {
            sender.send(message.clone()).await.unwrap();
            assert!(inbound.message().await.unwrap().is_some());
            tokio::time::advance(10 * UNFINISHED_FOR).await;
        }
        sender.send(begin.to_vec()).await.unwrap();
        let waits = tokio::time::timeout(UNFINISHED_FOR - Duration::from_secs(1), inbound.message()).await;
        assert!(waits.is_err());
        sender.send(end.to_vec()).await.unwrap();
        assert!(inbound.message().await.unwrap().is_some(), "in time");
        sender.send(begin.to_vec()).await.unwrap();
        let started = Instant::now();
        // A byte now and then does not help.
        let drip = tokio::spawn(async move {
            for _ in 0..100 {
                tokio::time::sleep(Duration::from_secs(5)).await;
                let _ = sender.send(vec![0]).await;
            }
        });
        assert_eq!(inbound.message().await.unwrap_err().code(), Code::DeadlineExceeded);
        assert_eq!(started.elapsed(), UNFINISHED_FOR);
        drip.abort();
    }

    #[tokio::test]
    async fn what_is_begun_is_counted_until_it_is_finished_or_given_up() {
        let quotas = Quotas::new(QuotaOptions::default());
        let peer = "spiffe://td/ns/a/sa/b".parse().unwrap();
        let unfinished = || quotas.open(&peer).unwrap().unfinished();
        let length = u32::try_from(MAX_MESSAGE).unwrap().to_be_bytes();
        let half = [&[0][..], &length[..], &[0; MAX_MESSAGE - 1][..]].concat();
        let mut begun = Vec::new();
        let refused = loop {
            let (sender, frames) = mpsc::channel(4);
            let body = Body::new(StreamBody::new(
                ReceiverStream::new(frames)
                    .map(|data: Vec<u8>| Ok::<_, Infallible>(Frame::data(Bytes::from(data)))),
            ));
            let mut inbound = Requests::new(hub(), body, Some(unfinished()));
            sender.send(half.clone()).await.unwrap();
            match tokio::time::timeout(Duration::from_millis(1), inbound.message()).await {
                Err(_) => begun.push((inbound, sender)),
                Ok(message) => break message.unwrap_err(),
            }
            assert!(begun.len() < 1_000, "nothing is counted");
        };
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(refused.message(), Exceeded::Unfinished.words());
        assert!((60..=64).contains(&begun.len()), "{}", begun.len());
        begun.clear();
        let whole = sent(&nack("a").encode_to_vec());
        assert!(inbound(&[&whole], Some(unfinished())).message().await.unwrap().is_some());
    }
}
