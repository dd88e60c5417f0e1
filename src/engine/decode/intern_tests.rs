//! Checks the codes of fields against a plain map, and the limits on texts.

use super::*;
use crate::engine::blocks::block::{Block, BlockRecords, Rows};
use crate::engine::blocks::text_tag::tests::{PADDINGS, trimmed};
use crate::wire::records::packets::Run;
use crate::wire::schema::Kind;
use crate::wire::text::Padding;
use proptest::prelude::*;
use std::collections::HashMap;

const FIELD_BYTES: usize = 256;

fn interner(texts_limit: usize, bytes_limit: usize) -> Interner {
    let form = TextForm::of(Kind::Text { bytes: FIELD_BYTES, padding: Padding::BOTH });
    Interner::with_limits(form, texts_limit, bytes_limit)
}

fn field(value: &[u8], padding: &[u8]) -> [u8; FIELD_BYTES] {
    let mut field = [0; FIELD_BYTES];
    let mut filler = padding.iter().cycle();
    for (i, byte) in field.iter_mut().enumerate() {
        *byte = *value.get(i).or_else(|| filler.next()).unwrap();
    }
    field
}

/// The oracle: trims byte by byte and uses a `HashMap`.
struct NaiveInterner {
    padding: Padding,
    codes: HashMap<Vec<u8>, u32>,
}

impl NaiveInterner {
    fn new(padding: Padding) -> Self {
        NaiveInterner { padding, codes: HashMap::new() }
    }

    fn code(&mut self, field: &[u8]) -> u32 {
        let next = self.codes.len() as u32;
        *self.codes.entry(trimmed(field, self.padding)).or_insert(next)
    }
}

#[test]
fn the_code_does_not_depend_on_the_padding() {
    let mut interner = interner(10, 1000);
    let spaces = interner.code(&field(b"pump north", b" ")).unwrap();
    for padding in [&b"\0"[..], b"\0 ", b" \0", b"\0\0\0\0\0 "] {
        assert_eq!(interner.code(&field(b"pump north", padding)), Ok(spaces));
    }
    assert_ne!(interner.code(&field(b"pump\0north", b" ")), Ok(spaces));
    assert_ne!(interner.code(&field(b"pump  north", b" ")), Ok(spaces));
    let empty = interner.code(&field(b"", b" ")).unwrap();
    assert_eq!(interner.code(&field(b"", b"\0")), Ok(empty));
    let texts = interner.into_texts();
    assert_eq!(texts.get(spaces as usize), b"pump north");
    assert_eq!(texts.get(empty as usize), b"");
    assert_eq!(texts.len(), 4);
}

#[test]
fn texts_taken_in_pieces_add_up_to_all_texts() {
    let mut interner = interner(10, 1000);
    let (mut pieces, mut taken) = (Texts::default(), 0);
    for values in [&[&b"a"[..], b""][..], &[], &[b"bcd", b"a", b"e"]] {
        for value in values {
            let _ = interner.code(&field(value, b" "));
        }
        pieces.append(&interner.texts().since(taken));
        taken = interner.texts().len();
        assert_eq!(pieces, *interner.texts());
    }
    assert_eq!((pieces.len(), pieces.get(2)), (4, &b"bcd"[..]));
}

#[test]
fn the_bytes_limit_is_exact() {
    let mut interner = interner(10, 256 + 3);
    assert_eq!(interner.code(&[b'x'; FIELD_BYTES]), Ok(0));
    assert_eq!(interner.code(&field(b"abcd", b" ")), Err(TextLimit::Bytes { limit: 259 }));
    assert_eq!(interner.code(&field(b"abc", b" ")), Ok(1));
    assert_eq!(interner.code(&field(b"d", b" ")), Err(TextLimit::Bytes { limit: 259 }));
    // Known values and the empty value cost nothing.
    assert_eq!(interner.code(&field(b"abc", b"\0")), Ok(1));
    assert_eq!(interner.code(&field(b"", b"\0")), Ok(2));
}

#[test]
fn the_texts_limit_is_exact() {
    let mut interner = interner(2, 1000);
    assert_eq!(interner.code(&field(b"a", b" ")), Ok(0));
    assert_eq!(interner.code(&field(b"b", b" ")), Ok(1));
    assert_eq!(interner.code(&field(b"c", b" ")), Err(TextLimit::Groups { limit: 2 }));
    assert_eq!(interner.code(&field(b"b", b"\0")), Ok(1));
}

/// More values than the cache holds, many with the same first 32 bytes, in an order in which they
/// evict one another.
#[test]
fn many_values_agree_with_the_oracle() {
    let mut interner = interner(100_000, 64 << 20);
    let mut naive = NaiveInterner::new(Padding::BOTH);
    for round in 0..3 {
        for i in 0..5_000u32 {
            let value = match i % 3 {
                0 => format!("{:>40}", i),
                1 => format!("{i}"),
                _ => format!("{i:x} {}", "x".repeat(i as usize % 250)),
            };
            let value = &value.as_bytes()[..value.len().min(FIELD_BYTES)];
            let field = field(value, if round == 1 { b"\0" } else { b" " });
            assert_eq!(interner.code(&field), Ok(naive.code(&field)));
        }
    }
    let texts = interner.into_texts();
    assert_eq!(texts.len(), naive.codes.len());
    for (value, &code) in &naive.codes {
        assert_eq!(texts.get(code as usize), &value[..]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Fields of any width and padding, through the cache and past it.
    #[test]
    fn any_fields_agree_with_the_oracle(
        values in proptest::collection::vec(
            // A third is NUL and a third is a space.
            proptest::collection::vec(0..768_u16, 0..120),
            1..150,
        ),
        width in prop_oneof![1usize..80, 1usize..340],
        padding in proptest::sample::select(&PADDINGS[..]),
        fill in prop_oneof![Just(0u8), Just(b' ')],
        past_cache in any::<bool>(),
    ) {
        let form = TextForm::of(Kind::Text { bytes: width, padding });
        let mut interner = Interner::with_limits(form, 1000, 1 << 20);
        interner.past_cache = if past_cache { PAST_CACHE } else { 0 };
        let mut naive = NaiveInterner::new(padding);
        let fields: Vec<Vec<u8>> = values
            .into_iter()
            .map(|value| {
                let byte = |number| match number {
                    0..256 => 0,
                    256..512 => b' ',
                    _ => (number - 512) as u8,
                };
                let mut value: Vec<u8> = value.into_iter().map(byte).collect();
                value.resize(width, fill);
                value
            })
            .collect();
        let bytes = fields.concat();
        let run = [Run { records: fields.len(), ..Run::default() }];
        let mut records = BlockRecords::of(&run, &bytes, width);
        let (mut block, mut codes) = (Block::new(), Vec::new());
        while block.fill(&mut records) {
            let mut some = vec![0; block.len()];
            let rows = Rows { from: 0, to: block.len() };
            let coded = interner.code_fields(block.texts(rows, 0, width), &mut some);
            prop_assert_eq!(coded, (block.len(), None));
            codes.extend(some);
        }
        for (field, &code) in fields.iter().zip(&codes) {
            prop_assert_eq!(code, naive.code(field));
            prop_assert_eq!(interner.texts().get(code as usize), &trimmed(field, padding)[..]);
        }
    }
}
