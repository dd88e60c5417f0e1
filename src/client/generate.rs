//! Records of a seeded stream and the groups that they must give: sends nothing.

use super::expected::{Expected, ExpectedGroup};
use std::io::Write;

const RECORD_BYTES: usize = 267;
const TEXT_OFFSET: usize = 11;
const TEXT_BYTES: usize = 256;

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

/// What a stream consists of. Two streams of the same description are the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamSpec {
    /// Data records.
    pub records: u64,
    /// Records in each packet but the last.
    pub packet_records: usize,
    /// Padding of the texts.
    pub padding: Padding,
    /// Seed of everything random.
    pub seed: u64,
    /// Distinct (A, E). All of them occur where there are as many records.
    pub groups: u32,
}

/// Writes the packets of a stream, one after the other, the end record last.
pub struct Packets {
    spec: StreamSpec,
    random: fastrand::Rng,
    records_made: u64,
    ended: bool,
    tally: Option<Vec<ExpectedGroup>>,
}

impl Packets {
    /// The packets of `spec`; with `tally`, what they add up to is kept.
    pub fn new(spec: StreamSpec, tally: bool) -> Self {
        let groups = u64::from(spec.groups).min(spec.records) as u32;
        let tally = tally.then(|| (0..groups).map(new_group).collect());
        let random = fastrand::Rng::with_seed(spec.seed);
        Packets { spec, random, records_made: 0, ended: false, tally }
    }

    /// Appends the next packet to `out`. Returns how many data records it has, `None` after the
    /// last packet.
    pub fn write_next(&mut self, out: &mut Vec<u8>) -> Option<usize> {
        if self.ended {
            return None;
        }
        let left = self.spec.records - self.records_made;
        // The end record is the last of the last packet, so that one has room for it.
        let data = left.min(self.spec.packet_records as u64) as usize;
        self.ended = data < self.spec.packet_records;
        let length = 4 + (data + usize::from(self.ended)) * RECORD_BYTES;
        out.extend((length as u32).to_be_bytes());
        for _ in 0..data {
            self.write_record(out);
        }
        if self.ended {
            out.resize(out.len() + RECORD_BYTES, 0);
        }
        Some(data)
    }

    fn write_record(&mut self, out: &mut Vec<u8>) {
        let number = self.records_made;
        self.records_made += 1;
        let group = if number < u64::from(self.spec.groups) {
            number as u32
        } else {
            self.random.u32(..self.spec.groups)
        };
        let (b, d) = (self.random.u16(..), self.random.i8(..));
        // The range of the field's senders: a sum in f32 overflows after a few records.
        let c = self.random.f32() * 3.4e38;
        out.extend(a_of(group).to_be_bytes());
        out.extend(b.to_be_bytes());
        out.extend(c.to_be_bytes());
        out.extend(d.to_be_bytes());
        self.write_text(group, out);
        if let Some(tally) = &mut self.tally {
            tally[group as usize].add(b, c, d);
        }
    }

    fn write_text(&mut self, group: u32, out: &mut Vec<u8>) {
        let end = out.len() + TEXT_BYTES;
        write_text_of(group, out);
        let nul_bytes = match self.spec.padding {
            Padding::Space => 0,
            Padding::Nul => TEXT_BYTES,
            Padding::Mixed => self.random.usize(..TEXT_BYTES),
        };
        let nul_end = (out.len() + nul_bytes).min(end);
        out.resize(nul_end, 0x00);
        out.resize(end, 0x20);
    }

    /// What the records written so far add up to, if that was asked for.
    pub fn expected(&self) -> Option<Expected> {
        let tally = self.tally.as_ref()?;
        let seen = tally.iter().filter(|group| group.count > 0).cloned();
        Some(Expected::new(self.records_made, seen.collect()))
    }
}

const _: () = assert!(TEXT_OFFSET + TEXT_BYTES == RECORD_BYTES);

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

fn new_group(group: u32) -> ExpectedGroup {
    let mut text = Vec::new();
    write_text_of(group, &mut text);
    ExpectedGroup::new(a_of(group), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(records: u64, packet_records: usize) -> StreamSpec {
        StreamSpec { records, packet_records, padding: Padding::Mixed, seed: 7, groups: 125 }
    }

    #[test]
    fn packets_are_as_the_protocol_says() {
        for (records, packet_records, sizes) in [
            (0, 4, vec![271]),
            (3, 4, vec![1072]),
            (4, 4, vec![1072, 271]),
            (5, 4, vec![1072, 538]),
            (2, 1, vec![271, 271, 271]),
        ] {
            let mut packets = Packets::new(spec(records, packet_records), false);
            let mut out = Vec::new();
            let mut found = Vec::new();
            let mut data = 0;
            while let Some(in_packet) = packets.write_next(&mut out) {
                assert_eq!(out[..4], (out.len() as u32).to_be_bytes());
                found.push(out.len());
                data += in_packet;
                if found.len() == sizes.len() {
                    assert_eq!(out[out.len() - RECORD_BYTES..], [0; RECORD_BYTES]);
                }
                out.clear();
            }
            assert_eq!((found, data as u64), (sizes, records));
        }
    }

    #[test]
    fn a_seed_gives_the_same_stream_and_every_group() {
        let stream = |seed| {
            let mut packets = Packets::new(StreamSpec { seed, ..spec(1000, 4) }, true);
            let mut out = Vec::new();
            while packets.write_next(&mut out).is_some() {}
            (out, packets.expected().unwrap())
        };
        assert_eq!(stream(1).0, stream(1).0);
        assert_ne!(stream(1).0, stream(2).0);
        assert_eq!(stream(1).1.groups().len(), 125);
    }
}
