//! `ringest merge`: finds partials in directories, has `engine::aggregate` merge them, and prints
//! the result. Changes no file in those directories.

use crate::cli::args::environment::complain;
use crate::cli::args::merge::MergeOptions;
use crate::cli::exit::{EXIT_FAILED, EXIT_HOST, EXIT_OK, EXIT_USAGE};
use crate::cli::output::merge_render::write_merged;
use crate::cli::terminal::status_line::say;
use crate::config::FileFormat;
use crate::config::limits::SCHEMA_FILE_BYTES_MAX;
use crate::engine::aggregate::merge::{MergeOrder, Merged, merge};
use crate::engine::aggregate::partial_reader::{PartialReadError, own_schema};
use crate::engine::aggregate::start_pool;
use crate::runtime::results::output_path::OutputPath;
use crate::runtime::results::partial_files::{
    GROUPS_ENDING, SCHEMA_FILE, STREAM_ENDING, schema_of_partials,
};
use crate::wire::schema::Schema;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Names that are listed before the rest is only counted.
const NAMES_LISTED: usize = 10;

/// Runs the command and returns its exit code.
pub(crate) fn run(options: &MergeOptions) -> u8 {
    let found = match FoundPartials::of(&options.directories) {
        Ok(found) => found,
        Err(MergeRefusal { text, code }) => return fail(text, code),
    };
    let result = match result_schema(&found.schema, options.by.as_deref()) {
        Ok(result) => Arc::new(result),
        Err(error) => return fail(error, EXIT_USAGE),
    };
    let output = match OutputFile::of(options) {
        Ok(output) => output,
        Err(error) => return fail(error, EXIT_USAGE),
    };
    found.warnings.iter().for_each(say);
    if let Err(error) = start_pool() {
        return fail(error, EXIT_HOST);
    }
    let order = MergeOrder {
        schema: &found.schema,
        result: &result,
        groups: &found.groups,
        streams: &found.streams,
        skip_damaged: options.skip_damaged,
        complete_only: options.complete_only,
    };
    let merged = match merge(&order) {
        Ok(merged) => merged,
        Err(error) => return fail(error, EXIT_FAILED),
    };
    if let Some(output) = output
        && let Err(error) = output.write(&merged)
    {
        return fail(error, EXIT_FAILED);
    }
    let mut out = BufWriter::with_capacity(64 << 10, io::stdout());
    if let Err(error) = write_merged(options.format, &merged, &mut out) {
        return fail(format_args!("cannot write the result to stdout: {error}"), EXIT_FAILED);
    }
    say_what_is_missing(&merged)
}

/// The file that the result is written to.
struct OutputFile<'a> {
    shown: &'a Path,
    path: OutputPath,
    format: FileFormat,
}

impl<'a> OutputFile<'a> {
    /// The file that the options name, if any. Checked before the merge, which may take long.
    fn of(options: &'a MergeOptions) -> Result<Option<Self>, String> {
        let Some((shown, format)) = options.output()? else { return Ok(None) };
        let path = OutputPath::open("--output", shown)?;
        Ok(Some(OutputFile { shown, path, format }))
    }

    /// Writes the result, completely or not at all.
    fn write(&self, merged: &Merged) -> Result<(), String> {
        let metadata = [
            ("records", merged.facts.records.to_string()),
            ("schema", merged.grouped.schema().name().to_owned()),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ]
        .map(|(key, value)| (format!("ringest.{key}"), value));
        let written = self.path.write(|out| merged.grouped.write_to(self.format, out, &metadata));
        written.map_err(|error| format!("cannot write --output {}: {error}", self.shown.display()))
    }
}

fn fail(error: impl std::fmt::Display, code: u8) -> u8 {
    complain(error);
    code
}

/// Why a merge does not begin, and its exit code.
struct MergeRefusal {
    text: String,
    code: u8,
}

impl From<String> for MergeRefusal {
    fn from(text: String) -> Self {
        MergeRefusal { text, code: EXIT_USAGE }
    }
}

/// The partials in all directories.
struct FoundPartials {
    schema: Schema,
    groups: Vec<PathBuf>,
    streams: Vec<PathBuf>,
    warnings: Vec<String>,
}

impl FoundPartials {
    fn of(directories: &[PathBuf]) -> Result<Self, MergeRefusal> {
        let mut schema: Option<(&Path, Schema)> = None;
        let (mut groups, mut streams, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
        for directory in directories {
            let (own, doubt) = read_schema(directory)?;
            warnings.extend(doubt);
            match &schema {
                None => schema = Some((directory, own)),
                Some((first, known)) => {
                    if let Some(difference) = own.difference(known) {
                        let (here, there) = (first.display(), directory.display());
                        return Err(format!(
                            "{there} and {here} have partials of different schemas: {difference}; \
                             merge each schema separately"
                        )
                        .into());
                    }
                }
            }
            let files = PartialDirectory::of(directory)?;
            if files.groups.is_empty() && files.streams.is_empty() {
                warnings.push(format!("{} has no partials so far", directory.display()));
            }
            warnings.extend(files.foreign(directory));
            groups.extend(files.groups);
            streams.extend(files.streams);
        }
        let schema = schema.map(|(_, schema)| schema);
        let schema = schema.ok_or_else(|| "no directory was given".to_owned())?;
        // By name, so that the order of directories changes neither the result nor which of several
        // damaged files is named.
        for files in [&mut groups, &mut streams] {
            files.sort_by(|left, right| {
                left.file_name().cmp(&right.file_name()).then(left.cmp(right))
            });
        }
        Ok(FoundPartials { schema, groups, streams, warnings })
    }
}

/// The schema of a directory: that of its file, or else that of the partials in it, with a warning
/// if the file is there and damaged.
fn read_schema(directory: &Path) -> Result<(Schema, Option<String>), MergeRefusal> {
    let path = directory.join(SCHEMA_FILE);
    let mut text = String::new();
    let read = File::open(&path)
        .and_then(|file| file.take(SCHEMA_FILE_BYTES_MAX as u64).read_to_string(&mut text));
    let gone = read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    let parsed = match read {
        Ok(_) => Schema::from_toml(&text).map_err(|complaint| complaint.in_file(path.display())),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    };
    let cause = match parsed {
        Ok(schema) => return Ok((schema, None)),
        Err(cause) => cause,
    };
    if let Ok(Some(schema)) = schema_of_partials(directory) {
        let warning = format!("{cause}; the schema in the partials is used instead");
        return Ok((schema, (!gone).then_some(warning)));
    }
    let damaged = PartialDirectory::of(directory).map(|files| files.damaged()).unwrap_or_default();
    if !damaged.is_empty() {
        let listed = shortened(&damaged, "; ");
        let text = format!(
            "{cause}, and partials there are damaged: {listed}; copy {SCHEMA_FILE} or one of these \
             files again"
        );
        return Err(MergeRefusal { text, code: EXIT_FAILED });
    }
    Err(format!("{cause}; name directories that `serve --partials` wrote").into())
}

/// The files of one directory.
#[derive(Default)]
struct PartialDirectory {
    groups: Vec<PathBuf>,
    streams: Vec<PathBuf>,
    others: Vec<OsString>,
}

impl PartialDirectory {
    fn of(directory: &Path) -> Result<Self, String> {
        let unreadable = |error: io::Error| format!("cannot read {}: {error}", directory.display());
        let mut files = PartialDirectory::default();
        for entry in fs::read_dir(directory).map_err(unreadable)? {
            let name = entry.map_err(unreadable)?.file_name();
            let shown = name.to_string_lossy();
            // Hidden files are being written, or were left behind by a killed process.
            if shown.starts_with('.') || shown == SCHEMA_FILE {
                continue;
            }
            if shown.ends_with(GROUPS_ENDING) {
                files.groups.push(directory.join(&name));
            } else if shown.ends_with(STREAM_ENDING) {
                files.streams.push(directory.join(&name));
            } else {
                files.others.push(name);
            }
        }
        files.others.sort();
        Ok(files)
    }

    /// The names of the damaged files, and what is wrong with them.
    fn damaged(&self) -> Vec<String> {
        let mut files: Vec<&PathBuf> = self.streams.iter().chain(&self.groups).collect();
        files.sort();
        let cause = |file: &Path| match own_schema(file) {
            Err(PartialReadError::Damaged { cause, .. }) => Some(cause),
            _ => None,
        };
        let named = |file: &Path| file.file_name().unwrap_or_default().display().to_string();
        let damaged = files.iter().filter_map(|file| Some((named(file), cause(file)?)));
        damaged.map(|(name, cause)| format!("{name}: {cause}")).collect()
    }

    fn foreign(&self, directory: &Path) -> Option<String> {
        let first = self.others.first()?.to_string_lossy();
        let (count, directory) = (self.others.len(), directory.display());
        Some(format!("{count} files in {directory} are not partials, such as {first}"))
    }
}

/// The schema of a result that has only these keys.
fn result_schema(schema: &Schema, by: Option<&[String]>) -> Result<Schema, String> {
    let Some(by) = by else { return Ok(schema.clone()) };
    let mut keys = Vec::new();
    for name in by {
        if !schema.keys().any(|key| key.name == *name) {
            let all: Vec<&str> = schema.keys().map(|key| key.name.as_str()).collect();
            return Err(format!(
                "--by {name}: not a key of these partials, which have the keys {}",
                all.join(", ")
            ));
        }
        keys.extend(schema.fields().iter().position(|field| field.name == *name));
    }
    let fields = schema.fields().iter().map(|field| (field.name.clone(), field.kind)).collect();
    let fewer = Schema::new(
        schema.name().to_owned(),
        schema.endian(),
        schema.framing(),
        fields,
        keys,
        schema.aggregates().to_vec(),
    )
    .map_err(|broken| format!("--by: {broken}"))?;
    let encodings = schema.fields().iter().map(|field| field.encoding).enumerate();
    Ok(encodings.fold(fewer, |fewer, (field, encoding)| fewer.with_encoding(field, encoding)))
}

/// Reports on stderr what is missing from the result; returns the exit code.
fn say_what_is_missing(merged: &Merged) -> u8 {
    let facts = &merged.facts;
    say_list(
        "did not end complete and is left out",
        "did not end complete and are left out",
        ("stream", "streams"),
        &facts.left_out,
    );
    say_list("is unfinished", "are unfinished", ("stream", "streams"), &facts.unfinished);
    say_list(
        "has groups and no .stream.parquet",
        "have groups and no .stream.parquet",
        ("batch", "batches"),
        &facts.unsaid,
    );
    say_list(
        "has no checksum, so damage to it may not be noticed",
        "have no checksum, so damage to them may not be noticed",
        ("file", "files"),
        &facts.unsealed,
    );
    if !merged.overflowed.is_empty() {
        let columns = merged.overflowed.join(", ");
        say(format_args!("some sums of {columns} do not fit into 64 bits; they are null"));
    }
    for fault in facts.faults.iter().take(NAMES_LISTED) {
        say(fault);
    }
    if facts.faults.len() > NAMES_LISTED {
        say(format_args!("and {} more of this kind", facts.faults.len() - NAMES_LISTED));
    }
    if !facts.faults.is_empty() {
        say("the result is not all that was received: look for the files where they were written");
        return EXIT_FAILED;
    }
    EXIT_OK
}

fn say_list(is: &str, are: &str, (one, many): (&str, &str), names: &[String]) {
    match names {
        [] => {}
        [name] => say(format_args!("one {one} {is}: {name}")),
        names => {
            say(format_args!("{} {many} {are}: {}", names.len(), shortened(names, ", ")));
        }
    }
}

/// The first of these, and how many more there are.
fn shortened(names: &[String], separator: &str) -> String {
    let listed = names[..names.len().min(NAMES_LISTED)].join(separator);
    match names.len().saturating_sub(NAMES_LISTED) {
        0 => listed,
        rest => format!("{listed} and {rest} more"),
    }
}
