//! Requests as bytes on a socket: what no HTTP client would send.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Statuses and how often they came; 0 is a connection that was closed without an answer.
pub type Statuses = BTreeMap<u16, u64>;

/// A small generator of reproducible randomness (SplitMix64).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// Bytes that an HTTP/1.1 header value may have, those above ASCII included.
    pub fn value(&mut self, length: u64) -> Vec<u8> {
        (0..length)
            .map(|_| match self.below(8) {
                0 => u8::try_from(0x80 + self.below(0x80)).unwrap_or(0x80),
                1 => b'\t',
                _ => u8::try_from(0x20 + self.below(0x5F)).unwrap_or(b' '),
            })
            .collect()
    }
}

/// A request with random headers; most are small, some are huge.
pub fn request(random: &mut Random) -> Vec<u8> {
    const NAMES: [&str; 18] = [
        "authorization",
        "x-tidegate-decision",
        "x-tidegate-",
        "content-type",
        "x-http-method-override",
        "cookie",
        "x-forwarded-for",
        "accept",
        "x-original-url",
        "traceparent",
        "x-request-id",
        "user-agent",
        "origin",
        "te",
        "x-a",
        "grpc-timeout",
        "x-envoy-expected-rq-timeout-ms",
        "referer",
    ];
    const METHODS: [&str; 6] = ["GET", "POST", "DELETE", "OPTIONS", "PATCH", "MKCOL"];
    let method = METHODS[usize::try_from(random.below(6)).unwrap_or(0)];
    let mut path = b"/".to_vec();
    for _ in 0..random.below(24) {
        path.push(u8::try_from(0x21 + random.below(0x5E)).unwrap_or(b'x'));
    }
    path.retain(|byte| *byte != b'#');
    let mut bytes = format!("{method} ").into_bytes();
    bytes.extend_from_slice(&path);
    bytes.extend_from_slice(b" HTTP/1.1\r\nhost: orders.sales.example\r\n");
    let headers = match random.below(400) {
        0 => 500,
        _ => random.below(12),
    };
    for _ in 0..headers {
        let name = NAMES[usize::try_from(random.below(18)).unwrap_or(0)];
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(b": ");
        if name == "authorization" && random.below(2) == 0 {
            bytes.extend_from_slice(b"Bearer ");
        }
        let length = match random.below(2_000) {
            0 => 65_536,
            1..=400 => 0,
            401..=600 => 300,
            _ => random.below(40),
        };
        if name == "authorization" && random.below(2) == 0 {
            bytes.extend_from_slice(junk_token(random).as_bytes());
        } else {
            bytes.extend_from_slice(&random.value(length));
        }
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// Something that begins like a JWT.
fn junk_token(random: &mut Random) -> String {
    const HEADERS: [&str; 3] = ["eyJhbGciOiJSUzI1NiJ9", "eyJhbGciOiJub25lIn0", "e30"];
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let header = HEADERS[usize::try_from(random.below(3)).unwrap_or(0)];
    let mut part = |length: u64| -> String {
        (0..length).map(|_| char::from(ALPHABET[usize::try_from(random.below(64)).unwrap_or(0)])).collect()
    };
    let (claims, signature) = (part(60), part(86));
    format!("{header}.{claims}.{signature}")
}

/// Sends requests over one connection after the other, `pipelined` at a time, and counts the statuses of the answers.
pub async fn flood(
    address: SocketAddr,
    random: &mut Random,
    requests: u64,
    pipelined: u64,
) -> Result<Statuses> {
    let mut statuses = Statuses::new();
    let mut left = requests;
    let mut connection = None;
    while left > 0 {
        let stream = match &mut connection {
            Some(stream) => stream,
            None => connection.insert(TcpStream::connect(address).await.context("the listener accepts")?),
        };
        let batch = left.min(pipelined);
        let mut bytes = Vec::new();
        for _ in 0..batch {
            bytes.extend_from_slice(&request(random));
        }
        let answered = exchange(stream, &bytes, batch, &mut statuses).await?;
        if answered < batch {
            // Envoy closes a connection on which it could not parse a request; what followed was not answered.
            *statuses.entry(0).or_default() += 1;
            connection = None;
        }
        left -= answered.max(1);
    }
    Ok(statuses)
}

/// Writes requests and reads as many answers; returns how many came before the connection was closed.
async fn exchange(
    stream: &mut TcpStream,
    bytes: &[u8],
    expected: u64,
    statuses: &mut Statuses,
) -> Result<u64> {
    let (mut reader, mut writer) = stream.split();
    let mut answers = Answers::default();
    let write = async {
        // A connection that is closed while we write is noticed while reading.
        let _ = writer.write_all(bytes).await;
    };
    let read = async {
        let mut buffer = vec![0; 64 << 10];
        while answers.count < expected {
            match reader.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(length) => answers.feed(&buffer[..length], statuses)?,
            }
        }
        Ok::<u64, anyhow::Error>(answers.count)
    };
    let both = async { tokio::join!(write, read).1 };
    tokio::time::timeout(std::time::Duration::from_secs(60), both).await.context("answers stopped coming")?
}

/// Cuts a stream of HTTP/1.1 answers with content lengths or chunks into statuses.
#[derive(Default)]
struct Answers {
    pending: Vec<u8>,
    count: u64,
}

impl Answers {
    fn feed(&mut self, bytes: &[u8], statuses: &mut Statuses) -> Result<()> {
        self.pending.extend_from_slice(bytes);
        while let Some((status, length)) = first(&self.pending)? {
            *statuses.entry(status).or_default() += 1;
            self.count += 1;
            self.pending.drain(..length);
        }
        Ok(())
    }
}

/// Status and length of the first whole answer.
fn first(bytes: &[u8]) -> Result<Option<(u16, usize)>> {
    let Some(head) = find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).context("a status line")?;
    let body = head + 4;
    let header = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name).map(|value| value.trim().to_owned()))
    };
    if let Some(length) = header("content-length:") {
        let end = body + length.parse::<usize>().context("a content length")?;
        return Ok((bytes.len() >= end).then_some((status, end)));
    }
    if header("transfer-encoding:").is_some() {
        return Ok(find(&bytes[body..], b"0\r\n\r\n").map(|end| (status, body + end + 5)));
    }
    if status == 204 || status < 200 {
        return Ok(Some((status, body)));
    }
    bail!("an answer without length: {text}")
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}
