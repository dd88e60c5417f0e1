//! Generates user tokens and session ids from the system's random bytes. `users` stores and checks
//! them.

use super::users::{AuthRule, SCHEME, check_user, hash};
use crate::config::{SESSION_ID_BYTES, TOKEN_BYTES};
use std::fmt::Write;

/// The system provides no random bytes.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error(
    "cannot get random bytes from the system: {cause}; getrandom(2) must be allowed, also by \
     seccomp"
)]
pub(crate) struct NoRandomness {
    cause: getrandom::Error,
}

/// A token: 64 lowercase hexadecimal digits. The client sends these digits; the server stores their
/// SHA-256.
///
/// # Errors
/// [`NoRandomness`] if the system provides no random bytes.
pub(crate) fn new_token() -> Result<String, NoRandomness> {
    random_digits::<TOKEN_BYTES>()
}

/// A session id: 32 lowercase hexadecimal digits.
///
/// # Errors
/// [`NoRandomness`] if the system provides no random bytes.
pub(crate) fn session_id() -> Result<String, NoRandomness> {
    random_digits::<SESSION_ID_BYTES>()
}

/// The line of an auth file that accepts `user` with `token`, without a line end.
///
/// # Errors
/// [`AuthRule`] if `user` is not a valid name.
pub(crate) fn line_for(user: &str, token: &str) -> Result<String, AuthRule> {
    check_user(user)?;
    Ok(format!("{user}:{SCHEME}:{}", digits(&hash(token.as_bytes()))))
}

fn random_digits<const BYTES: usize>() -> Result<String, NoRandomness> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).map_err(|cause| NoRandomness { cause })?;
    Ok(digits(&bytes))
}

fn digits(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::messages::users::AuthTable;
    use std::collections::HashSet;

    fn is_lowercase_hex(text: &str) -> bool {
        text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    }

    #[test]
    fn tokens_and_ids_have_the_right_length_and_differ() {
        let tokens: HashSet<_> = (0..100).map(|_| new_token().unwrap()).collect();
        let ids: HashSet<_> = (0..100).map(|_| session_id().unwrap()).collect();
        assert_eq!((tokens.len(), ids.len()), (100, 100));
        assert!(tokens.iter().all(|token| token.len() == 64 && is_lowercase_hex(token)));
        assert!(ids.iter().all(|id| id.len() == 32 && is_lowercase_hex(id)));
    }

    #[test]
    fn the_line_for_a_token_accepts_its_user() {
        let token = new_token().unwrap();
        let table = AuthTable::parse(&line_for("ann", &token).unwrap()).unwrap();
        assert!(table.verify("ann", token.as_bytes()));
        assert!(!table.verify("ann", new_token().unwrap().as_bytes()));
    }

    #[test]
    fn the_hash_is_sha256() {
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(line_for("ann", "abc").unwrap(), format!("ann:sha256:{hash}"));
    }

    #[test]
    fn invalid_names_get_no_line() {
        for user in ["", "a:b", "a\nb", "#a", &"a".repeat(256)] {
            assert!(line_for(user, "abc").is_err(), "{user:?}");
        }
    }
}
