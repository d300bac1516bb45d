//! `tidegate revoke`.

use clap::{ArgGroup, Args};

use super::duration::Span;
use super::fleet::about_control;
use super::paint::Style;
use super::rollback::refused;
use super::running::{AdminTls, Answer, DEFAULT_ADMIN, Method, ask, tell};
use super::{Ending, complain, print};
use crate::admin::ControlState;
use crate::clock;
use crate::control::{AskedRevocation, Revocation, Target, Told};

/// Take back a Caller, a token, a key or a machine for a time, at once
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).args(["caller", "token", "subject", "kid", "instance", "list", "lift"])))]
#[command(after_help = "\
Examples:
  tidegate revoke data/orders-etl --for 24h --reason 'credentials leaked, INC-7'
  tidegate revoke --kid 2026-11 --issuer gitlab --for 7d --reason 'signing key compromised'
  tidegate revoke --token 0b5e7f --issuer gitlab --for 1h --reason 'printed in a job log'
  tidegate revoke --instance 4570000000000000001 --issuer google --for 24h --reason 'worker compromised'
  tidegate revoke --list
  tidegate revoke --lift r-7

It is pushed to every filter at once: warm tokens, open streams and remembered decisions end with it. It ends by itself, in
filters too, without the control plane. A Caller and an instance are refused by a rule that is added to yours; a Caller as who it is
now, and as whatever its object says later. Of an instance, tokens of the packs google (Compute Engine) and kubernetes (the pod's uid)
say which one they are of. Suspending a Guard does not let pass what is revoked, but whoever is known by a token alone may leave it
out. Done is said when it is written down: in the state folder, with `serve --kube` in the cluster, for all replicas.

Exit codes: 0 it worked; 1 refused: there is no such thing, or you may not (`tidegate serve --admin-writers`); 2 the command line
is wrong; 3 the control plane does not answer.")]
pub(super) struct Arguments {
    /// A Caller, namespace/name: in every form that it has
    #[arg(value_name = "CALLER")]
    caller: Option<String>,
    /// The token with this id (`jti`, or what its issuer has for it). Never the token itself
    #[arg(long, value_name = "ID", requires = "issuer")]
    token: Option<String>,
    /// All tokens with this `sub`
    #[arg(long, value_name = "SUB", requires = "issuer")]
    subject: Option<String>,
    /// All tokens that the key with this id signed
    #[arg(long, value_name = "KID", requires = "issuer")]
    kid: Option<String>,
    /// All tokens of this Compute Engine instance or pod
    #[arg(long, value_name = "ID", requires = "issuer")]
    instance: Option<String>,
    /// Name of the TrustedIssuer whose it is
    #[arg(long, value_name = "NAME", conflicts_with_all = ["caller", "list", "lift"])]
    issuer: Option<String>,
    /// For how long, e.g. 24h; at most 90d
    #[arg(long = "for", value_name = "DURATION", conflicts_with_all = ["list", "lift"])]
    span: Option<Span>,
    /// Why; it is kept and shown
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["list", "lift"])]
    reason: Option<String>,
    /// Say what is revoked
    #[arg(long)]
    list: bool,
    /// End a revocation before its time, by its id
    #[arg(long, value_name = "ID")]
    lift: Option<String>,
    /// Admin address of a running control plane
    #[arg(long, value_name = "URL", default_value = DEFAULT_ADMIN)]
    admin: String,
    #[command(flatten)]
    tls: AdminTls,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let Arguments { admin, tls, .. } = arguments;
    let now = clock::now();
    if arguments.list {
        let mut state: ControlState = ask(admin, tls, "/control")?;
        state.suspensions.clear();
        let text = match state.revocations.is_empty() {
            true => "Nothing is revoked.\n".to_owned(),
            false => about_control(&state, now, Style::of_stdout()),
        };
        print(&text)?;
        return Ok(Ending::Done);
    }
    if let Some(id) = &arguments.lift {
        return lift(admin, tls, id);
    }
    let (Some(target), Some(span), Some(reason)) =
        (target(arguments), arguments.span, arguments.reason.clone())
    else {
        complain("say for how long with --for, e.g. 24h, and why with --reason");
        return Ok(Ending::Usage);
    };
    let asked = AskedRevocation { target, seconds: span.seconds(), reason };
    match tell::<_, Told<Revocation>>(admin, tls, Method::POST, "/control/revocations", Some(&asked))? {
        Answer::Refused(why) => refused(&why),
        Answer::Done(Told { done: revocation, warnings }) => {
            warnings.iter().for_each(|warning| complain(warning));
            print(&format!(
                "Revoked: {} until {} ({}).\nNext: `tidegate rollout status --wait enforced`; before its time it ends with \
                 `tidegate revoke --lift {}`.\n",
                revocation.target,
                clock::rfc3339(revocation.until),
                revocation.id,
                revocation.id
            ))?;
            Ok(Ending::Done)
        }
    }
}

/// Ends a revocation or suspension.
pub(super) fn lift(admin: &str, tls: &AdminTls, id: &str) -> anyhow::Result<Ending> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '/');
    if id.is_empty() || !id.chars().all(is_plain) {
        return refused(&format!("`{id}` is no id; `--list` shows them"));
    }
    let path = format!("/control/entries/{}", id.replace('/', "%2F"));
    match tell::<(), ()>(admin, tls, Method::DELETE, &path, None)? {
        Answer::Refused(why) => refused(&why),
        Answer::Done(()) => {
            print("Ended.\n")?;
            Ok(Ending::Done)
        }
    }
}

fn target(arguments: &Arguments) -> Option<Target> {
    let issuer = || arguments.issuer.clone();
    if let Some(name) = arguments.caller.clone() {
        return Some(Target::Caller { name });
    }
    if let Some(id) = arguments.token.clone() {
        return Some(Target::Token { issuer: issuer()?, id });
    }
    if let Some(id) = arguments.subject.clone() {
        return Some(Target::Subject { issuer: issuer()?, id });
    }
    if let Some(id) = arguments.kid.clone() {
        return Some(Target::Key { issuer: issuer()?, id });
    }
    Some(Target::Instance { issuer: issuer()?, id: arguments.instance.clone()? })
}
