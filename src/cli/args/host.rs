//! Hosts on the command line: names, addresses, and IPv6 addresses in brackets as in URLs.

use std::net::Ipv6Addr;

/// Reads a host. The brackets of `[::1]` are taken off, since they belong to the notation with a
/// port.
///
/// # Errors
/// If the brackets hold something else, with an example.
pub(crate) fn host(text: &str) -> Result<String, String> {
    let Some(inner) = text.strip_prefix('[') else { return Ok(text.to_owned()) };
    let inner = inner.strip_suffix(']').unwrap_or_default();
    // A link-local address may name its interface: fe80::1%eth0.
    let address = inner.split('%').next().unwrap_or_default();
    match address.parse::<Ipv6Addr>() {
        Ok(_) => Ok(inner.to_owned()),
        Err(_) => Err("only an IPv6 address may be in brackets, e.g. [::1]".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_of_addresses_are_taken_off() {
        for (text, expected) in [
            ("[::1]", "::1"),
            ("[fe80::1%eth0]", "fe80::1%eth0"),
            ("::", "::"),
            ("127.0.0.1", "127.0.0.1"),
            ("sensors.example", "sensors.example"),
        ] {
            assert_eq!(host(text).as_deref(), Ok(expected));
        }
        for text in ["[", "[]", "[::1", "[127.0.0.1]", "[sensors]", "[::1]:9000"] {
            assert!(host(text).unwrap_err().contains("e.g. [::1]"), "{text}");
        }
    }
}
