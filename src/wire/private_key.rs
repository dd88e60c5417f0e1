//! Names the kind of a private key in DER that TLS here cannot use. Verifies nothing, and reads
//! nothing secret.

/// What the kind of a key must be, for error messages.
pub(crate) const USABLE_KEYS: &str = "use RSA of 2048 to 4096 bits, ECDSA (P-256 or P-384) or \
                                      Ed25519; for trials, `ringest gen-cert` makes a pair";
/// Bits of an RSA key that can be used.
const RSA_BITS: (usize, usize) = (2048, 4096);

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OBJECT: u8 = 0x06;

/// Identifiers of algorithms (RFC 8017, 5480, 8410 and 3279).
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const UNUSABLE_ALGORITHMS: [(&[u8], &str); 5] = [
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a], "an RSA-PSS key"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x38, 0x04, 0x01], "a DSA key"),
    (&[0x2b, 0x65, 0x71], "an Ed448 key"),
    (&[0x2b, 0x65, 0x6e], "an X25519 key, which cannot sign"),
    (&[0x2b, 0x65, 0x6f], "an X448 key, which cannot sign"),
];
/// Identifiers of curves (RFC 5480; SEC 2).
const USABLE_CURVES: [&[u8]; 2] =
    [&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07], &[0x2b, 0x81, 0x04, 0x00, 0x22]];
const UNUSABLE_CURVES: [(&[u8], &str); 4] = [
    (&[0x2b, 0x81, 0x04, 0x00, 0x23], "an ECDSA key of the curve P-521"),
    (&[0x2b, 0x81, 0x04, 0x00, 0x21], "an ECDSA key of the curve P-224"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x01], "an ECDSA key of the curve P-192"),
    (&[0x2b, 0x81, 0x04, 0x00, 0x0a], "an ECDSA key of the curve secp256k1"),
];

/// What kind of key this is, such as `an RSA key of 1024 bits`, if it is one that cannot be used;
/// `None` if it can, or if that cannot be told. Takes PKCS #8, PKCS #1 and SEC 1.
pub(crate) fn unusable_kind(der: &[u8]) -> Option<String> {
    let (SEQUENCE, key, _) = element(der)? else { return None };
    let (INTEGER, _version, rest) = element(key)? else { return None };
    match element(rest)? {
        // PKCS #1: the modulus.
        (INTEGER, modulus, _) => unusable_rsa(modulus),
        // SEC 1: the number, and then the curve, in an element of its own.
        (OCTET_STRING, _, rest) => {
            let (_, parameters, _) = element(rest)?;
            unusable_curve(element(parameters)?.1)
        }
        // PKCS #8: the algorithm, and then a key of it.
        (SEQUENCE, algorithm, rest) => {
            let (OBJECT, algorithm, parameters) = element(algorithm)? else { return None };
            match algorithm {
                RSA => unusable_kind(element(rest)?.1),
                ECDSA => unusable_curve(element(parameters)?.1),
                ED25519 => None,
                other => named(&UNUSABLE_ALGORITHMS, other),
            }
        }
        _ => None,
    }
}

fn unusable_rsa(modulus: &[u8]) -> Option<String> {
    let zeros = modulus.iter().take_while(|&&byte| byte == 0).count();
    let number = &modulus[zeros..];
    let bits = 8 * number.len() - number.first()?.leading_zeros() as usize;
    let (min, max) = RSA_BITS;
    (!(min..=max).contains(&bits)).then(|| format!("an RSA key of {bits} bits"))
}

fn unusable_curve(curve: &[u8]) -> Option<String> {
    match USABLE_CURVES.contains(&curve) {
        true => None,
        false => named(&UNUSABLE_CURVES, curve)
            .or_else(|| Some("an ECDSA key of another curve".to_owned())),
    }
}

fn named(names: &[(&[u8], &str)], identifier: &[u8]) -> Option<String> {
    let (_, name) = names.iter().find(|(known, _)| *known == identifier)?;
    Some((*name).to_owned())
}

/// The tag and the content of the first element, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, length], rest) = der.split_first_chunk()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        // So many bytes with the length follow.
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(length - 0x80))?;
            (bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![tag];
        match content.len() {
            short @ 0..=0x7f => out.push(short as u8),
            long => out.extend([0x82, (long >> 8) as u8, long as u8]),
        }
        out.extend(content);
        out
    }

    /// A key as in PKCS #1, with a modulus of so many bits.
    fn rsa(bits: usize) -> Vec<u8> {
        let mut modulus = vec![0xff; bits.div_ceil(8)];
        modulus[0] >>= (8 - bits % 8) % 8;
        modulus.insert(0, 0);
        let parts = [der(INTEGER, &[0]), der(INTEGER, &modulus), der(INTEGER, &[1, 0, 1])];
        der(SEQUENCE, &parts.concat())
    }

    fn pkcs8(algorithm: &[u8], parameters: &[u8], key: &[u8]) -> Vec<u8> {
        let algorithm = der(SEQUENCE, &[&der(OBJECT, algorithm), parameters].concat());
        der(SEQUENCE, &[der(INTEGER, &[0]), algorithm, der(OCTET_STRING, key)].concat())
    }

    #[test]
    fn rsa_keys_are_judged_by_their_bits() {
        for (bits, usable) in
            [(512, false), (1024, false), (2047, false), (2048, true), (4096, true), (4097, false)]
        {
            let expected = (!usable).then(|| format!("an RSA key of {bits} bits"));
            assert_eq!(unusable_kind(&rsa(bits)), expected);
            assert_eq!(unusable_kind(&pkcs8(RSA, &[5, 0], &rsa(bits))), expected);
        }
    }

    #[test]
    fn other_keys_are_judged_by_their_algorithm_and_curve() {
        let of_curve = |curve: &[u8]| {
            let own = [der(INTEGER, &[1]), der(OCTET_STRING, &[7; 32])].concat();
            let sec1 = der(SEQUENCE, &[own, der(0xa0, &der(OBJECT, curve))].concat());
            let found = unusable_kind(&sec1);
            assert_eq!(unusable_kind(&pkcs8(ECDSA, &der(OBJECT, curve), &[])), found);
            found
        };
        USABLE_CURVES.iter().for_each(|curve| assert_eq!(of_curve(curve), None));
        let p521 = of_curve(&[0x2b, 0x81, 0x04, 0x00, 0x23]);
        assert_eq!(p521.as_deref(), Some("an ECDSA key of the curve P-521"));
        let brainpool = of_curve(&[0x2b, 0x24, 0x03, 0x03, 0x02, 0x08, 0x01, 0x01, 0x07]);
        assert_eq!(brainpool.as_deref(), Some("an ECDSA key of another curve"));
        assert_eq!(unusable_kind(&pkcs8(ED25519, &[], &[7; 34])), None);
        let ed448 = unusable_kind(&pkcs8(&[0x2b, 0x65, 0x71], &[], &[7; 59]));
        assert_eq!(ed448.as_deref(), Some("an Ed448 key"));
    }

    proptest! {
        #[test]
        fn damaged_keys_do_no_harm(
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            length in any::<prop::sample::Index>(),
        ) {
            let mut key = pkcs8(RSA, &[5, 0], &rsa(1024));
            let place = at.index(key.len());
            key[place] = byte;
            key.truncate(length.index(key.len() + 1));
            let _ = unusable_kind(&key);
        }
    }
}
