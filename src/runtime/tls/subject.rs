//! Whose a certificate is, for people: a name from its subject. Judges nothing.

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

/// What names a subject, the best first, as it is encoded: common name, organizational unit,
/// organization.
const NAMES: [[u8; 5]; 3] = [[6, 3, 85, 4, 3], [6, 3, 85, 4, 11], [6, 3, 85, 4, 10]];
/// Tags of texts in UTF-8 or in subsets of it: UTF8String, PrintableString, IA5String.
const TEXTS: [u8; 3] = [0x0C, 0x13, 0x16];

/// The name of the subject; `None` if it has none that can be read.
pub(super) fn name(certificate: &CertificateDer<'static>) -> Option<String> {
    // Only because this finds the subject.
    let mut store = RootCertStore::empty();
    store.add(certificate.clone()).ok()?;
    name_in(store.roots.first()?.subject.as_ref())
}

fn name_in(subject: &[u8]) -> Option<String> {
    NAMES.iter().find_map(|kind| {
        let at = subject.windows(kind.len()).position(|bytes| bytes == kind)?;
        let [tag, bytes, rest @ ..] = &subject[at + kind.len()..] else { return None };
        // Lengths from 128 on have another form; no name is that long.
        let text = rest.get(..usize::from(*bytes)).filter(|_| *bytes < 128)?;
        let text = TEXTS.contains(tag).then(|| str::from_utf8(text).ok())??;
        Some(text.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A set with one attribute.
    fn attribute(kind: [u8; 5], tag: u8, text: &[u8]) -> Vec<u8> {
        let inner = [&kind[..], &[tag, text.len() as u8], text].concat();
        let sequence = [&[0x30, inner.len() as u8][..], &inner].concat();
        [&[0x31, sequence.len() as u8][..], &sequence].concat()
    }

    #[test]
    fn a_subject_is_called_by_its_common_name_or_else_by_what_it_belongs_to() {
        let [common, unit, organization] = NAMES;
        let all = [
            attribute(organization, 0x13, b"Example"),
            attribute(unit, 0x13, b"Unit"),
            attribute(common, 0x0C, "Zürich CA".as_bytes()),
        ];
        assert_eq!(name_in(&all.concat()).as_deref(), Some("Zürich CA"));
        assert_eq!(name_in(&all[..2].concat()).as_deref(), Some("Unit"));
        assert_eq!(name_in(&all[0]).as_deref(), Some("Example"));
        assert_eq!(name_in(b""), None);
    }

    #[test]
    fn what_cannot_be_read_is_no_name() {
        let [common, unit, _] = NAMES;
        assert_eq!(name_in(&attribute(common, 0x0C, b"\xff")), None);
        // Two bytes for each letter.
        assert_eq!(name_in(&attribute(common, 0x1E, b"\0a\0b")), None);
        let whole = attribute(common, 0x0C, b"abc");
        (0..whole.len()).for_each(|end| assert_eq!(name_in(&whole[..end]), None));
        let both = [attribute(common, 0x1E, b"\0a"), attribute(unit, 0x0C, b"u")].concat();
        assert_eq!(name_in(&both).as_deref(), Some("u"));
    }
}
