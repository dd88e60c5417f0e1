//! Reads the auth file, up to a size limit. Parsing is in
//! [`engine::messages::users`](crate::engine::messages::users).

use crate::config::AUTH_FILE_BYTES_MAX;
use crate::engine::messages::users::{AuthError, AuthTable};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Why an auth file was rejected.
#[derive(Debug, thiserror::Error)]
pub enum AuthFileError {
    /// The file cannot be read.
    #[error(
        "cannot read users from {}: {source}; `ringest token USER --auth-file {}` creates such a \
         file",
        path.display(), path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file is larger than [`AUTH_FILE_BYTES_MAX`].
    #[error(
        "{} has more than {AUTH_FILE_BYTES_MAX} bytes; remove comments or users",
        path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file has no users; those of the previous one stay.
    #[error(
        "{} lists no user; `ringest token USER --auth-file {}` adds one. To lock everybody out, \
         restart the engine",
        path.display(), path.display()
    )]
    NoUsers {
        /// The file.
        path: PathBuf,
    },
    /// A line is invalid.
    #[error("{}, {source}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line and the rule that it breaks.
        source: AuthError,
    },
}

/// Reads the users from a file.
///
/// # Errors
/// [`AuthFileError`], with the path and the next step.
pub(crate) fn load(path: &Path) -> Result<AuthTable, AuthFileError> {
    let bytes = read_bounded(path)?;
    AuthTable::parse_bytes(&bytes)
        .map_err(|source| AuthFileError::Line { path: path.to_owned(), source })
}

/// Warns about users whom a file locks out, probably by mistake.
pub(crate) fn warn_of(table: &AuthTable, path: &Path) {
    let path = path.display();
    if table.is_empty() {
        tracing::warn!(
            "{path} lists no user, so nobody can authenticate; `ringest token USER --auth-file \
             {path}` adds one"
        );
    }
    if let Some(doubtful) = table.doubtful() {
        tracing::warn!("{path}, {doubtful}");
    }
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, AuthFileError> {
    let mut bytes = Vec::new();
    // One byte more than allowed, to distinguish a file that is too large from one that just fits.
    let read = File::open(path)
        .and_then(|file| file.take(AUTH_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes));
    match read {
        Err(source) => Err(AuthFileError::Read { path: path.to_owned(), source }),
        Ok(_) if bytes.len() > AUTH_FILE_BYTES_MAX => {
            Err(AuthFileError::TooLarge { path: path.to_owned() })
        }
        Ok(_) => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn messages_name_file_line_rule_and_next_step_but_not_the_text() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(
            file,
            "{}\nann:sha256:secret-token",
            format_args!("bob:sha256:{}", "0".repeat(64))
        )
        .unwrap();
        let error = load(file.path()).unwrap_err().to_string();
        for part in [file.path().to_str().unwrap(), "line 2", "64 lowercase", "ringest token USER"]
        {
            assert!(error.contains(part), "{error}");
        }
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn a_missing_file_or_invalid_utf8_is_an_error() {
        let error = load(Path::new("/nowhere/users")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/users") && error.contains("--auth-file"), "{error}");
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"# \n# \xff").unwrap();
        let error = load(file.path()).unwrap_err().to_string();
        assert!(error.contains("line 2: not valid UTF-8"), "{error}");
    }

    #[test]
    fn an_endless_file_is_too_large() {
        let error = load(Path::new("/dev/zero")).unwrap_err();
        assert!(matches!(error, AuthFileError::TooLarge { .. }), "{error}");
    }
}
