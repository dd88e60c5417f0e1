//! The file that says which schema the files of a directory have, so that a directory holds files
//! of one schema.

use super::whole_file::FileDirectory;
use crate::engine::aggregate::partial_reader::schema_of;
use crate::runtime::disk::fs;
use crate::wire::schema::Schema;
use std::io::{self, Write};
use std::path::Path;

/// Why files of a schema cannot go into a directory.
#[derive(Debug)]
pub(crate) enum SchemaFileError {
    /// The file cannot be read or written.
    Io(io::Error),
    /// The directory has files of another schema: how it differs, or why it cannot be read.
    OtherSchema(String),
}

/// Makes a directory one of this schema, in a file called `name`, unless it is one already. `known`
/// finds the schema of the other files if that file is gone.
///
/// # Errors
/// If it is a directory of another schema.
pub(crate) fn claim(
    directory: &FileDirectory,
    name: &str,
    run: &str,
    schema: &Schema,
    known: impl FnOnce(&Path) -> io::Result<Option<Schema>>,
) -> Result<(), SchemaFileError> {
    let there = schema_there(directory, name, run, schema, known).map_err(SchemaFileError::Io)?;
    judge(there, name, schema)
}

/// Whether [`claim`] would succeed. Writes nothing.
///
/// # Errors
/// If it is a directory of another schema.
pub(crate) fn check(
    directory: &FileDirectory,
    name: &str,
    schema: &Schema,
    known: impl FnOnce(&Path) -> io::Result<Option<Schema>>,
) -> Result<(), SchemaFileError> {
    let there = found(directory, name, known).map_err(SchemaFileError::Io)?;
    judge(there, name, schema)
}

fn judge(there: Option<String>, name: &str, schema: &Schema) -> Result<(), SchemaFileError> {
    let difference = match there.as_deref().map(Schema::from_toml) {
        Some(Ok(there)) => there.difference(schema),
        Some(Err(complaint)) => Some(complaint.in_file(name)),
        None => None,
    };
    difference.map_or(Ok(()), |difference| Err(SchemaFileError::OtherSchema(difference)))
}

/// The schema text found in a directory, in the file or by `known`.
fn found(
    directory: &FileDirectory,
    name: &str,
    known: impl FnOnce(&Path) -> io::Result<Option<Schema>>,
) -> io::Result<Option<String>> {
    match fs::read_to_string(directory.path().join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok(known(directory.path())?.map(|known| known.to_toml()))
        }
        there => there.map(Some),
    }
}

/// The schema in the metadata of the files in a directory whose names end like that, in the first
/// one by name that has it: names begin with a time, and the order of a directory is arbitrary.
///
/// # Errors
/// If the directory cannot be read.
pub(crate) fn schema_of_files(directory: &Path, ends: &[&str]) -> io::Result<Option<Schema>> {
    let names = fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.file_name()));
    let mut names = names.collect::<io::Result<Vec<_>>>()?;
    names.retain(|name| {
        let shown = name.to_string_lossy();
        // Hidden files are being written.
        !shown.starts_with('.') && ends.iter().any(|end| shown.ends_with(end))
    });
    names.sort_unstable();
    let schema = |path: &Path| {
        // Reading a pipe might never end.
        let is_file = fs::metadata(path).is_ok_and(|found| found.is_file());
        is_file.then(|| fs::read(path).ok()).flatten().and_then(schema_of)
    };
    Ok(names.iter().find_map(|name| schema(&directory.join(name))))
}

/// The schema text found in a directory. `None` if there was none; this schema has then been
/// written.
fn schema_there(
    directory: &FileDirectory,
    name: &str,
    run: &str,
    schema: &Schema,
    known: impl FnOnce(&Path) -> io::Result<Option<Schema>>,
) -> io::Result<Option<String>> {
    if let Some(found) = found(directory, name, known)? {
        return Ok(Some(found));
    }
    let mut file = directory.begin(format!("{run}.{name}"))?;
    file.write_all(schema.to_toml().as_bytes())?;
    match file.finish(name) {
        // Another process was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::read_to_string(directory.path().join(name)).map(Some)
        }
        finished => finished.map(|_| None),
    }
}
