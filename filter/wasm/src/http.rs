//! The context of one request. Only in wasm.

use std::rc::Rc;

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, BufferType};

use crate::host::Host as _;
use crate::host::envoy::Envoy;
use crate::plugin::{Plugin, Verdict};
use crate::root::Shared;

pub struct Http {
    context: u32,
    shared: Rc<Shared>,
    /// The plugin waits for it, or keeps it for as long as it lives.
    known: bool,
}

impl Http {
    pub fn new(context: u32, shared: Rc<Shared>) -> Self {
        Self { context, shared, known: false }
    }
}

/// Does what was decided. `waited`: the request was held, and has to be set going again.
pub fn answer(host: &Envoy, verdict: Verdict, waited: bool) -> Action {
    match verdict {
        Verdict::Continue => {
            if waited {
                let _ = hostcalls::resume_http_request();
            }
            Action::Continue
        }
        Verdict::Refuse(refusal) => {
            let headers: Vec<(&str, &str)> =
                refusal.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            host.reply(refusal.status, &headers, refusal.body.as_bytes());
            Action::Pause
        }
        Verdict::Hold => Action::Pause,
    }
}

impl Context for Http {}

impl HttpContext for Http {
    fn on_http_request_headers(&mut self, _count: usize, end_of_stream: bool) -> Action {
        let host = &self.shared.host;
        let mut guard = self.shared.plugin.borrow_mut();
        let Some(plugin) = guard.as_mut() else {
            // Without a configuration nothing is decided, and nothing passes.
            host.reply(503, &[], b"");
            return Action::Pause;
        };
        let verdict = plugin.on_request(self.context, end_of_stream, host);
        self.known = !matches!(verdict, Verdict::Refuse(_));
        if verdict == Verdict::Hold {
            // Its question goes out now, and the tick that ends the wait is set.
            self.shared.settle(plugin);
        }
        let is_pressing = plugin.is_pressing();
        drop(guard);
        let action = answer(host, verdict, false);
        if is_pressing {
            self.shared.send();
        }
        action
    }

    /// Never called of the build of the module that reads no bodies.
    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        let piece = match size {
            0 => Some(Vec::new()),
            _ => hostcalls::get_buffer(BufferType::HttpRequestBody, 0, size).ok().flatten(),
        };
        self.with(|plugin, host, context| match piece.filter(|piece| piece.len() == size) {
            Some(piece) => plugin.on_body(context, &piece, end_of_stream, host),
            None => plugin.on_lost_piece(context, host),
        })
    }

    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        self.with(|plugin, host, context| plugin.on_body(context, &[], true, host))
    }

    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        self.with(|plugin, host, context| plugin.on_response(context, host))
    }
}

impl Http {
    /// What the plugin says to a part of the request that follows its headers.
    fn with(&self, decide: impl FnOnce(&mut Plugin, &Envoy, u32) -> Verdict) -> Action {
        let host = &self.shared.host;
        let (verdict, releases) = match self.shared.plugin.borrow_mut().as_mut() {
            Some(plugin) => {
                let verdict = decide(plugin, host, self.context);
                (verdict, plugin.releases_answer(self.context))
            }
            None => return Action::Pause,
        };
        if releases {
            let _ = hostcalls::resume_http_response();
        }
        answer(host, verdict, false)
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        if self.known
            && let Ok(mut plugin) = self.shared.plugin.try_borrow_mut()
            && let Some(plugin) = plugin.as_mut()
        {
            plugin.forget(self.context);
        }
    }
}
