//! Unpacks the keys of groups into columns and sorts the groups by them.

use super::column_types::dtype_of;
use crate::engine::decode::texts::Texts;
use crate::engine::groups::plan::{KeyBits, Plan};
use crate::wire::schema::columns::ColumnType;
use crate::wire::schema::{Field, Kind};
use crate::wire::text::ShownText;
use polars::prelude::*;
use std::fmt::Write;

/// Replaces the packed keys of merged partials with one column per key, and sorts by them.
pub(super) fn with_keys(
    plan: &Plan,
    partials: DataFrame,
    texts: &[Texts],
) -> PolarsResult<DataFrame> {
    let order = order_of(plan, &partials, texts)?;
    let sorted = partials.take(&order)?;
    drop(partials);
    let mut columns = Vec::with_capacity(plan.key_bits().len() + sorted.width());
    let mut texts = texts.iter();
    for (field, bits) in plan.schema().keys().zip(plan.key_bits()) {
        let values = values_of(&sorted, bits)?;
        let texts = if field.kind.is_text() { texts.next() } else { None };
        columns.push(match texts {
            Some(texts) => text_column(field, &values, texts)?,
            None => number_column(field, bits, &values)?,
        });
    }
    let words = plan.key_words();
    columns.extend(sorted.columns()[words..].iter().cloned());
    DataFrame::new_infer_height(columns)
}

fn word(partials: &DataFrame, word: usize) -> PolarsResult<&UInt64Chunked> {
    partials.column(&key_name(word))?.u64()
}

/// The value of a key's bits in each row.
fn values_of(partials: &DataFrame, bits: &KeyBits) -> PolarsResult<Vec<u64>> {
    let words = word(partials, bits.word)?.into_no_null_iter();
    Ok(words.map(|word| bits.of(word)).collect())
}

/// The row numbers in the order of the keys.
fn order_of(plan: &Plan, partials: &DataFrame, texts: &[Texts]) -> PolarsResult<IdxCa> {
    let mut words = Vec::with_capacity(plan.key_words());
    for number in 0..plan.key_words() {
        words.push(word(partials, number)?.into_no_null_iter().collect::<Vec<u64>>());
    }
    for (text, texts) in plan.texts().iter().zip(texts) {
        let rank = ranks(texts);
        for word in &mut words[text.bits.word] {
            *word = text.bits.replace(*word, u64::from(rank[text.bits.of(*word) as usize]));
        }
    }
    let rows = 0..partials.height() as IdxSize;
    Ok(match &words[..] {
        [word] => {
            let mut order: Vec<(u64, IdxSize)> = word.iter().copied().zip(rows).collect();
            order.sort_unstable();
            order.into_iter().map(|(_, row)| Some(row)).collect()
        }
        words => {
            let mut order: Vec<IdxSize> = rows.collect();
            let key = |row: IdxSize| words.iter().map(move |word| word[row as usize]);
            order.sort_unstable_by(|&left, &right| key(left).cmp(key(right)));
            order.into_iter().map(Some).collect()
        }
    })
}

/// The rank of each code's text when all texts are sorted by their bytes.
fn ranks(texts: &Texts) -> Vec<u32> {
    let mut codes: Vec<u32> = (0..texts.len() as u32).collect();
    codes.sort_unstable_by_key(|&code| texts.get(code as usize));
    let mut ranks = vec![0; codes.len()];
    for (rank, code) in codes.into_iter().enumerate() {
        ranks[code as usize] = rank as u32;
    }
    ranks
}

fn number_column(field: &Field, bits: &KeyBits, values: &[u64]) -> PolarsResult<Column> {
    let name = field.name.as_str().into();
    let column = if field.kind.is_signed() {
        // The sign bit was flipped so that words compare by value.
        let unused = u64::BITS - bits.bits;
        let turn = 1 << (bits.bits - 1);
        let number = |&value: &u64| ((value ^ turn) << unused) as i64 >> unused;
        Int64Chunked::from_vec(name, values.iter().map(number).collect()).into_column()
    } else {
        UInt64Chunked::from_vec(name, values.to_vec()).into_column()
    };
    column.strict_cast(&dtype_of(ColumnType::of_field(field.kind)))
}

/// Texts as results show them, bytes as they are. The rows refer to one copy of the distinct
/// values, so that a long value takes memory once instead of once per group.
fn text_column(field: &Field, codes: &[u64], texts: &Texts) -> PolarsResult<Column> {
    let name = PlSmallStr::from_str(&field.name);
    let distinct = match field.kind {
        Kind::Bytes { .. } => {
            let values = (0..texts.len()).map(|code| texts.get(code));
            BinaryChunked::from_iter_values(name, values).into_column()
        }
        _ => {
            let mut distinct = StringChunkedBuilder::new(name, texts.len());
            let mut shown = String::new();
            for code in 0..texts.len() {
                shown.clear();
                write!(shown, "{}", ShownText(texts.get(code), field.encoding))
                    .expect("writing to a string cannot fail");
                distinct.append_value(&shown);
            }
            distinct.finish().into_column()
        }
    };
    let codes: IdxCa = codes.iter().map(|&code| Some(code as IdxSize)).collect();
    distinct.take(&codes)
}

/// The column name of a key's word. No field can have such a name.
pub(crate) fn key_name(word: usize) -> String {
    format!("key.{word}")
}

pub(crate) fn key_names(plan: &Plan) -> impl Iterator<Item = String> {
    (0..plan.key_words()).map(key_name)
}
