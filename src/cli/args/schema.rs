//! Options that choose a schema, and the loading of the one they choose. Leaves what a schema may
//! say to `wire::schema`.

use super::heading;
use crate::cli::terminal::status_line::say;
use crate::config::limits::SCHEMA_FILE_BYTES_MAX;
use crate::wire::schema::Schema;
use crate::wire::schema::complaint::Complaint;
use crate::wire::schema::notation::Notation;
use std::fs::{self, File, FileType};
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Name of the built-in schema, accepted in place of a file.
const BUILT_IN: &str = "default";

/// Options of `ringest schema`.
#[derive(Debug, clap::Args)]
pub(crate) struct SchemaCommandOptions {
    /// What to do
    #[command(subcommand)]
    pub action: SchemaAction,
}

/// What to do with a schema.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum SchemaAction {
    /// Check a schema and print its offsets, packets, columns and memory use
    Check(SchemaCheckOptions),
    /// Print a schema as TOML; the built-in one has comments and is a good start for your own
    Show(ChosenSchema),
}

/// Options of `ringest schema check`.
#[derive(Debug, clap::Args)]
pub(crate) struct SchemaCheckOptions {
    /// The schema
    #[command(flatten)]
    pub chosen: ChosenSchema,
    /// Show the first records of FILE as the schema decodes them; `-` reads stdin
    ///
    /// FILE has the bytes that a sender writes to the connection, such as a capture of `serve
    /// --capture`. If they are not whole packets and records, the exit code is 1.
    #[arg(long, value_name = "FILE")]
    pub sample: Option<PathBuf>,
}

/// The schema of the records.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = heading::RECORDS)]
pub(crate) struct SchemaOptions {
    /// Schema of the records: a TOML file, or `default` for the built-in schema
    ///
    /// It says which fields a record has, and how they are grouped and aggregated.
    /// docs/reference/schema.md describes the file.
    #[arg(
        long,
        env = "RINGEST_SCHEMA",
        value_name = "FILE",
        default_value = BUILT_IN,
        conflicts_with = "struct_format"
    )]
    pub schema: PathBuf,
    /// The same in Python's struct notation
    #[command(flatten)]
    pub notation: NotationOptions,
}

/// A schema in Python's struct notation.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = heading::RECORDS)]
pub(crate) struct NotationOptions {
    /// A record in Python's struct notation, such as '>IHfb256s', instead of a schema file
    #[arg(
        id = "struct_format",
        long = "struct",
        env = "RINGEST_STRUCT",
        value_name = "FORMAT",
        requires_all = ["struct_fields", "struct_by"],
        hide_short_help = true
    )]
    pub format: Option<String>,
    /// With --struct: names of the fields, such as A,B,C,D,E; skipped bytes (x) have no name
    ///
    /// An s is text in UTF-8. NAME:bytes makes it binary, as an IP address is, and NAME:latin1 text
    /// in Latin-1; NAME:text says that it is text, and silences the warning about a short key.
    #[arg(
        id = "struct_fields",
        long = "fields",
        env = "RINGEST_FIELDS",
        value_name = "NAMES",
        requires = "struct_format",
        hide_short_help = true
    )]
    pub fields: Option<String>,
    /// With --struct: the fields to group by, such as A,E
    #[arg(
        id = "struct_by",
        long = "by",
        env = "RINGEST_BY",
        value_name = "NAMES",
        requires = "struct_format",
        hide_short_help = true
    )]
    pub by: Option<String>,
    /// With --struct: the aggregates, such as B:mean,C:sum,D:min; records are always counted
    ///
    /// The functions are sum, mean, min, max, first, last, var and std.
    #[arg(
        id = "struct_agg",
        long = "agg",
        env = "RINGEST_AGG",
        value_name = "LIST",
        requires = "struct_format",
        hide_short_help = true
    )]
    pub aggregates: Option<String>,
}

/// The schema that `ringest schema` reads.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ChosenSchema {
    /// TOML file, or `default` for the built-in schema
    #[arg(
        env = "RINGEST_SCHEMA",
        value_name = "FILE",
        default_value = BUILT_IN,
        conflicts_with = "struct_format"
    )]
    pub file: PathBuf,
    /// Instead of a file
    #[command(flatten)]
    pub notation: NotationOptions,
}

impl SchemaOptions {
    /// Loads the schema that the options choose.
    ///
    /// # Errors
    /// What is wrong, where in the file or option, and what would be right.
    pub(crate) fn load(&self) -> Result<Arc<Schema>, String> {
        load(&self.schema, &self.notation)
    }
}

impl ChosenSchema {
    /// Loads the schema.
    ///
    /// # Errors
    /// As [`SchemaOptions::load`].
    pub(crate) fn load(&self) -> Result<Arc<Schema>, String> {
        load(&self.file, &self.notation)
    }
}

/// Loads a schema, with warnings on stderr about what is valid and may surprise.
fn load(file: &Path, notation: &NotationOptions) -> Result<Arc<Schema>, String> {
    let schema = load_silently(file, notation)?;
    if let Some((one, other)) = schema.same_but_for_case() {
        say(format_args!(
            "warning: the columns {one} and {other} differ only in case: Spark cannot read such \
             files unless spark.sql.caseSensitive is true, and DuckDB renames one of them. Give \
             one of the fields another name"
        ));
    }
    Ok(schema)
}

fn load_silently(file: &Path, notation: &NotationOptions) -> Result<Arc<Schema>, String> {
    if let Some(format) = &notation.format {
        let notation = Notation {
            format,
            // The command line requires both of these with a format.
            fields: notation.fields.as_deref().unwrap_or_default(),
            by: notation.by.as_deref().unwrap_or_default(),
            aggregates: notation.aggregates.as_deref(),
        };
        let (schema, doubts) = notation.schema_and_doubts()?;
        doubts.iter().for_each(|doubt| say(format_args!("warning: {doubt}")));
        return Ok(Arc::new(schema));
    }
    if file == Path::new(BUILT_IN) {
        return Ok(Schema::built_in());
    }
    let text = read(file)?;
    Schema::from_toml(&text).map(Arc::new).map_err(|complaint| complaint.in_file(file.display()))
}

fn read(file: &Path) -> Result<String, String> {
    let name = file.display();
    let cannot = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => format!(
            "schema file {name} does not exist; give the path of a TOML file, or `{BUILT_IN}` for \
             the built-in schema. To write your own, start from `ringest schema show`"
        ),
        _ => format!("cannot read schema file {name}: {error}; check its permissions"),
    };
    // Checked before opening: opening a pipe would wait for a writer.
    let metadata = fs::metadata(file).map_err(cannot)?;
    if let Some(what) = other_than_file(metadata.file_type()) {
        return Err(format!("schema {name} is {what}; it must be a TOML file"));
    }
    let mut bytes = Vec::new();
    let limit = SCHEMA_FILE_BYTES_MAX as u64;
    File::open(file)
        .and_then(|open| open.take(limit + 1).read_to_end(&mut bytes))
        .map_err(cannot)?;
    if bytes.len() > SCHEMA_FILE_BYTES_MAX {
        return Err(format!(
            "schema file {name} is larger than {SCHEMA_FILE_BYTES_MAX} bytes; is it the right file?"
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let byte = error.as_bytes()[at];
        let text = String::from_utf8_lossy(error.as_bytes());
        let problem = format!("byte 0x{byte:02x} is not valid UTF-8; save the file as UTF-8");
        Complaint::new(&text, at..at + 1, problem).in_file(name)
    })
}

/// Names what a path leads to if that is not a regular file.
fn other_than_file(kind: FileType) -> Option<&'static str> {
    Some(match kind {
        _ if kind.is_file() => return None,
        _ if kind.is_dir() => "a directory",
        _ if kind.is_fifo() => "a pipe",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    })
}
