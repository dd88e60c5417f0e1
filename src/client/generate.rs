//! Records of a seeded stream: what it consists of, and the bytes of each. Keeps none and sends
//! none.

use super::expected::ExpectedGroup;
use fastrand::Rng;
use std::io::Write;

/// Bytes of a record: A 4, B 2, C 4, D 1, E 256. Written down a second time on purpose.
pub(super) const RECORD_BYTES: usize = 267;
const B_OFFSET: usize = 4;
const C_OFFSET: usize = 6;
const D_OFFSET: usize = 10;
const TEXT_OFFSET: usize = 11;
const TEXT_BYTES: usize = 256;

const _: () = assert!(TEXT_OFFSET + TEXT_BYTES == RECORD_BYTES);

/// How texts are padded to their 256 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// 0x20 only, as senders in the field do.
    Space,
    /// 0x00 only.
    Nul,
    /// 0x00 and then 0x20, in shares that change from record to record.
    Mixed,
}

/// What a stream consists of. Two streams of the same description and number are the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamSpec {
    /// Data records.
    pub records: u64,
    /// Records in each packet but the last, 1 or more.
    pub packet_records: usize,
    /// Padding of the texts.
    pub padding: Padding,
    /// Seed of everything random.
    pub seed: u64,
    /// Distinct (A, E), 1 or more. All of them occur where there are as many records.
    pub groups: u32,
}

impl StreamSpec {
    /// The groups that a stream can have at all.
    pub(super) fn groups_used(&self) -> u32 {
        u64::from(self.groups).min(self.records) as u32
    }
}

/// The groups of `records` records: all `groups` once, shuffled, and then any of them. So no
/// pattern tells a receiver which group comes next, and none is missing.
///
/// # Panics
/// Where there are fewer records than groups.
pub(super) fn shuffled_groups(random: &mut Rng, groups: u32, records: usize) -> Vec<u32> {
    assert!(records >= groups as usize, "each group occurs");
    let mut order = Vec::with_capacity(records);
    order.extend(0..groups);
    random.shuffle(&mut order);
    order.resize_with(records, || random.u32(..groups));
    order
}

/// Appends a record of a group to `out`.
pub(super) fn write_record(random: &mut Rng, padding: Padding, group: u32, out: &mut Vec<u8>) {
    let (b, d) = (random.u16(..), random.i8(..));
    // The range of the field's senders: a sum in f32 overflows after a few records.
    let c = random.f32() * 3.4e38;
    out.extend(a_of(group).to_be_bytes());
    out.extend(b.to_be_bytes());
    out.extend(c.to_be_bytes());
    out.extend(d.to_be_bytes());
    let end = out.len() + TEXT_BYTES;
    write_text_of(group, out);
    let nul_bytes = match padding {
        Padding::Space => 0,
        Padding::Nul => TEXT_BYTES,
        Padding::Mixed => random.usize(..TEXT_BYTES),
    };
    let nul_end = (out.len() + nul_bytes).min(end);
    out.resize(nul_end, 0x00);
    out.resize(end, 0x20);
}

/// B, C and D of a record that [`write_record`] made.
///
/// # Panics
/// Where it is shorter than a record.
pub(super) fn read_values(record: &[u8]) -> (u16, f32, i8) {
    let b = [record[B_OFFSET], record[B_OFFSET + 1]];
    let c = record[C_OFFSET..D_OFFSET].try_into().expect("four bytes");
    (u16::from_be_bytes(b), f32::from_be_bytes(c), record[D_OFFSET] as i8)
}

/// A group without a record, by its number.
pub(super) fn new_group(group: u32) -> ExpectedGroup {
    let mut text = Vec::new();
    write_text_of(group, &mut text);
    ExpectedGroup::new(a_of(group), text)
}

fn a_of(group: u32) -> u32 {
    const VALUES: [u32; 5] = [1, 42, 100, 200, 255];
    VALUES[group as usize % VALUES.len()]
}

/// Two words of five; with a number behind them once those 25 are used up.
fn write_text_of(group: u32, out: &mut Vec<u8>) {
    const WORDS: [&str; 5] = ["north", "pump", "valve", "sensor", "meter"];
    let text = group as usize / 5;
    let (first, second, number) = (WORDS[text % 5], WORDS[text / 5 % 5], text / 25);
    let written = match number {
        0 => write!(out, "{first} {second}"),
        _ => write!(out, "{first} {second} {number}"),
    };
    written.expect("a vector takes what is written");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_group_comes_once_before_any_comes_twice() {
        let order = shuffled_groups(&mut Rng::with_seed(3), 1000, 5000);
        assert_eq!(order[..1000].iter().collect::<BTreeSet<_>>().len(), 1000);
        assert!(order.iter().all(|&group| group < 1000));
        // Neither ascending nor with one distance: 1000 shuffled numbers have about 500 ascents.
        let ascents = |order: &[u32]| order.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((400..600).contains(&ascents(&order[..1000])));
        assert_ne!(order[..1000], order[1000..2000]);
        assert!(shuffled_groups(&mut Rng::with_seed(3), 0, 0).is_empty());
    }

    #[test]
    fn a_record_has_its_fields_where_the_protocol_says() {
        for padding in [Padding::Space, Padding::Nul, Padding::Mixed] {
            let mut record = Vec::new();
            write_record(&mut Rng::with_seed(9), padding, 131, &mut record);
            assert_eq!(record.len(), RECORD_BYTES);
            assert_eq!(record[..4], 42_u32.to_be_bytes());
            // Group 131 is text 26: the second pair of words, the second time.
            assert!(record[TEXT_OFFSET..].starts_with(b"pump north 1"));
            let pads = &record[TEXT_OFFSET + b"pump north 1".len()..];
            let nul_bytes = pads.iter().take_while(|&&byte| byte == 0).count();
            assert!(pads[nul_bytes..].iter().all(|&byte| byte == b' '));
            match padding {
                Padding::Space => assert_eq!(nul_bytes, 0),
                Padding::Nul => assert_eq!(nul_bytes, pads.len()),
                Padding::Mixed => {}
            }
            let mut again = Rng::with_seed(9);
            let (b, d) = (again.u16(..), again.i8(..));
            assert_eq!(read_values(&record), (b, again.f32() * 3.4e38, d));
        }
    }
}
