//! A metadata server like that of a Google VM, as far as identity tokens go, which can misbehave.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

/// How one request is answered.
#[derive(Debug, Clone)]
pub enum Answer {
    /// With a token that is good for this many seconds.
    Token(i64),
    /// The same, after a while.
    Slow(i64, Duration),
    /// With a token that does not say which VM this is, as a GKE pod gets.
    WithoutVm,
    /// With this status and nothing else.
    Status(u16),
    /// As another web server would: without the header that marks metadata servers.
    Stranger,
    /// With a redirect to this address.
    Redirect(SocketAddr),
    /// With something else.
    Text(&'static str),
    /// Not at all: the connection ends.
    Nothing,
}

#[derive(Debug, Default)]
struct State {
    answers: VecDeque<Answer>,
    requests: Vec<String>,
    ahead: i64,
    made: u64,
}

/// A running server.
#[derive(Debug)]
pub struct MetadataServer {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl MetadataServer {
    /// Answers with tokens of an hour until told otherwise.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        Self { address, state }
    }

    /// What the next requests get, in this order; the last answer is that of all further ones, too.
    pub fn answer(&self, answers: impl Into<VecDeque<Answer>>) {
        self.state().answers = answers.into();
    }

    /// The clock of the server goes as far ahead as that of the client.
    pub fn advance(&self, seconds: i64) {
        self.state().ahead += seconds;
    }

    /// Request lines and headers since the last call, in lower case but for the request line.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state().requests)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut request = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if line.trim().is_empty() {
            break;
        }
        request.push_str(&if request.is_empty() { line } else { line.to_ascii_lowercase() });
    }
    let answer = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.requests.push(request.clone());
        match state.answers.len() {
            0 => Answer::Token(3600),
            1 => state.answers[0].clone(),
            _ => state.answers.pop_front().unwrap(),
        }
    };
    let token = |left: i64, with_vm: bool| {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.made += 1;
        token(left + state.ahead, with_vm, state.made)
    };
    let flavor = "Metadata-Flavor: Google\r\n";
    let (status, headers, body) = match answer {
        // What the real one says, too.
        _ if !request.contains("\r\nmetadata-flavor: google\r\n") => (403, String::new(), "Forbidden".into()),
        Answer::Token(left) => (200, flavor.into(), token(left, true)),
        Answer::Slow(left, wait) => {
            std::thread::sleep(wait);
            (200, flavor.into(), token(left, true))
        }
        Answer::WithoutVm => (200, flavor.into(), token(3600, false)),
        Answer::Status(status) => (status, flavor.into(), "no".into()),
        Answer::Stranger => (200, String::new(), token(3600, true)),
        Answer::Redirect(to) => (302, format!("{flavor}Location: http://{to}/stolen\r\n"), String::new()),
        Answer::Text(text) => (200, flavor.into(), text.into()),
        Answer::Nothing => return,
    };
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status} Whatever\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    // A client that has gone sees that itself.
    let _ = stream.write_all(answer.as_bytes());
}

/// Unsigned: the recipes do not verify what is theirs.
fn token(left: i64, with_vm: bool, number: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut claims = json!({
        "aud": "https://orders.sales.example", "sub": "100000000000000000001", "number": number,
        "exp": i64::try_from(now).unwrap() + left, "email_verified": true,
    });
    if with_vm {
        claims["google"] =
            json!({"compute_engine": {"instance_id": "4570000000000000001", "zone": "europe-west4-b"}});
    }
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.c2lnbmF0dXJl", part(json!({"alg": "RS256", "typ": "JWT"})), part(claims))
}
