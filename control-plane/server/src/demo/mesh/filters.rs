//! HTTP filters in front of the router.

use std::path::PathBuf;

use serde_json::{Value, json};

/// A filter in front of the router.
#[derive(Debug, Clone)]
pub enum HttpFilter {
    /// A proxy-wasm module.
    Wasm(WasmFilter),
    /// Any other, as Envoy's configuration has it: `name` and `typed_config`.
    Other(Value),
}

/// A proxy-wasm module in V8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WasmFilter {
    /// The plugin's name; statistics carry it.
    pub name: String,
    /// The module's file.
    pub module: PathBuf,
    /// What the module is configured with; Istio's `pluginConfig`, JSON.
    pub configuration: String,
    /// What happens when the VM fails.
    pub on_failure: OnFailure,
}

/// What happens when the VM fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// Requests are refused until a new VM, which starts from the configuration, is there.
    #[default]
    Reload,
    /// Requests are refused from then on.
    Close,
}

// === impl HttpFilter ===

impl HttpFilter {
    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Wasm(filter) => filter.to_json(),
            Self::Other(filter) => filter.clone(),
        }
    }
}

impl From<WasmFilter> for HttpFilter {
    fn from(filter: WasmFilter) -> Self {
        Self::Wasm(filter)
    }
}

// === impl WasmFilter ===

impl WasmFilter {
    /// Tidegate's filter from the file `module`.
    pub fn tidegate(module: impl Into<PathBuf>, configuration: &Value) -> Self {
        Self {
            name: "tidegate".into(),
            module: module.into(),
            configuration: configuration.to_string(),
            on_failure: OnFailure::default(),
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "name": "envoy.filters.http.wasm",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
                "config": {
                    "name": self.name,
                    "root_id": self.name,
                    "failure_policy": match self.on_failure {
                        OnFailure::Reload => "FAIL_RELOAD",
                        OnFailure::Close => "FAIL_CLOSED",
                    },
                    // As Istio, without `vm_id`.
                    "vm_config": {
                        "runtime": "envoy.wasm.runtime.v8",
                        "code": {"local": {"filename": self.module}},
                    },
                    "configuration": {
                        "@type": "type.googleapis.com/google.protobuf.StringValue",
                        "value": self.configuration,
                    },
                },
            },
        })
    }
}
