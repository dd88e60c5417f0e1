//! The performance goals of the record path, and whether the measured turns meet them.

use crate::run::Measured;
use crate::spread::Spread;
use crate::turn::Turn;
use serde::{Deserialize, Serialize};

/// A goal and the measurement for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// The shape it applies to.
    pub shape: String,
    /// What is compared.
    pub what: String,
    /// The bound.
    pub goal: String,
    /// The measurement; none if the shape or a receiver was not run.
    pub measured: Option<Spread>,
    /// Whether the median meets the goal.
    pub met: Option<bool>,
}

enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn holds(&self, figure: f64) -> bool {
        match *self {
            Bound::AtLeast(bound) => figure >= bound,
            Bound::AtMost(bound) => figure <= bound,
        }
    }

    fn text(&self) -> String {
        match self {
            Bound::AtLeast(bound) => format!("≥ {bound}"),
            Bound::AtMost(bound) => format!("≤ {bound}"),
        }
    }
}

struct Goal {
    shape: &'static str,
    what: &'static str,
    bound: Bound,
    figures: fn(&Measured, &[Measured]) -> Option<Vec<f64>>,
}

const fn goal(
    shape: &'static str,
    what: &'static str,
    bound: Bound,
    figures: fn(&Measured, &[Measured]) -> Option<Vec<f64>>,
) -> Goal {
    Goal { shape, what, bound, figures }
}

const GOALS: [Goal; 11] = [
    goal("bulk", "rate, ingest / drain", Bound::AtLeast(0.95), ingest_to_drain),
    goal("bulk", "CPU a record, ingest / drain", Bound::AtMost(1.25), ingest_cpu_to_drain),
    goal("connections-10", "rate, ingest / drain", Bound::AtLeast(0.95), ingest_to_drain),
    goal("field", "CPU a record, ingest / drain", Bound::AtMost(0.25), ingest_cpu_to_drain),
    goal("field-10", "CPU a record, ingest / drain", Bound::AtMost(0.25), ingest_cpu_to_drain),
    goal("groups-100000", "rate received, ingest / bulk", Bound::AtLeast(0.8), to_few_groups),
    goal("groups-1000000", "rate received, ingest / bulk", Bound::AtLeast(0.5), to_few_groups),
    goal("bulk", "rate, drain / blocking", Bound::AtLeast(1.0), |measured, _| {
        measured.ratios("drain", "blocking", Turn::rate)
    }),
    goal("connections-10", "rate, drain / blocking", Bound::AtLeast(1.0), |measured, _| {
        measured.ratios("drain", "blocking", Turn::rate)
    }),
    goal("bulk", "rate, ingest / pandas", Bound::AtLeast(40.0), |measured, _| {
        measured.ratios("ingest", "pandas", Turn::rate)
    }),
    goal("bulk", "packet latency p99, µs", Bound::AtMost(100.0), |measured, _| {
        measured.figures("ingest", |turn| turn.engine.map_or(f64::NAN, |e| e.latency_us_p99))
    }),
];

fn ingest_to_drain(measured: &Measured, _: &[Measured]) -> Option<Vec<f64>> {
    measured.ratios("ingest", "drain", Turn::rate)
}

fn ingest_cpu_to_drain(measured: &Measured, _: &[Measured]) -> Option<Vec<f64>> {
    measured.ratios("ingest", "drain", Turn::cpu_ns)
}

/// Records per second while receiving, since what follows, such as printing a million groups, does
/// not depend on the number of records. Rounds of two shapes are not run in turns, so the base is
/// the median of all its rounds.
fn to_few_groups(measured: &Measured, all: &[Measured]) -> Option<Vec<f64>> {
    let received = |turn: &Turn| {
        turn.engine.map_or(f64::NAN, |engine| turn.records as f64 / engine.receive_seconds)
    };
    let base = all.iter().find(|other| other.shape.name == "bulk")?;
    let base = Spread::of(&base.figures("ingest", received)?).median;
    Some(measured.figures("ingest", received)?.iter().map(|rate| rate / base).collect())
}

/// Judges every goal.
pub fn judge(all: &[Measured]) -> Vec<Verdict> {
    let verdict = |goal: &Goal| {
        let measured = all.iter().find(|measured| measured.shape.name == goal.shape);
        let figures = measured.and_then(|measured| (goal.figures)(measured, all));
        // A tiny turn may be too short for the clock of the processor time.
        let figures = figures.filter(|figures| figures.iter().all(|figure| figure.is_finite()));
        let measured = figures.as_deref().map(Spread::of);
        Verdict {
            shape: goal.shape.to_owned(),
            what: goal.what.to_owned(),
            goal: goal.bound.text(),
            measured,
            met: measured.map(|spread| goal.bound.holds(spread.median)),
        }
    };
    GOALS.iter().map(verdict).collect()
}
