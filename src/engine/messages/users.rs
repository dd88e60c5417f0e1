//! The users of the message server, with the SHA-256 of their tokens. Stores no token and creates
//! none (`token` does); reads no file.
//!
//! The file has one line per user, `user:sha256:<64 lowercase hexadecimal digits>`; blank lines and
//! lines that begin with `#` are ignored, and so is a byte order mark. Tokens have 256 random bits,
//! so they cannot be guessed, and a fast hash is enough.

use crate::config::{AUTH_FILE_BYTES_MAX, AUTH_USERS_MAX, USER_BYTES_MAX};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fmt;
use subtle::{Choice, ConstantTimeEq};

/// The hash scheme, between the name and the hash.
pub(crate) const SCHEME: &str = "sha256";
const HASH_BYTES: usize = 32;
const HASH_DIGITS: usize = 2 * HASH_BYTES;
const LINE_BYTES_MAX: usize = USER_BYTES_MAX + 1 + SCHEME.len() + 1 + HASH_DIGITS + 1;

const _: () = assert!(AUTH_USERS_MAX * LINE_BYTES_MAX <= AUTH_FILE_BYTES_MAX);

type Hash = [u8; HASH_BYTES];

/// The rule that a name or a line breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthRule {
    /// The line does not have three parts.
    #[error("expected user, scheme and hash, separated by `:`")]
    Parts,
    /// The scheme is not `sha256`.
    #[error("unknown scheme; the only one is {SCHEME}")]
    Scheme,
    /// The hash is not 64 lowercase hexadecimal digits.
    #[error("a hash has {HASH_DIGITS} lowercase hexadecimal digits")]
    Hash,
    /// The name is empty or too long.
    #[error("a user name has 1 to {USER_BYTES_MAX} bytes, not {bytes}")]
    NameLength {
        /// Length of the name.
        bytes: usize,
    },
    /// The name has a character that would be hard to see or would split the line.
    #[error("a user name must not contain `:` or control characters, or begin with `#`")]
    NameCharacters,
    /// The user is on an earlier line.
    #[error("user already listed on line {first}")]
    Duplicate {
        /// The earlier line.
        first: usize,
    },
    /// The file has more users than [`AUTH_USERS_MAX`].
    #[error("a file has at most {AUTH_USERS_MAX} users")]
    Users,
    /// The line is not UTF-8.
    #[error("not valid UTF-8")]
    Utf8,
}

/// An invalid line. The message does not show it, because it might hold a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {rule}; `ringest token USER` makes a valid line")]
pub struct AuthError {
    /// Number of the line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub rule: AuthRule,
}

/// Names in a file that hardly anybody would send: they begin or end with a blank, or have a
/// character that is not visible. Does not show them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DoubtfulNames {
    /// Number of the first such line, from 1.
    pub line: usize,
    /// How many there are.
    pub count: usize,
}

impl fmt::Display for DoubtfulNames {
    /// The finding and the remedy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DoubtfulNames { line, count } = self;
        write!(
            f,
            "line {line}: the user's name begins or ends with a blank, or has an invisible "
        )?;
        write!(f, "character, so the name without it cannot authenticate")?;
        if *count > 1 {
            write!(f, " ({count} such lines)")?;
        }
        write!(f, "; remove the character, unless clients send it")
    }
}

/// Whether a name begins or ends with a blank, or has a character that is not visible.
pub(crate) fn is_doubtful(user: &str) -> bool {
    // Zero-width characters and the byte order mark, which are not white space.
    let invisible = |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}');
    user.trim() != user || user.contains(invisible)
}

/// Whether `user` is a valid name.
///
/// # Errors
/// [`AuthRule::NameLength`] or [`AuthRule::NameCharacters`].
pub(crate) fn check_user(user: &str) -> Result<(), AuthRule> {
    if user.is_empty() || user.len() > USER_BYTES_MAX {
        return Err(AuthRule::NameLength { bytes: user.len() });
    }
    if user.starts_with('#') || user.contains(|c: char| c == ':' || c.is_control()) {
        return Err(AuthRule::NameCharacters);
    }
    Ok(())
}

/// The hash of a token, as stored.
pub(crate) fn hash(token: &[u8]) -> Hash {
    Sha256::digest(token).into()
}

/// Users and the hashes of their tokens.
#[derive(Default)]
pub(crate) struct AuthTable {
    users: HashMap<Box<str>, Hash>,
    doubtful: Option<DoubtfulNames>,
}

impl AuthTable {
    /// Parses the text of an auth file.
    ///
    /// # Errors
    /// [`AuthError`] for the first invalid line.
    pub(crate) fn parse(text: &str) -> Result<Self, AuthError> {
        // Some editors begin a file with it.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let (mut users, mut doubtful) = (HashMap::new(), None);
        for (line, entry) in (1..).zip(text.lines()) {
            if entry.trim().is_empty() || entry.starts_with('#') {
                continue;
            }
            let (user, hash) = parse_line(entry).map_err(|rule| AuthError { line, rule })?;
            if users.contains_key(user) {
                let first = first_line_of(user, text);
                return Err(AuthError { line, rule: AuthRule::Duplicate { first } });
            }
            if users.len() == AUTH_USERS_MAX {
                return Err(AuthError { line, rule: AuthRule::Users });
            }
            if is_doubtful(user) {
                doubtful.get_or_insert(DoubtfulNames { line, count: 0 }).count += 1;
            }
            users.insert(user.into(), hash);
        }
        Ok(AuthTable { users, doubtful })
    }

    /// Parses bytes that should be text.
    ///
    /// # Errors
    /// [`AuthError`] for the first invalid line.
    pub(crate) fn parse_bytes(bytes: &[u8]) -> Result<Self, AuthError> {
        match std::str::from_utf8(bytes) {
            Ok(text) => AuthTable::parse(text),
            Err(error) => {
                let before = &bytes[..error.valid_up_to()];
                let line = 1 + memchr::memchr_iter(b'\n', before).count();
                Err(AuthError { line, rule: AuthRule::Utf8 })
            }
        }
    }

    /// Whether `token` is the token of `user`. Takes the same steps for an unknown user, and
    /// compares hashes in constant time.
    pub(crate) fn verify(&self, user: &str, token: &[u8]) -> bool {
        const NOBODY: Hash = [0; HASH_BYTES];
        let given = hash(token);
        let kept = self.users.get(user);
        let known = Choice::from(u8::from(kept.is_some()));
        (kept.unwrap_or(&NOBODY).ct_eq(&given) & known).into()
    }

    /// Whether the table has this user.
    pub(crate) fn contains(&self, user: &str) -> bool {
        self.users.contains_key(user)
    }

    /// Names that probably are not the ones that were meant.
    pub(crate) fn doubtful(&self) -> Option<DoubtfulNames> {
        self.doubtful
    }

    /// Number of users.
    pub(crate) fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether the table has no users, so that nobody can authenticate.
    pub(crate) fn is_empty(&self) -> bool {
        self.users.is_empty()
    }
}

impl fmt::Debug for AuthTable {
    /// Leaves out names and hashes, to keep them out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthTable").field("users", &self.len()).finish_non_exhaustive()
    }
}

fn parse_line(line: &str) -> Result<(&str, Hash), AuthRule> {
    let (user, rest) = line.split_once(':').ok_or(AuthRule::Parts)?;
    let (scheme, digits) = rest.split_once(':').ok_or(AuthRule::Parts)?;
    check_user(user)?;
    if scheme != SCHEME {
        return Err(AuthRule::Scheme);
    }
    Ok((user, parse_hash(digits.as_bytes()).ok_or(AuthRule::Hash)?))
}

fn parse_hash(digits: &[u8]) -> Option<Hash> {
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let pairs: &[[u8; 2]; HASH_BYTES] = pairs.try_into().ok()?;
    let mut hash = [0; HASH_BYTES];
    for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(hash)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// Only errors need it, so the table does not store line numbers.
fn first_line_of(user: &str, text: &str) -> usize {
    let is_user = |line: &str| line.split_once(':').is_some_and(|(name, _)| name == user);
    1 + text.lines().position(is_user).expect("the user was seen before")
}

#[cfg(test)]
#[path = "users_tests.rs"]
mod tests;
