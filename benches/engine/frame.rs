//! Benchmarks message frames: encoding, decoding, and the checksum that is part of both.

use criterion::{BenchmarkId, Criterion, Throughput};
use ringest::protocol::frame::{self, FrameType, PAYLOAD_BYTES_MAX};
use std::hint::black_box;

/// The longest payload is a byte short of 64 KiB.
const PAYLOADS: [(&str, usize); 3] = [("16B", 16), ("1KiB", 1024), ("64KiB", PAYLOAD_BYTES_MAX)];

/// Benchmarks encoding, decoding and checksum for small, usual and the longest payloads.
pub fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    for (name, bytes) in PAYLOADS {
        let payload: Vec<u8> = (0..bytes).map(|i| (i * 7) as u8).collect();
        let mut encoded = Vec::new();
        frame::encode(FrameType::Echo, &[&payload], &mut encoded);
        check(&payload, &encoded);
        group.throughput(Throughput::ElementsAndBytes { elements: 1, bytes: encoded.len() as u64 });
        let mut out = Vec::with_capacity(encoded.len());
        group.bench_function(BenchmarkId::new("encode", name), |bencher| {
            bencher.iter(|| {
                out.clear();
                frame::encode(FrameType::Echo, &[black_box(&payload)], &mut out);
                black_box(&out);
            });
        });
        group.bench_function(BenchmarkId::new("decode", name), |bencher| {
            bencher.iter(|| frame::decode(black_box(&encoded)));
        });
        group.bench_function(BenchmarkId::new("crc", name), |bencher| {
            bencher.iter(|| crc32fast::hash(black_box(&encoded)));
        });
    }
    group.finish();
}

/// Compares a frame with the bytes that the protocol prescribes, and decodes it again.
fn check(payload: &[u8], encoded: &[u8]) {
    let length = (payload.len() as u16).to_be_bytes();
    let mut expected = vec![0xde, 0xad, 0xbe, 0xef, 1, 3, length[0], length[1]];
    expected.extend_from_slice(payload);
    let crc = crc_bit_by_bit(&expected);
    expected.extend(crc.to_be_bytes());
    assert_eq!(encoded, expected);
    let decoded = frame::decode(encoded).expect("it is valid").expect("it is complete");
    assert_eq!((decoded.kind, decoded.payload), (FrameType::Echo, payload));
}

/// CRC-32 of IEEE 802.3, straight from its definition.
fn crc_bit_by_bit(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| match crc & 1 {
            1 => crc >> 1 ^ 0xedb8_8320,
            _ => crc >> 1,
        })
    })
}
