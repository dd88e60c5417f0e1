//! `ringest token`: makes a token for a user, and the line by which an engine recognises it. The
//! token itself is stored nowhere else: a lost one is replaced.

use crate::cli::args::environment::complain;
use crate::cli::args::token::TokenOptions;
use crate::cli::exit::{EXIT_FAILED, EXIT_OK, EXIT_USAGE};
use crate::cli::terminal::status_line::say;
use crate::config::AUTH_FILE_BYTES_MAX;
use crate::engine::messages::token::{NoRandomness, line_for, new_token};
use crate::engine::messages::users::{AuthError, AuthRule, AuthTable, check_user, is_doubtful};
use crate::runtime::results::whole_file::in_words;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// Mode of a new file of users, and of every file with a token.
const NEW_FILE_MODE: u32 = 0o600;
/// Permissions of others than the owner.
const OTHERS_MODE: u32 = 0o077;

#[derive(Debug, thiserror::Error)]
enum TokenError {
    #[error("{0}; choose another name")]
    User(AuthRule),
    #[error(
        "the name begins or ends with a blank, or has an invisible character, which is easily lost \
         where it is typed; choose another name"
    )]
    Doubtful,
    #[error(transparent)]
    Random(#[from] NoRandomness),
    #[error("cannot write the token to {}: {source}; {}", path.display(), token_remedy(.source))]
    TokenFile { path: PathBuf, source: io::Error },
    #[error(
        "user already listed in {}, with a token that stays valid; for a new token, remove the \
         line that begins with the user's name and run this again",
        .0.display()
    )]
    Known(PathBuf),
    #[error("{}, {source}; the file was not changed", path.display())]
    File { path: PathBuf, source: AuthError },
    #[error("cannot add to {}: {source}; {}", path.display(), remedy(.source))]
    Io { path: PathBuf, source: io::Error },
    #[error("cannot write to stdout: {0}; the token is lost, {1}")]
    Stdout(#[source] io::Error, &'static str),
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "create its directory first",
        io::ErrorKind::PermissionDenied => "run this as the owner of the file and its directory",
        io::ErrorKind::ResourceBusy => {
            "a file that is a mount point cannot be replaced: mount its directory instead"
        }
        io::ErrorKind::InvalidData => "give a file that this command or an editor wrote",
        _ => "the file was not changed",
    }
}

fn token_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AlreadyExists => "name a new file with --token-file, or delete this one",
        io::ErrorKind::NotFound => "create its directory first",
        io::ErrorKind::PermissionDenied => "name a directory that you can write to",
        _ => "no user was added",
    }
}

/// Runs the command and returns its exit code.
pub(crate) fn run(options: &TokenOptions) -> u8 {
    match make(options) {
        Ok(()) => EXIT_OK,
        Err(error) => {
            complain(&error);
            exit_code(&error)
        }
    }
}

fn exit_code(error: &TokenError) -> u8 {
    match error {
        TokenError::User(_) | TokenError::Doubtful => EXIT_USAGE,
        _ => EXIT_FAILED,
    }
}

fn make(options: &TokenOptions) -> Result<(), TokenError> {
    let user = &options.user;
    check_user(user).map_err(TokenError::User)?;
    if is_doubtful(user) {
        return Err(TokenError::Doubtful);
    }
    let token = new_token()?;
    let line = line_for(user, &token).map_err(TokenError::User)?;
    // First, so that no user is added whose token cannot be kept.
    if let Some(path) = &options.token_file {
        let failed = |source| TokenError::TokenFile { path: path.clone(), source };
        write_new(path, &format!("{token}\n"), None).map_err(failed)?;
    }
    let unused = match &options.auth_file {
        Some(path) => {
            add_line(path, user, &line).inspect_err(|_| drop_file(options))?;
            "so remove the user's line from the file and run this again"
        }
        None => "so run this again",
    };
    if options.token_file.is_none() {
        print(&token).map_err(|error| TokenError::Stdout(error, unused))?;
    }
    match &options.auth_file {
        Some(path) => say(format_args!(
            "user added to {}; send SIGHUP to a running engine to have it read the file again",
            path.display()
        )),
        None => {
            say("add this line to the engine's --auth-file to let the user in:");
            // Without a prefix, so that it can be copied.
            let _ = writeln!(io::stderr(), "{line}");
        }
    }
    match &options.token_file {
        Some(path) => say(format_args!(
            "the token in {} is stored nowhere else; pass it on safely",
            path.display()
        )),
        None => say("the token on stdout is stored nowhere; pass it on safely"),
    }
    Ok(())
}

/// Removes the file of a token that is of no use.
fn drop_file(options: &TokenOptions) {
    if let Some(path) = &options.token_file {
        let _ = fs::remove_file(path);
    }
}

/// Makes sure that only its owner can read the file that stdout is redirected to, if it is one.
fn protect_stdout() -> io::Result<()> {
    let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let metadata = stdout.metadata()?;
    if metadata.is_file() && metadata.mode() & OTHERS_MODE != 0 {
        stdout.set_permissions(Permissions::from_mode(NEW_FILE_MODE))?;
        say("stdout is a file: its mode is now 0600, since it holds a token");
    }
    Ok(())
}

fn print(token: &str) -> io::Result<()> {
    if let Err(error) = protect_stdout() {
        say(format_args!("others may be able to read the token: {error}; use --token-file"));
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{token}")?;
    out.flush()
}

/// Adds a line to a file of users. A crash leaves either the old file or the new one.
fn add_line(path: &Path, user: &str, line: &str) -> Result<(), TokenError> {
    let failed = |source| TokenError::Io { path: path.to_owned(), source };
    // Replace what a link points to, not the link.
    let target = match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        resolved => resolved.map_err(failed)?,
    };
    let directory = match target.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let directory = File::open(directory).map_err(failed)?;
    // Two of these commands at the same time would lose a line. Closing the descriptor unlocks.
    directory.lock().map_err(failed)?;

    let (old, metadata) = read_old(&target).map_err(failed)?;
    let text = extended(&old, user, line).map_err(|refused| match refused {
        Some(source) => TokenError::File { path: path.to_owned(), source },
        None => TokenError::Known(path.to_owned()),
    })?;
    replace(&target, &text, metadata.as_ref()).map_err(failed)?;
    directory.sync_all().map_err(failed)
}

/// Reads the file; an empty text if it does not exist yet.
fn read_old(target: &Path) -> io::Result<(String, Option<Metadata>)> {
    let file = match File::open(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((String::new(), None)),
        opened => opened?,
    };
    let metadata = file.metadata()?;
    let mut text = String::new();
    file.take(AUTH_FILE_BYTES_MAX as u64 + 1).read_to_string(&mut text)?;
    if !metadata.is_file() || text.len() > AUTH_FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a file of users"));
    }
    Ok((text, Some(metadata)))
}

/// The text with the line added.
///
/// # Errors
/// None if the user is already listed; otherwise what is wrong with the text.
fn extended(old: &str, user: &str, line: &str) -> Result<String, Option<AuthError>> {
    if AuthTable::parse(old).map_err(Some)?.contains(user) {
        return Err(None);
    }
    let mut text = old.to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(line);
    text.push('\n');
    AuthTable::parse(&text).map_err(Some)?;
    Ok(text)
}

/// Writes a new file next to the target, with its mode and owner, and renames it over the target.
fn replace(target: &Path, text: &str, old: Option<&Metadata>) -> io::Result<()> {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let beside = target.with_file_name(name);
    let written = write_new(&beside, text, old).and_then(|()| fs::rename(&beside, target));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

fn write_new(path: &Path, text: &str, old: Option<&Metadata>) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(NEW_FILE_MODE).open(path)?;
    if let Some(old) = old {
        // The engine may run as a different user than this command.
        let new = file.metadata()?;
        if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
            fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
        file.set_permissions(Permissions::from_mode(old.mode() & 0o7777))?;
    }
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        // Half a token or none would be in the way of the next attempt.
        let _ = fs::remove_file(path);
    }
    written.map_err(in_words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::host::auth_file::load;
    use crate::runtime::results::output_path::null_device;
    use std::os::unix::fs::FileTypeExt;

    fn ask(user: &str, file: &Path) -> Result<(), TokenError> {
        let token = new_token().unwrap();
        add_line(file, user, &line_for(user, &token).unwrap())
    }

    fn mode(file: &Path) -> u32 {
        file.metadata().unwrap().mode() & 0o7777
    }

    #[test]
    fn a_file_is_created_and_grows_by_lines() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("users");
        for user in ["ann", "bob", "Zoë"] {
            ask(user, &file).unwrap();
        }
        let table = load(&file).unwrap();
        assert!(["ann", "bob", "Zoë"].iter().all(|user| table.contains(user)));
        assert_eq!(mode(&file), 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no other file is left");
    }

    #[test]
    fn the_content_and_mode_of_the_file_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("users");
        let begin = format!("# ours\n\n{}", line_for("ann", "abc").unwrap());
        fs::write(&file, &begin).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        ask("bob", &file).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with(&format!("{begin}\nbob:sha256:")), "{text}");
        assert!(text.ends_with('\n'));
        assert_eq!(mode(&file), 0o640);
        assert!(load(&file).unwrap().verify("ann", b"abc"));
    }

    #[test]
    fn a_known_user_is_refused_with_the_next_step() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("users");
        ask("ann", &file).unwrap();
        let before = fs::read_to_string(&file).unwrap();
        let error = ask("ann", &file).unwrap_err().to_string();
        assert!(error.contains("already") && error.contains("remove the line"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), before);
    }

    #[test]
    fn a_broken_file_is_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("users");
        fs::write(&file, "ann:plain:secret\n").unwrap();
        let error = ask("bob", &file).unwrap_err().to_string();
        assert!(error.contains("line 1") && error.contains("not changed"), "{error}");
        assert!(!error.contains("secret"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "ann:plain:secret\n");
    }

    #[test]
    fn what_a_link_points_to_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("users"), directory.path().join("link"));
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink("users", &link).unwrap();
        ask("ann", &link).unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert!(load(&file).unwrap().contains("ann"));
    }

    #[test]
    fn other_things_than_files_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("none/users");
        let error = ask("ann", &missing).unwrap_err().to_string();
        assert!(error.contains("create its directory first"), "{error}");
        assert!(ask("ann", directory.path()).is_err());
        let device = null_device(directory.path());
        assert!(ask("ann", &device).is_err());
        assert!(fs::metadata(device).unwrap().file_type().is_char_device());
    }

    #[test]
    fn commands_at_the_same_time_lose_no_line() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("users");
        std::thread::scope(|scope| {
            for user in 0..16 {
                let file = &file;
                scope.spawn(move || ask(&user.to_string(), file).unwrap());
            }
        });
        assert_eq!(load(&file).unwrap().len(), 16);
    }

    #[test]
    fn a_bad_name_is_wrong_usage() {
        for user in ["a:b", "", "ann ", "\u{feff}ann"] {
            let options = TokenOptions { user: user.to_owned(), auth_file: None, token_file: None };
            assert_eq!(exit_code(&make(&options).unwrap_err()), EXIT_USAGE, "{user:?}");
        }
    }
}
