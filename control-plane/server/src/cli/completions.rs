//! `tidegate completions`.

use clap::Args;
use clap_complete::Shell;

use super::{Ending, command_line, print};

/// Print completions for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate completions bash > /etc/bash_completion.d/tidegate
  tidegate completions zsh > \"${fpath[1]}/_tidegate\"
  tidegate completions fish > ~/.config/fish/completions/tidegate.fish")]
pub(super) struct Arguments {
    /// Which shell
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command_line(), "tidegate", &mut script);
    print(&String::from_utf8(script)?)?;
    Ok(Ending::Done)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shell_gets_a_script_that_knows_the_commands() {
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut command_line(), "tidegate", &mut script);
            let script = String::from_utf8(script).expect("it is text");
            assert!(script.contains("who-can") && script.contains("plugin-config"), "{shell}");
        }
    }
}
