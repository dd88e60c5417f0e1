//! A progress bar on stderr while something is sent.

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressState, ProgressStyle};
use std::fmt;
use std::thread;
use std::time::Duration;

/// How often the bar is redrawn.
const REDRAW: Duration = Duration::from_millis(100);

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Records.
    Records,
    /// Bytes.
    Bytes,
}

impl Unit {
    fn template(self) -> &'static str {
        match self {
            Unit::Records => "{wide_bar} {human_pos}/{human_len} records, {rate}, {eta} left",
            Unit::Bytes => "{wide_bar} {bytes}/{total_bytes}, {rate}, {eta} left",
        }
    }

    fn rate(self, state: &ProgressState, out: &mut dyn fmt::Write) {
        let a_second = state.per_sec() as u64;
        // A failure only leaves the rate out of the bar.
        let _ = match self {
            Unit::Records => write!(out, "{}/s", HumanCount(a_second)),
            Unit::Bytes => write!(out, "{}/s", HumanBytes(a_second)),
        };
    }
}

/// Shows a bar until `is_done`, unless stderr is not a terminal.
pub(crate) fn show(unit: Unit, total: u64, so_far: impl Fn() -> u64, is_done: impl Fn() -> bool) {
    let bar = ProgressBar::new(total);
    if bar.is_hidden() {
        // Polling would only take time from the senders.
        return;
    }
    if let Ok(style) = ProgressStyle::with_template(unit.template()) {
        let rate = move |state: &ProgressState, out: &mut dyn fmt::Write| unit.rate(state, out);
        bar.set_style(style.with_key("rate", rate));
    }
    while !is_done() {
        bar.set_position(so_far());
        thread::sleep(REDRAW);
    }
    bar.finish_and_clear();
}
