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
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end.max(1)
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

/// Sends requests over one connection after the other, and counts the statuses of the answers.
///
/// Not pipelined: Envoy closes an HTTP/1.1 connection on which more than two answers of its own are queued.
pub async fn flood(address: SocketAddr, random: &mut Random, requests: u64) -> Result<Statuses> {
    let mut statuses = Statuses::new();
    let mut connection = None;
    for _ in 0..requests {
        let stream = match &mut connection {
            Some(stream) => stream,
            None => connection.insert(TcpStream::connect(address).await.context("the listener accepts")?),
        };
        match exchange(stream, &request(random)).await? {
            Some((status, closing)) => {
                *statuses.entry(status).or_default() += 1;
                if closing {
                    connection = None;
                }
            }
            None => {
                *statuses.entry(0).or_default() += 1;
                connection = None;
            }
        }
    }
    Ok(statuses)
}

/// Writes a request and reads its answer: status, and whether the connection ends with it. `None`: it was closed.
async fn exchange(stream: &mut TcpStream, bytes: &[u8]) -> Result<Option<(u16, bool)>> {
    let (mut reader, mut writer) = stream.split();
    let write = async {
        // A connection that is closed while we write is noticed while reading.
        let _ = writer.write_all(bytes).await;
    };
    let read = async {
        let (mut answer, mut buffer) = (Vec::new(), vec![0; 16 << 10]);
        loop {
            match reader.read(&mut buffer).await {
                Ok(0) | Err(_) => return Ok(None),
                Ok(length) => answer.extend_from_slice(&buffer[..length]),
            }
            if let Some(whole) = whole(&answer)? {
                return Ok(Some(whole));
            }
        }
    };
    // What is written after the answer has come interests nobody.
    let both = async {
        tokio::pin!(read, write);
        tokio::select! {
            answer = &mut read => answer,
            () = &mut write => read.await,
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), both).await.context("no answer came")?
}

/// Status of an answer that has arrived whole, and whether the connection ends with it.
fn whole(bytes: &[u8]) -> Result<Option<(u16, bool)>> {
    let Some(head) = find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).context("a status line")?;
    let header = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name).map(|value| value.trim().to_owned()))
    };
    let closing = header("connection:").is_some_and(|value| value == "close");
    let body = &bytes[head + 4..];
    let arrived = if let Some(length) = header("content-length:") {
        body.len() >= length.parse::<usize>().context("a content length")?
    } else if header("transfer-encoding:").is_some() {
        body.ends_with(b"0\r\n\r\n")
    } else if status == 204 || status < 200 {
        true
    } else {
        bail!("an answer without length: {text}")
    };
    Ok(arrived.then_some((status, closing)))
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}
