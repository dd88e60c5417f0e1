//! `ringest doctor`: prints whether this host can run the engine. The checks are in
//! `runtime::host`.

use crate::cli::args::doctor::{DoctorFormat, DoctorOptions};
use crate::cli::args::environment;
use crate::cli::exit::{EXIT_FAILED, EXIT_OK, EXIT_USAGE};
use crate::cli::terminal::status_line::say;
use crate::config::Config;
use crate::engine::groups::plan::Plan;
use crate::runtime::host::findings::{Finding, Verdict, examine};
use serde::Serialize;
use std::io::{self, Write};

#[derive(Serialize)]
struct FindingLine<'a> {
    check: &'a str,
    verdict: &'a str,
    found: &'a str,
    remedy: Option<&'a str>,
}

#[derive(Serialize)]
struct Findings<'a> {
    ok: bool,
    findings: Vec<FindingLine<'a>>,
}

/// Runs the command and returns its exit code.
pub(crate) fn run(options: &DoctorOptions) -> u8 {
    let schema = match options.engine.schema.load() {
        Ok(schema) => schema,
        Err(error) => {
            say(error);
            return EXIT_USAGE;
        }
    };
    let config = Config { record: Plan::new(schema).sizes(), ..options.engine.config() };
    if let Err(error) = config.check() {
        say(environment::explain(&error));
        return EXIT_USAGE;
    }
    let findings = examine(&config);
    let ok = findings.iter().all(|finding| finding.verdict != Verdict::Fail);
    let printed = match options.format {
        DoctorFormat::Text => print_text(&findings),
        DoctorFormat::Json => print_json(ok, &findings),
    };
    if let Err(error) = printed {
        say(format_args!("cannot write to stdout: {error}"));
        return EXIT_FAILED;
    }
    if ok { EXIT_OK } else { EXIT_FAILED }
}

fn print_text(findings: &[Finding]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for finding in findings {
        writeln!(out, "{finding}")?;
    }
    out.flush()
}

fn print_json(ok: bool, findings: &[Finding]) -> io::Result<()> {
    let findings = findings.iter().map(|finding| FindingLine {
        check: finding.check,
        verdict: finding.verdict.as_str(),
        found: &finding.found,
        remedy: finding.remedy.as_deref(),
    });
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, &Findings { ok, findings: findings.collect() })?;
    writeln!(out)?;
    out.flush()
}
