//! Options of `ringest gen-cert`.

use std::path::PathBuf;

/// Options of `ringest gen-cert`.
#[derive(Debug, clap::Args)]
pub(crate) struct GenCertOptions {
    /// Directory to write to; created if it does not exist
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Name or address by which clients reach the server; may be repeated
    #[arg(
        long = "host",
        value_name = "NAME",
        default_values = ["localhost", "127.0.0.1", "::1"]
    )]
    pub hosts: Vec<String>,
    /// Days for which the certificates are valid [1 to 3650]
    #[arg(
        long,
        value_name = "N",
        default_value_t = 30,
        value_parser = clap::value_parser!(u32).range(1..=3650)
    )]
    pub days: u32,
    /// Also create a client certificate, NAME.crt, and its key, NAME.key
    #[arg(long, value_name = "NAME", value_parser = client_name)]
    pub client: Option<String>,
}

/// Checks that a name can be that of a file.
fn client_name(name: &str) -> Result<String, String> {
    let sound = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !begins || name.len() > 64 || !name.chars().all(sound) {
        return Err(
            "use 1 to 64 letters, digits, `.`, `_` or `-`, starting with a letter or digit"
                .to_owned(),
        );
    }
    if matches!(name, "ca" | "server") {
        return Err("`ca` and `server` are reserved for the other certificates".to_owned());
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_names_are_safe_file_names() {
        assert_eq!(client_name("ann-1.test"), Ok("ann-1.test".to_owned()));
        for name in ["", ".", "../x", "a/b", "-a", "ca", "server", "a b", &"a".repeat(65)] {
            assert!(client_name(name).is_err(), "{name:?}");
        }
    }
}
