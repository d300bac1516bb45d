//! The same rules and requests in several policy engines.
//!
//! Rule `i` allows account `worker-i` with a token of project `i` to GET `/svc-i/orders/…` on one host. Every engine is
//! given the rules in the form that suits it, and makes its own request from the same strings for each decision, as a
//! filter would have to.

use std::error::Error;

mod casbin;
mod cedar;
mod rego;
mod tidegate;

pub use casbin::Casbin;
pub use cedar::Cedar;
pub use rego::Rego;
pub use tidegate::Tidegate;

/// The only host.
pub const HOST: &str = "orders.example";

/// What a filter knows of a request.
#[derive(Debug, Clone)]
pub struct Asked {
    pub account: String,
    pub project: String,
    pub method: String,
    pub host: String,
    pub path: String,
    /// What the rules say of it.
    pub allowed: bool,
}

/// A policy engine with its rules.
pub trait Engine {
    fn name(&self) -> &'static str;

    /// Whether the request is allowed.
    fn allows(&mut self, asked: &Asked) -> bool;
}

pub type Made = Result<Box<dyn Engine>, Box<dyn Error>>;

/// Requests that rules spread over the whole policy allow, and for each of them five that differ in one thing.
pub fn requests(rules: usize) -> Vec<Asked> {
    let mut all = Vec::new();
    for step in 0..8usize {
        let at = step * 7919 % rules;
        let other = (at + 1) % rules;
        let allowed = Asked {
            account: format!("worker-{at}"),
            project: format!("{at}"),
            method: "GET".into(),
            host: HOST.into(),
            path: format!("/svc-{at}/orders/123"),
            allowed: true,
        };
        let refused = Asked { allowed: false, ..allowed.clone() };
        all.push(Asked { account: format!("worker-{other}"), ..refused.clone() });
        all.push(Asked { project: format!("{other}"), ..refused.clone() });
        all.push(Asked { method: "POST".into(), ..refused.clone() });
        all.push(Asked { host: "other.example".into(), ..refused.clone() });
        all.push(Asked { path: format!("/svc-{other}/orders/123"), ..refused });
        // As many allowed as refused.
        all.extend(std::iter::repeat_n(allowed, 5));
    }
    all
}
