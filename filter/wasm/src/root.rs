//! The root context: ticks, the stream, and the creation of request contexts. Only in wasm.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{BufferType, ContextType, LogLevel};

use crate::bundle::Installed;
use crate::config::Config;
use crate::host::envoy::Envoy;
use crate::host::{Host as _, Level};
use crate::http::{Http, answer};
use crate::plugin::Plugin;
use crate::ticks::Ticks;

/// Where rules come from, and where decision records go: service and method.
const SUBSCRIBE: (&str, &str) = ("tidegate.v1.PolicyDistribution", "Subscribe");
const REPORT: (&str, &str) = ("tidegate.v1.DecisionSink", "Report");

/// Before there is a plugin that says how often, in milliseconds.
const FIRST_TICK_MS: u64 = 100;

/// What the filter shares among its contexts.
pub struct Shared {
    pub host: Envoy,
    pub plugin: RefCell<Option<Plugin>>,
    /// The root context's id.
    root: u32,
    ticks: Ticks,
}

struct Root {
    shared: Rc<Shared>,
}

thread_local! {
    /// What configurations enforced, one per workload, for the next one of it in this VM: a changed plugin configuration
    /// makes a new root context, and requests must not wait for the stream again.
    static LAST: RefCell<Vec<(Config, Installed)>> = const { RefCell::new(Vec::new()) };
}

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Warn);
    proxy_wasm::set_root_context(|root| -> Box<dyn RootContext> {
        let (host, plugin) = (Envoy::default(), RefCell::new(None));
        Box::new(Root { shared: Rc::new(Shared { host, plugin, root, ticks: Ticks::default() }) })
    });
}}

impl Root {
    /// Runs something on the plugin, then does what has become due: messages, requests that live or wait, the next tick.
    fn with(&self, act: impl FnOnce(&mut Plugin, &Envoy)) {
        let Shared { host, plugin, .. } = &*self.shared;
        let mut guard = plugin.borrow_mut();
        let Some(plugin) = guard.as_mut() else { return };
        act(plugin, host);
        remember(plugin);
        let due = plugin.due(host, select);
        self.shared.settle(plugin);
        drop(guard);
        for (context, verdict) in due {
            if select(context) {
                answer(host, verdict, true);
            }
        }
    }
}

/// Makes host calls be about this context; false if it does not live any more.
fn select(context: u32) -> bool {
    hostcalls::set_effective_context(context).is_ok()
}

/// Keeps what is enforced for the next configuration.
fn remember(plugin: &Plugin) {
    let Some(installed) = plugin.installed() else { return };
    let config = plugin.config();
    LAST.with(|last| {
        let mut last = last.borrow_mut();
        let is_known = last.iter().any(|(earlier, known)| {
            earlier.workload == config.workload
                && earlier.trusted_keys == config.trusted_keys
                && known.manifest.digest == installed.manifest.digest
        });
        if !is_known {
            last.retain(|(earlier, _)| earlier.workload != config.workload);
            last.push((config.clone(), installed.clone()));
        }
    });
}

impl Shared {
    /// Sends what is to be sent. Host calls are about the root context afterwards.
    pub fn send(&self) {
        if let Ok(mut plugin) = self.plugin.try_borrow_mut()
            && let Some(plugin) = plugin.as_mut()
        {
            self.settle(plugin);
        }
    }

    /// Sends what is to be sent and sets the next tick. Host calls are about the root context afterwards.
    pub fn settle(&self, plugin: &mut Plugin) {
        // The stream and the timer are the root context's.
        select(self.root);
        if let Some(token) = plugin.stream() {
            for message in plugin.take_messages() {
                // A stream that has gone is noticed in `on_grpc_stream_close`.
                let _ = hostcalls::send_grpc_stream_message(token, Some(&message), false);
            }
        }
        if let Some(token) = plugin.sink() {
            for batch in plugin.take_batches() {
                let _ = hostcalls::send_grpc_stream_message(token, Some(&batch), false);
            }
        }
        if let Some(tick_ms) = self.ticks.change(plugin.tick_ms()) {
            let _ = hostcalls::set_tick_period(Duration::from_millis(tick_ms));
        }
    }
}

impl Context for Root {
    fn on_grpc_stream_message(&mut self, token: u32, size: usize) {
        let message = hostcalls::get_buffer(BufferType::GrpcReceiveBuffer, 0, size);
        self.with(|plugin, host| match message {
            // An empty message is one: the other side is there.
            Ok(message) if plugin.stream() == Some(token) => {
                plugin.on_message(&message.unwrap_or_default(), host);
            }
            Ok(Some(message)) if plugin.sink() == Some(token) => plugin.on_acknowledged(&message),
            _ => {}
        });
    }

    fn on_grpc_stream_close(&mut self, token: u32, status: u32) {
        let detail = self.shared.host.stream_end();
        // Envoy keeps the handle of a stream that the other side closed until it is closed here as well.
        let _ = hostcalls::close_grpc_stream(token);
        self.with(|plugin, host| {
            if plugin.stream() == Some(token) {
                plugin.on_ended(status, &detail, host);
            } else if plugin.sink() == Some(token) {
                plugin.on_sink_closed(host);
            }
        });
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        let host = &self.shared.host;
        let json = match hostcalls::get_buffer(BufferType::PluginConfiguration, 0, size) {
            Ok(Some(json)) => json,
            _ => Vec::new(),
        };
        let config = match Config::parse(&json) {
            Ok(config) => config,
            Err(invalid) => {
                host.log(Level::Error, &format!("tidegate: {invalid}"));
                return false;
            }
        };
        let instance = host
            .property(b"xds\0node\0metadata\0NAME")
            .or_else(|| host.property(b"xds\0node\0id"))
            .map(|name| String::from_utf8_lossy(&name).into_owned())
            .unwrap_or_default();
        let inherited = LAST.with(|last| {
            last.borrow()
                .iter()
                .find(|(earlier, _)| {
                    earlier.workload == config.workload && earlier.trusted_keys == config.trusted_keys
                })
                .map(|(_, installed)| installed.clone())
        });
        let plugin = Plugin::new(config, instance, host, inherited);
        *self.shared.plugin.borrow_mut() = Some(plugin);
        self.shared.ticks.begin(FIRST_TICK_MS);
        hostcalls::set_tick_period(Duration::from_millis(FIRST_TICK_MS)).is_ok()
    }

    fn on_tick(&mut self) {
        self.shared.ticks.come();
        self.with(|plugin, host| {
            if let Some(token) = plugin.take_silent(host) {
                // Closing would wait for the other side, which says nothing.
                let _ = hostcalls::cancel_grpc_stream(token);
                // It is over the same connection.
                if let Some(sink) = plugin.sink() {
                    let _ = hostcalls::cancel_grpc_stream(sink);
                    plugin.on_sink_closed(host);
                }
            }
            let is_due = plugin.on_tick(host);
            let target = plugin.config().control_plane.as_ref().map(|target| target.service.clone());
            // Never without a service: Envoy aborts on an empty one.
            let Some(service) = target else { return };
            let open = |(name, method)| {
                hostcalls::open_grpc_stream(&service, name, method, Vec::new())
                    .inspect_err(|status| {
                        let why = format!("tidegate: no stream to the control plane ({method}: {status:?})");
                        host.log(Level::Warn, &why);
                    })
                    .ok()
            };
            if is_due {
                match open(SUBSCRIBE) {
                    Some(token) => plugin.on_opened(token, host),
                    None => plugin.on_closed(host),
                }
            }
            if plugin.wants_sink(host) {
                match open(REPORT) {
                    Some(token) => plugin.on_sink_opened(token),
                    None => plugin.on_sink_closed(host),
                }
            }
        });
    }

    fn create_http_context(&self, context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Http::new(context_id, Rc::clone(&self.shared))))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}
