//! Tables, and the goals of the design beside what was measured.

use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};

use super::figures::{Spread, added_cpu, added_latency, find, median};
use super::options::Options;
use super::runs::Measured;
use super::scenarios::{
    BAD_SIGNATURE, MALFORMED, NATIVE_FIRST_SIGHT, Scenario, TIDEGATE_FIRST_SIGHT, UNLIKE, WARM, YARDSTICK,
};

/// What is printed.
#[derive(Debug, Serialize)]
pub struct Report {
    envoy: String,
    rounds: u32,
    latency_rounds: u32,
    seconds: u32,
    connections: u32,
    scenarios: Vec<Row>,
    goals: Vec<Goal>,
    /// Scenarios that are not what they say; their figures mean nothing.
    pub doubts: Vec<String>,
}

/// One scenario.
#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    about: &'static str,
    cpu_us: f64,
    added_cpu_us: Spread,
    ratio_to_y: f64,
    rps: f64,
    p50_us: f64,
    p99_us: f64,
    rss_mib: f64,
    single: Option<Single>,
}

/// One scenario with one connection.
#[derive(Debug, Serialize)]
struct Single {
    p50_us: f64,
    p99_us: f64,
    added_p50_us: Spread,
}

/// A goal beside what was measured.
#[derive(Debug, Serialize)]
struct Goal {
    what: String,
    unit: &'static str,
    measured: f64,
    at_most: f64,
    stretch: Option<f64>,
    met: bool,
}

// === impl Report ===

impl Report {
    /// From what was measured of these scenarios.
    pub fn new(scenarios: &[Scenario], measured: &[Measured], options: &Options, envoy: &str) -> Self {
        let y = added_cpu(measured, YARDSTICK).map_or(f64::NAN, |added| added.median);
        let rows = scenarios.iter().filter_map(|scenario| {
            let of = find(measured, scenario.name)?;
            let added = added_cpu(measured, scenario.name)?;
            let single = added_latency(measured, scenario.name).map(|added_p50_us| Single {
                p50_us: median(&of.single, |sample| sample.p50_us),
                p99_us: median(&of.single, |sample| sample.p99_us),
                added_p50_us,
            });
            Some(Row {
                name: scenario.name,
                about: scenario.about,
                cpu_us: median(&of.load, |sample| sample.cpu_us),
                added_cpu_us: added,
                ratio_to_y: added.median / y,
                rps: median(&of.load, |sample| sample.rps),
                p50_us: median(&of.load, |sample| sample.p50_us),
                p99_us: median(&of.load, |sample| sample.p99_us),
                rss_mib: of.rss_mib,
                single,
            })
        });
        Self {
            envoy: envoy.to_owned(),
            rounds: options.rounds,
            latency_rounds: options.latency_rounds,
            seconds: options.seconds,
            connections: options.connections,
            scenarios: rows.collect(),
            goals: goals(measured, y),
            doubts: measured.iter().filter_map(|measured| measured.doubt.clone()).collect(),
        }
    }

    /// For programs. All times are microseconds.
    pub fn to_json(&self) -> Value {
        json!(self)
    }
}

/// The goals about which something was measured.
fn goals(measured: &[Measured], y: f64) -> Vec<Goal> {
    let cpu = |name: &str| added_cpu(measured, name).map(|added| added.median);
    let mut goals = Vec::new();
    let mut goal = |what: &str, unit, measured: Option<f64>, at_most, stretch| {
        let Some(measured) = measured else { return };
        goals.push(Goal {
            what: what.to_owned(),
            unit,
            measured,
            at_most,
            stretch,
            met: measured <= at_most,
        });
    };
    for name in WARM {
        let what = format!("added CPU, warm token, {name} (no Fence)");
        goal(&what, "Y", cpu(name).map(|added| added / y), 0.75, Some(0.6));
    }
    for name in UNLIKE {
        let what = format!("added CPU, warm token, {name}");
        goal(&what, "Y", cpu(name).map(|added| added / y), 0.75, Some(0.6));
    }
    let flat = cpu(WARM[2]).zip(cpu(WARM[0])).map(|(most, fewest)| most / fewest);
    goal("flat: 100 000 rules over 10 rules", "times", flat, 1.1, None);
    let first = cpu(TIDEGATE_FIRST_SIGHT);
    let over = |name: &str, other: Option<f64>| cpu(name).zip(other).map(|(one, other)| one / other);
    goal(
        "first sight of a token, over jwt_authn without cache + RBAC 10",
        "times",
        over(TIDEGATE_FIRST_SIGHT, cpu(NATIVE_FIRST_SIGHT)),
        1.0,
        None,
    );
    goal("refused, bad signature, over a good first sight", "times", over(BAD_SIGNATURE, first), 1.0, None);
    goal("refused, malformed, over a good first sight", "times", over(MALFORMED, first), 1.0, None);
    goal("refused, malformed", "Y", cpu(MALFORMED).map(|added| added / y), 1.0, None);
    for name in WARM {
        let what = format!("added p50 at one connection, {name}");
        goal(&what, "µs", added_latency(measured, name).map(|added| added.median), 15.0, Some(10.0));
    }
    goals
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Envoy {}, one worker on a core of its own; {} connections; medians of {} rounds of {} s",
            self.envoy, self.connections, self.rounds, self.seconds
        )?;
        writeln!(
            f,
            "\n{:<52} {:>8} {:>9} {:>15} {:>7} {:>8} {:>8} {:>8} {:>8}",
            "under load", "CPU µs", "added µs", "(p25 to p75)", "Y", "rps", "p50 µs", "p99 µs", "RSS MiB"
        )?;
        for row in &self.scenarios {
            let Spread { median, p25, p75 } = row.added_cpu_us;
            writeln!(
                f,
                "{:<52} {:>8.1} {:>9.1} {:>15} {:>7.2} {:>8.0} {:>8.0} {:>8.0} {:>8.1}",
                row.about,
                row.cpu_us,
                median,
                format!("({p25:.1} to {p75:.1})"),
                row.ratio_to_y,
                row.rps,
                row.p50_us,
                row.p99_us,
                row.rss_mib
            )?;
        }
        if self.scenarios.iter().any(|row| row.single.is_some()) {
            writeln!(
                f,
                "\n{:<52} {:>8} {:>8} {:>9} {:>15}",
                format!("one connection, {} rounds", self.latency_rounds),
                "p50 µs",
                "p99 µs",
                "added p50",
                "(p25 to p75)"
            )?;
        }
        for (row, single) in self.scenarios.iter().filter_map(|row| row.single.as_ref().map(|s| (row, s))) {
            let Spread { median, p25, p75 } = single.added_p50_us;
            writeln!(
                f,
                "{:<52} {:>8.0} {:>8.0} {:>9.1} {:>15}",
                row.about,
                single.p50_us,
                single.p99_us,
                median,
                format!("({p25:.1} to {p75:.1})")
            )?;
        }
        writeln!(f, "\n{:<66} {:>8} {:>8} {:<6} met", "goal", "measured", "at most", "")?;
        for goal in &self.goals {
            let stretch = goal.stretch.filter(|stretch| goal.measured <= *stretch);
            writeln!(
                f,
                "{:<66} {:>8.2} {:>8.2} {:<6} {}{}",
                goal.what,
                goal.measured,
                goal.at_most,
                goal.unit,
                if goal.met { "yes" } else { "no" },
                stretch.map(|stretch| format!(", and the stretch of {stretch}")).unwrap_or_default()
            )?;
        }
        for doubt in &self.doubts {
            writeln!(f, "\nNOT WHAT IT SAYS: {doubt}")?;
        }
        Ok(())
    }
}
