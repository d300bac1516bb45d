//! `tidegate rollback`.

use clap::Args;

use super::fleet::{about_control, named};
use super::paint::Style;
use super::running::{AdminTls, Answer, DEFAULT_ADMIN, Method, ask, tell};
use super::text::{self, count, span};
use super::{Ending, complain, print};
use crate::admin::ControlState;
use crate::clock;
use crate::control::{AskedPin, Pin, short};

/// Put earlier rules in force again, and keep them there
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate rollback --list
  tidegate rollback 17 --reason 'rule set 18 refuses the month-end close'
  tidegate rollback 3fa9c2 --reason 'OPS-312'
  tidegate rollback --release

Filters get them under a new revision, as any other change. Until --release they are pinned: rules that change meanwhile are
judged, kept and shown, and not offered. The control plane keeps the last 20 rule sets that it accepted, every replica its own: ask
the one that leads. Other replicas keep to the pin. It asks who rolls back (`tidegate serve --admin-writers`).

Exit codes: 0 it worked; 1 refused: no such rule set, it does not compile any more, or you may not; 2 the command line is wrong;
3 the control plane does not answer.")]
pub(super) struct Arguments {
    /// Number of a rule set, or the beginning of its digest
    #[arg(value_name = "REV", required_unless_present_any = ["list", "release"], conflicts_with_all = ["list", "release"])]
    rev: Option<String>,
    /// Why; it is kept and shown
    #[arg(long, value_name = "TEXT", requires = "rev")]
    reason: Option<String>,
    /// Say which rule sets there are
    #[arg(long, conflicts_with = "release")]
    list: bool,
    /// Let the newest accepted rules through again
    #[arg(long)]
    release: bool,
    /// Admin address of a running control plane
    #[arg(long, value_name = "URL", default_value = DEFAULT_ADMIN)]
    admin: String,
    #[command(flatten)]
    tls: AdminTls,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let Arguments { admin, tls, .. } = arguments;
    let now = clock::now();
    if arguments.release {
        return match tell::<(), ()>(admin, tls, Method::DELETE, "/control/pin", None)? {
            Answer::Refused(why) => refused(&why),
            Answer::Done(()) => {
                print("No longer pinned: the newest accepted rules are in force.\n")?;
                Ok(Ending::Done)
            }
        };
    }
    if let Some(rev) = &arguments.rev {
        let Some(reason) = arguments.reason.clone() else {
            complain("say why with --reason: whoever finds the pin has to know");
            return Ok(Ending::Usage);
        };
        let asked = AskedPin { rules: rev.clone(), reason };
        return match tell::<_, Pin>(admin, tls, Method::POST, "/control/pin", Some(&asked))? {
            Answer::Refused(why) => refused(&why),
            Answer::Done(pin) => {
                let digest = short(&pin.digest);
                print(&format!(
                    "Rules {} ({digest}) are in force and pinned.\nNext: `tidegate rollout status --wait enforced`; when all is \
                     mended, `tidegate rollback --release`.\n",
                    pin.number
                ))?;
                Ok(Ending::Done)
            }
        };
    }
    let state: ControlState = ask(admin, tls, "/control")?;
    print(&list(&state, now, Style::of_stdout()))?;
    Ok(Ending::Done)
}

pub(super) fn refused(why: &str) -> anyhow::Result<Ending> {
    complain(why);
    Ok(Ending::Refused)
}

fn list(state: &ControlState, now: i64, style: Style) -> String {
    let mut told = about_control(state, now, style);
    if state.history.is_empty() {
        told.push_str("No rules have been accepted yet.\n");
        return told;
    }
    let head = ["REV", "ACCEPTED", "FILES", ""].map(str::to_owned);
    let rows = state.history.iter().rev().map(|set| {
        let is = |other: &Option<crate::control::RuleSet>| {
            other.as_ref().is_some_and(|one| one.number == set.number)
        };
        let notes = [
            (is(&state.offered), "on offer"),
            (is(&state.accepted), "newest"),
            (state.pin.as_ref().is_some_and(|pin| pin.number == set.number), "pinned"),
        ];
        let notes: Vec<&str> = notes.into_iter().filter_map(|(is, word)| is.then_some(word)).collect();
        [named(set), format!("{} ago", span(now - set.at)), count(set.files, "file"), notes.join(", ")]
    });
    told.push_str(&text::table(&std::iter::once(head).chain(rows).collect::<Vec<_>>()));
    told
}
