//! Options that choose a schema, for every command that needs one, and the schema that they
//! choose: opens one file. Knows no rule of a schema.

use crate::config::limits::SCHEMA_FILE_BYTES_MAX;
use crate::wire::schema::Schema;
use crate::wire::schema::complaint::Complaint;
use crate::wire::schema::notation::Notation;
use std::fs::{self, File, FileType};
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the built-in schema is called where a file could be named.
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
    /// Check a schema; print its offsets, packets, columns and memory
    Check(ChosenSchema),
    /// Print a schema as TOML, the built-in one with comments: a file to begin with
    Show(ChosenSchema),
}

/// Which schema records have.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SchemaOptions {
    /// Layout of the records and columns of the result: a TOML file (docs/reference/schema.md),
    /// or `default`, the built-in schema
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
pub(crate) struct NotationOptions {
    /// A record in Python's struct notation instead of a file, such as '>IHfb256s'
    #[arg(
        id = "struct_format",
        long = "struct",
        env = "RINGEST_STRUCT",
        value_name = "FORMAT",
        requires_all = ["struct_fields", "struct_by"]
    )]
    pub format: Option<String>,
    /// With --struct: the names of its fields, such as A,B,C,D,E; those skipped by x have none
    #[arg(
        id = "struct_fields",
        long = "fields",
        env = "RINGEST_FIELDS",
        value_name = "NAMES",
        requires = "struct_format"
    )]
    pub fields: Option<String>,
    /// With --struct: the fields that make a group, such as A,E
    #[arg(
        id = "struct_by",
        long = "by",
        env = "RINGEST_BY",
        value_name = "NAMES",
        requires = "struct_format"
    )]
    pub by: Option<String>,
    /// With --struct: the columns beside them, such as B:mean,C:sum,D:min; the functions are sum,
    /// mean, min, max, first, last, var and std. Without it there is only the count
    #[arg(
        id = "struct_agg",
        long = "agg",
        env = "RINGEST_AGG",
        value_name = "LIST",
        requires = "struct_format"
    )]
    pub aggregates: Option<String>,
}

/// A schema that `ringest schema` is about.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ChosenSchema {
    /// TOML file, or `default`
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
    /// The schema that the options choose.
    ///
    /// # Errors
    /// Why there is none, with the place in the file or option, and what would be right.
    pub(crate) fn load(&self) -> Result<Arc<Schema>, String> {
        load(&self.schema, &self.notation)
    }
}

impl ChosenSchema {
    /// The schema.
    ///
    /// # Errors
    /// As [`SchemaOptions::load`].
    pub(crate) fn load(&self) -> Result<Arc<Schema>, String> {
        load(&self.file, &self.notation)
    }
}

fn load(file: &Path, notation: &NotationOptions) -> Result<Arc<Schema>, String> {
    if let Some(format) = &notation.format {
        let notation = Notation {
            format,
            // Where there is a format, the command line demands both of these.
            fields: notation.fields.as_deref().unwrap_or_default(),
            by: notation.by.as_deref().unwrap_or_default(),
            aggregates: notation.aggregates.as_deref(),
        };
        return notation.schema().map(Arc::new);
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
            "there is no schema {name}; give the path of a TOML file, or `{BUILT_IN}` for the \
             built-in schema. `ringest schema show` prints that one, to begin with"
        ),
        _ => format!("cannot read the schema {name}: {error}; this user must be allowed to"),
    };
    // Before it is opened: opening a pipe waits for whoever writes to it.
    let metadata = fs::metadata(file).map_err(cannot)?;
    if let Some(what) = no_file(metadata.file_type()) {
        return Err(format!("the schema {name} is {what}; it must be a file, in TOML"));
    }
    let mut bytes = Vec::new();
    let limit = SCHEMA_FILE_BYTES_MAX as u64;
    File::open(file)
        .and_then(|open| open.take(limit + 1).read_to_end(&mut bytes))
        .map_err(cannot)?;
    if bytes.len() > SCHEMA_FILE_BYTES_MAX {
        return Err(format!(
            "the schema {name} has more than {SCHEMA_FILE_BYTES_MAX} bytes, which is the most; is \
             this the file that was meant?"
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let byte = error.as_bytes()[at];
        let text = String::from_utf8_lossy(error.as_bytes());
        let problem = format!("the byte 0x{byte:02x} is no UTF-8; save the file as UTF-8");
        Complaint::new(&text, at..at + 1, problem).in_file(name)
    })
}

/// What something is that is no file.
fn no_file(kind: FileType) -> Option<&'static str> {
    Some(match kind {
        _ if kind.is_file() => return None,
        _ if kind.is_dir() => "a directory",
        _ if kind.is_fifo() => "a pipe",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    })
}
