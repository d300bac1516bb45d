//! `tidegate explain ID`.

use anyhow::Context;

use super::render;
use crate::cli::paint::Style;
use crate::cli::running::{AdminTls, ask_for};
use crate::cli::{Ending, complain, folder, print};
use crate::decisions::explain::Explained;
use crate::decisions::read;
use crate::decisions::record::Outcome;

/// Asks the control plane about a decision, and tells all of it.
pub(in crate::cli) fn run(id: &str, admin: &str, tls: &AdminTls, as_json: bool) -> anyhow::Result<Ending> {
    let id = read::id(id);
    let asked = ask_for::<Vec<Explained>>(admin, tls, &format!("/decisions/{id}"));
    let answer = asked.with_context(|| {
        format!(
            "nobody could be asked about decision {id}; `tidegate explain -` needs no control plane: paste the error body that \
             came with the id"
        )
    })?;
    let all = match answer {
        Ok(all) => all,
        Err(why) => {
            complain(&format!("{id}: {}", why.trim()));
            return Ok(Ending::Failed);
        }
    };
    if as_json {
        folder::print_json(&all)?;
    } else {
        print(&told(&all))?;
        if all.len() > 1 {
            complain(&format!(
                "{} records have this id. Ids are random, so somebody repeats one on purpose, or a filter is broken: look at \
                 which workload decided",
                all.len()
            ));
        }
    }
    let is_refused = all.iter().any(|one| one.decision.outcome != Outcome::Allow || one.decision.ended);
    Ok(if is_refused { Ending::Refused } else { Ending::Done })
}

/// What the control plane at this address, which asks for no certificate, knows about a decision; `None`: nothing yet.
pub fn known(id: &str, admin: &str) -> anyhow::Result<Option<String>> {
    let asked = ask_for::<Vec<Explained>>(admin, &AdminTls::default(), &format!("/decisions/{id}"))?;
    Ok(asked.ok().map(|all| told(&all)))
}

fn told(all: &[Explained]) -> String {
    let style = Style::of_stdout();
    let texts: Vec<String> = all.iter().map(|one| render::explained(one, style)).collect();
    texts.join("\n")
}
