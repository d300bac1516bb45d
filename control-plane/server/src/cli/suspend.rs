//! `tidegate suspend`.

use clap::{ArgGroup, Args, ValueEnum};

use super::duration::Span;
use super::fleet::about_control;
use super::paint::Style;
use super::revoke::lift;
use super::rollback::refused;
use super::running::{AdminTls, Answer, DEFAULT_ADMIN, Method, ask, tell};
use super::{Ending, complain, print};
use crate::admin::ControlState;
use crate::clock;
use crate::control::{AskedSuspension, Suspension, Told};

/// Let the Guard of one workload only report for a short time
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).args(["workload", "list", "resume"])))]
#[command(after_help = "\
Examples:
  tidegate suspend sales/orders-api --to shadow --for 30m --reason 'month-end close is refused' --ticket INC-42
  tidegate suspend --list
  tidegate suspend --resume sales/orders-api

What the Guard would refuse passes, is counted and reported; what is revoked stays refused. At most 8 h. The end is part of what
is signed: every filter ends it by its own clock, whether or not the control plane is there. Filters that do not know
suspensions go on refusing. Istio's own policies refuse what they refuse, and know no end: a control plane that writes them
(`serve --kube`) refuses to suspend.

Exit codes: 0 it worked; 1 refused: there is no such workload, nothing guards it, or you may not (`tidegate serve
--admin-writers`); 2 the command line is wrong; 3 the control plane does not answer.")]
pub(super) struct Arguments {
    /// The workload, namespace/name
    #[arg(value_name = "WORKLOAD", requires_all = ["to", "span", "reason", "ticket"])]
    workload: Option<String>,
    /// What its Guards are meanwhile
    #[arg(long, value_enum)]
    to: Option<To>,
    /// For how long, e.g. 30m; at most 8h
    #[arg(long = "for", value_name = "DURATION")]
    span: Option<Span>,
    /// Why; it is kept and shown
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Where it is followed up
    #[arg(long, value_name = "TEXT")]
    ticket: Option<String>,
    /// Say what is suspended
    #[arg(long)]
    list: bool,
    /// End the suspension of this workload before its time
    #[arg(long, value_name = "WORKLOAD")]
    resume: Option<String>,
    /// Admin address of a running control plane
    #[arg(long, value_name = "URL", default_value = DEFAULT_ADMIN)]
    admin: String,
    #[command(flatten)]
    tls: AdminTls,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum To {
    /// What would be refused passes and is reported
    Shadow,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let Arguments { admin, tls, .. } = arguments;
    if arguments.list {
        let mut state: ControlState = ask(admin, tls, "/control")?;
        state.revocations.clear();
        let text = match state.suspensions.is_empty() {
            true => "Nothing is suspended.\n".to_owned(),
            false => about_control(&state, clock::now(), Style::of_stdout()),
        };
        print(&text)?;
        return Ok(Ending::Done);
    }
    if let Some(workload) = &arguments.resume {
        return lift(admin, tls, workload);
    }
    let (Some(workload), Some(span), Some(reason), Some(ticket)) =
        (&arguments.workload, arguments.span, arguments.reason.clone(), arguments.ticket.clone())
    else {
        complain("a suspension needs --to, --for, --reason and --ticket");
        return Ok(Ending::Usage);
    };
    let asked = AskedSuspension { workload: workload.clone(), seconds: span.seconds(), reason, ticket };
    match tell::<_, Told<Suspension>>(admin, tls, Method::POST, "/control/suspensions", Some(&asked))? {
        Answer::Refused(why) => refused(&why),
        Answer::Done(Told { done: suspension, warnings }) => {
            warnings.iter().for_each(|warning| complain(warning));
            print(&format!(
                "Suspended: {} until {} ({}). What its Guards refuse passes and is reported.\nNext: `tidegate rollout status \
                 --wait enforced --workload {}`; before its time it ends with `tidegate suspend --resume {}`.\n",
                suspension.workload,
                clock::rfc3339(suspension.until),
                suspension.id,
                suspension.workload,
                suspension.workload
            ))?;
            Ok(Ending::Done)
        }
    }
}
