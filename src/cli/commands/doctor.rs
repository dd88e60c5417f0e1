//! `ringest doctor`: prints whether this host can run the engine. The checks of the host are in
//! `runtime::host`; directories are checked by what writes to them.

use crate::cli::args::doctor::{DoctorFormat, DoctorOptions};
use crate::cli::args::environment::{complain, explained};
use crate::cli::exit::{EXIT_FAILED, EXIT_OK, EXIT_USAGE};
use crate::cli::output::latency_files::LatencyFiles;
use crate::cli::output::output_files::OutputFiles;
use crate::cli::output::results_output::ResultsFile;
use crate::cli::terminal::status_line::say;
use crate::config::Config;
use crate::engine::groups::plan::Plan;
use crate::runtime::host::finding::{Finding, Verdict};
use crate::runtime::host::findings::examine;
use crate::runtime::results::capture;
use crate::runtime::results::partial_files::PartialFiles;
use crate::runtime::results::whole_file::node_name;
use crate::wire::schema::Schema;
use serde::Serialize;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

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
pub(crate) fn run(DoctorOptions { serve: options, format }: &DoctorOptions) -> u8 {
    let schema = match options.engine.schema.load() {
        Ok(schema) => schema,
        Err(error) => {
            complain(error);
            return EXIT_USAGE;
        }
    };
    let config = Config { record: Plan::new(Arc::clone(&schema)).sizes(), ..options.config() };
    if let Err(error) = config.check() {
        complain(&error);
        return EXIT_USAGE;
    }
    let mut findings = examine(&config);
    findings.extend(directories(&config, &schema));
    findings.extend(options.results.as_deref().map(results));
    let ok = findings.iter().all(|finding| finding.verdict != Verdict::Fail);
    let printed = match format {
        DoctorFormat::Text => print_text(&findings),
        DoctorFormat::Json => print_json(ok, &findings),
    };
    if let Err(error) = printed {
        say(format_args!("cannot write to stdout: {error}"));
        return EXIT_FAILED;
    }
    if ok { EXIT_OK } else { EXIT_FAILED }
}

/// The findings about directories, for those that are asked for. Leaves nothing in them.
fn directories(config: &Config, schema: &Schema) -> Vec<Finding> {
    let output = OutputFiles::check(config, schema);
    let open = |path| LatencyFiles::open(path, &node_name(config), SystemTime::now());
    let hgrm = config.hgrm.as_deref().map(open).transpose().map(drop);
    let capture = capture::check(config);
    let partials = PartialFiles::check(config, schema).map_err(|error| error.to_string());
    [
        ("output", &config.output, output),
        ("hgrm", &config.hgrm, hgrm),
        ("capture", &config.capture, capture),
        ("partials", &config.partials, partials),
    ]
    .into_iter()
    .filter_map(|(check, path, outcome)| {
        let path = path.as_ref()?;
        Some(match outcome {
            Ok(()) => Finding::pass(check, format!("{} can be written to", path.display())),
            Err(error) => Finding::fail_with_remedy(check, &error),
        })
    })
    .collect()
}

/// The finding about the file of results.
fn results(path: &Path) -> Finding {
    match ResultsFile::check(path) {
        Ok(()) => Finding::pass("results", format!("{} can be written to", path.display())),
        Err(error) => {
            let found = error.rsplit_once("; ").map_or(error.as_str(), |(found, _)| found);
            let remedy = "name a file of this engine alone, in a directory that it can write to";
            Finding::fail("results", found.to_owned(), remedy)
        }
    }
}

fn print_text(findings: &[Finding]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for finding in findings {
        match finding.verdict {
            Verdict::Fail => writeln!(out, "{}", explained(finding))?,
            _ => writeln!(out, "{finding}")?,
        }
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
