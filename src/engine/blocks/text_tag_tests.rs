//! Checks the values of padded fields and their tags against a loop over bytes.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

pub(in crate::engine) const PADDINGS: [Padding; 4] = [
    Padding::BOTH,
    Padding::NONE,
    Padding { nul: true, space: false },
    Padding { nul: false, space: true },
];

/// Trims byte by byte, as a reference.
pub(in crate::engine) fn trimmed(field: &[u8], padding: Padding) -> Vec<u8> {
    let mut value = field.to_vec();
    while value
        .last()
        .is_some_and(|&last| last == 0 && padding.nul || last == b' ' && padding.space)
    {
        value.pop();
    }
    value
}

proptest! {
    /// Length and tag depend only on the value, not on its padding, for fields of any width.
    #[test]
    fn a_tag_depends_on_the_value_alone(
        bytes in proptest::collection::vec(
            prop_oneof![Just(0u8), Just(b' '), any::<u8>()], 1..300),
        value_bytes in 0usize..300,
        padding in proptest::sample::select(&PADDINGS[..]),
        pads in proptest::collection::vec(any::<bool>(), 300),
    ) {
        let mut field = bytes;
        let width = field.len();
        let form = TextForm::of(Kind::Text { bytes: width, padding });
        let pad = |nul: bool| match (padding.nul, padding.space) {
            (true, true) => if nul { 0 } else { b' ' },
            (true, false) => 0,
            (_, true) => b' ',
            (false, false) => 7,
        };
        let kept = value_bytes.min(width);
        for (byte, &nul) in field[kept..].iter_mut().zip(&pads) {
            *byte = pad(nul);
        }
        let value = trimmed(&field, padding);
        prop_assert_eq!(form.value(&field), &value[..]);
        prop_assert_eq!(form.is_short(&field), value.len() <= HEAD_BYTES);
        with_block_bytes!(
            form.blocks(),
            N => {
                let first = field.first_chunk::<N>().unwrap();
                let is_short = form.is_short_of(first, field.last_chunk().unwrap());
                prop_assert_eq!(is_short, value.len() <= HEAD_BYTES);
            },
            prop_assert!(!(HEAD_BYTES..288).contains(&width) || padding != Padding::BOTH)
        );
        let mut head = [form.fill; HEAD_BYTES];
        let in_head = width.min(HEAD_BYTES);
        head[..in_head].copy_from_slice(&field[..in_head]);
        prop_assert_eq!(form.head_of(&field), words_of(&head));
        let maker = TagMaker::default();
        let tag = maker.tag_of(&form, &field);
        prop_assert_eq!(len_of(tag), value.len());
        let mut other = field.clone();
        other[value.len()..].fill(pad(false));
        prop_assert_eq!(tag, maker.tag_of(&form, &other));
        if value.len() <= HEAD_BYTES {
            let mut head = [0xff; HEAD_BYTES];
            head[..value.len()].copy_from_slice(&value);
            prop_assert!(form.short_value(&field).begins(&head));
        }
    }
}

/// Names as devices have them, and texts that differ in one bit: of 200,000 tags no two are equal,
/// and their leading bits are evenly distributed.
#[test]
fn tags_of_similar_texts_differ() {
    let maker = TagMaker::default();
    let form = TextForm::of(Kind::Text { bytes: 256, padding: Padding::BOTH });
    let mut tags = HashMap::new();
    let mut begin_alike = [0u32; 256];
    let texts = (0..200_000u32).map(|n| format!("north pump {n}").into_bytes());
    let bits = (0..32 * 8).map(|bit| {
        let mut text = vec![b'a'; 32];
        text[bit / 8] ^= 1 << (bit % 8);
        text
    });
    for text in texts.chain(bits) {
        let mut field = text.clone();
        field.resize(256, b' ');
        let tag = maker.tag_of(&form, &field);
        begin_alike[(tag >> 56) as usize] += 1;
        assert_eq!(tags.insert(tag, text.clone()), None, "{text:?}");
    }
    let (least, most) = (begin_alike.iter().min().unwrap(), begin_alike.iter().max().unwrap());
    assert!(*least > 600 && *most < 1000, "{least} to {most} of 782");
}
