//! `ringest gen-cert`: writes certificates for trying out TLS, and overwrites no file. `certs`
//! generates them.

use super::certs::{CertError, CertSpec, Generated, Pair, generate};
use crate::cli::args::environment::complain;
use crate::cli::args::gen_cert::GenCertOptions;
use crate::cli::exit::{EXIT_FAILED, EXIT_OK, EXIT_USAGE};
use crate::cli::terminal::status_line::say;
use crate::runtime::results::whole_file::in_words;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How far a client's clock may be behind.
const CLOCK_SLACK: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, thiserror::Error)]
enum GenCertError {
    #[error(transparent)]
    Certificates(#[from] CertError),
    #[error(
        "{} already exists; nothing was written. Choose another --dir, or remove the old \
         certificates and keys",
        .0.display()
    )]
    Exists(PathBuf),
    #[error("cannot write {}: {source}{}", path.display(), remedy(.source))]
    Write { path: PathBuf, source: io::Error },
}

/// What to do where the error itself does not say so.
fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(_) => "; choose a --dir that you can write to",
        None => "",
    }
}

/// A file to be written.
struct NewFile<'a> {
    path: PathBuf,
    text: &'a str,
    mode: u32,
    what: &'static str,
}

/// Runs the command and returns its exit code.
pub(crate) fn run(options: &GenCertOptions) -> u8 {
    let text = match make(options) {
        Ok(text) => text,
        Err(error) => {
            complain(&error);
            return exit_code(&error);
        }
    };
    match print(&text) {
        Ok(()) => EXIT_OK,
        Err(error) => {
            say(format_args!("cannot write to stdout: {error}"));
            EXIT_FAILED
        }
    }
}

fn exit_code(error: &GenCertError) -> u8 {
    match error {
        GenCertError::Certificates(CertError::Host { .. }) => EXIT_USAGE,
        _ => EXIT_FAILED,
    }
}

/// Writes the files; returns the text that describes them.
fn make(options: &GenCertOptions) -> Result<String, GenCertError> {
    let now = SystemTime::now();
    let made = generate(&CertSpec {
        hosts: options.hosts.clone(),
        client: options.client.clone(),
        not_before: now - CLOCK_SLACK,
        not_after: now + DAY * options.days,
    })?;
    let files = files(&options.dir, &made, options.client.as_deref());
    write_all(&options.dir, &files)?;
    Ok(describe(&files, options))
}

fn files<'a>(dir: &Path, made: &'a Generated, client: Option<&str>) -> Vec<NewFile<'a>> {
    let pair = |name: &str, pair: &'a Pair, whats: [&'static str; 2]| {
        let file = |ending, text, mode, what| NewFile {
            path: dir.join(format!("{name}.{ending}")),
            text,
            mode,
            what,
        };
        [file("crt", &*pair.certificate, 0o644, whats[0]), file("key", &*pair.key, 0o600, whats[1])]
    };
    let mut files = Vec::new();
    files.extend(pair(
        "ca",
        &made.ca,
        ["certificate authority: give this to clients", "its key: keep it secret"],
    ));
    files.extend(pair("server", &made.server, ["server certificate", "its key"]));
    if let (Some(name), Some(made)) = (client, &made.client) {
        files.extend(pair(name, made, ["client certificate", "its key"]));
    }
    files
}

/// Writes all files, or none if one of them exists.
fn write_all(dir: &Path, files: &[NewFile<'_>]) -> Result<(), GenCertError> {
    fs::create_dir_all(dir)
        .map_err(|source| GenCertError::Write { path: dir.to_owned(), source })?;
    // This also finds a dangling link.
    if let Some(file) = files.iter().find(|file| file.path.symlink_metadata().is_ok()) {
        return Err(GenCertError::Exists(file.path.clone()));
    }
    for (done, file) in files.iter().enumerate() {
        if let Err(source) = write_new(file) {
            for written in &files[..done] {
                let _ = fs::remove_file(&written.path);
            }
            return Err(match source.kind() {
                io::ErrorKind::AlreadyExists => GenCertError::Exists(file.path.clone()),
                _ => GenCertError::Write { path: file.path.clone(), source },
            });
        }
    }
    Ok(())
}

fn write_new(file: &NewFile<'_>) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut opened = options.write(true).create_new(true).mode(file.mode).open(&file.path)?;
    let written = opened.write_all(file.text.as_bytes());
    if written.is_err() {
        let _ = fs::remove_file(&file.path);
    }
    written.map_err(in_words)
}

fn describe(files: &[NewFile<'_>], options: &GenCertOptions) -> String {
    use fmt::Write;
    let mut text = String::new();
    let shown: Vec<_> = files.iter().map(|file| quoted(&file.path)).collect();
    let width = shown.iter().map(|path| path.chars().count()).max().unwrap_or_default();
    let mut line = |line: fmt::Arguments<'_>| writeln!(text, "{line}").expect("a string takes all");
    for (file, path) in files.iter().zip(&shown) {
        line(format_args!("{path:width$}  {}", file.what));
    }
    line(format_args!(
        "valid for {}, for {} days; for trials only",
        options.hosts.join(", "),
        options.days
    ));
    line(format_args!(""));
    let in_dir = |name: &str| quoted(&options.dir.join(name));
    let serve = format!(
        "ringest serve --tls --cert {} --key {}",
        in_dir("server.crt"),
        in_dir("server.key")
    );
    line(format_args!("{serve}"));
    if options.client.is_some() {
        line(format_args!("or, to require a client certificate:"));
        line(format_args!("{serve} --client-ca {}", in_dir("ca.crt")));
    }
    text
}

/// A path, quoted for a shell where needed.
fn quoted(path: &Path) -> String {
    let path = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,@%".contains(c);
    if path.chars().all(plain) {
        return path.into_owned();
    }
    format!("'{}'", path.replace('\'', r"'\''"))
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::tls::config::{Certificates, TlsSource};
    use std::os::unix::fs::PermissionsExt;

    fn options(dir: &Path, client: Option<&str>) -> GenCertOptions {
        GenCertOptions {
            dir: dir.to_owned(),
            hosts: vec!["localhost".to_owned()],
            days: 30,
            client: client.map(str::to_owned),
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| name(e).into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn an_engine_can_start_with_the_files() {
        let directory = tempfile::tempdir().unwrap();
        let dir = directory.path().join("new/certs");
        make(&options(&dir, Some("ann"))).unwrap();
        let all = ["ann.crt", "ann.key", "ca.crt", "ca.key", "server.crt", "server.key"];
        assert_eq!(names(&dir), all);
        let source = TlsSource {
            cert: dir.join("server.crt"),
            key: dir.join("server.key"),
            client_ca: Some(dir.join("ca.crt")),
        };
        let certificates = Certificates::load(source).unwrap();
        assert_eq!(certificates.doubtful(SystemTime::now()), []);
    }

    #[test]
    fn keys_are_for_the_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        make(&options(directory.path(), Some("ann"))).unwrap();
        for name in names(directory.path()) {
            let metadata = directory.path().join(&name).metadata().unwrap();
            let mode = metadata.permissions().mode();
            assert!(!name.ends_with(".key") || mode & 0o777 == 0o600, "{name}: {mode:o}");
        }
    }

    #[test]
    fn no_file_is_overwritten_and_none_left_half_done() {
        let directory = tempfile::tempdir().unwrap();
        let old = directory.path().join("server.key");
        fs::write(&old, "precious").unwrap();
        let error = make(&options(directory.path(), None)).unwrap_err();
        assert_eq!(exit_code(&error), EXIT_FAILED);
        let error = error.to_string();
        assert!(error.contains("server.key already exists"), "{error}");
        assert!(error.contains("Choose another --dir"), "{error}");
        assert_eq!(names(directory.path()), ["server.key"]);
        assert_eq!(fs::read_to_string(&old).unwrap(), "precious");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_an_error() {
        let error = make(&options(Path::new("/proc/none"), None)).unwrap_err().to_string();
        assert!(error.contains("/proc/none") && error.contains("can write to"), "{error}");
    }

    #[test]
    fn an_invalid_host_is_wrong_usage() {
        let directory = tempfile::tempdir().unwrap();
        let mut options = options(directory.path(), None);
        options.hosts = vec!["not a host".to_owned()];
        assert_eq!(exit_code(&make(&options).unwrap_err()), EXIT_USAGE);
        assert!(names(directory.path()).is_empty());
    }

    #[test]
    fn commands_are_printed_as_a_shell_takes_them() {
        let dir = Path::new("/tmp/my certs");
        let text = describe(&[], &options(dir, Some("ann")));
        let serve = "ringest serve --tls --cert '/tmp/my certs/server.crt' \
                     --key '/tmp/my certs/server.key'";
        assert!(text.contains(&format!("\n{serve}\n")), "{text}");
        assert!(text.ends_with(&format!("{serve} --client-ca '/tmp/my certs/ca.crt'\n")), "{text}");
        assert_eq!(quoted(Path::new("a'b")), r"'a'\''b'");
        assert!(!describe(&[], &options(dir, None)).contains("--client-ca"));
    }
}
