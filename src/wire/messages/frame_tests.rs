//! Tests of frames, against a bitwise CRC that shares no code with the one in use.

use super::*;
use proptest::prelude::*;

/// The CRC by its definition, bit by bit, for a reflected polynomial.
fn crc_by_bits(bytes: &[u8], polynomial: u32) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ polynomial } else { crc >> 1 };
        }
    }
    !crc
}

const IEEE: u32 = 0xEDB8_8320;
const CASTAGNOLI: u32 = 0x82F6_3B78;

fn frame_of(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xDE, 0xAD, 0xBE, 0xEF, 1, kind];
    bytes.extend((payload.len() as u16).to_be_bytes());
    bytes.extend(payload);
    bytes.extend(crc_by_bits(&bytes, IEEE).to_be_bytes());
    bytes
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digit = |i: usize| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digit).collect()
}

#[test]
fn the_crc_has_the_standard_check_value() {
    assert_eq!(crc32fast::hash(b"123456789"), 0xCBF4_3926);
    assert_eq!(crc_by_bits(b"123456789", IEEE), 0xCBF4_3926);
}

#[test]
fn golden_frames() {
    let ms = 1_700_000_000_000u64.to_be_bytes();
    let cases: [(&str, FrameType, &[u8]); 12] = [
        ("deadbeef010100080000018bcfe56800c8bc9ec8", FrameType::Ping, &ms),
        ("deadbeef010200080000018bcfe56800515ef8c9", FrameType::Pong, &ms),
        (
            "deadbeef0103000e48656c6c6f2c20536572766572211a24c8fb",
            FrameType::Echo,
            b"Hello, Server!",
        ),
        (
            "deadbeef0104000e48656c6c6f2c20536572766572213ab6b4b0",
            FrameType::EchoReply,
            b"Hello, Server!",
        ),
        ("deadbeef010300006077f2de", FrameType::Echo, b""),
        ("deadbeef010500026869185f10b4", FrameType::Broadcast, b"hi"),
        ("deadbeef0106000c05616c6963657333637265741107bcdb", FrameType::Auth, b"\x05alices3cret"),
        ("deadbeef01070001002570c1ba", FrameType::AuthReply, b"\0"),
        ("deadbeef0108000b000000077061796c6f61648d1103c3", FrameType::Data, b"\0\0\0\x07payload"),
        ("deadbeef0109000400000007b3d7544c", FrameType::DataAck, b"\0\0\0\x07"),
        ("deadbeef010a00006fa6c951", FrameType::Close, b""),
        (
            "deadbeef01ff00160543524320636865636b73756d206d69736d6174636845856623",
            FrameType::Error,
            b"\x05CRC checksum mismatch",
        ),
    ];
    for (hex, kind, payload) in cases {
        let bytes = bytes_of(hex);
        let frame = decode(&bytes).unwrap().unwrap();
        assert_eq!((frame.kind, frame.payload), (kind, payload));
        let mut out = Vec::new();
        encode(kind, &[payload], &mut out);
        assert_eq!(out, bytes, "{}", kind.name());
    }
}

#[test]
fn every_prefix_needs_more_bytes() {
    let bytes = frame_of(3, b"Hello, Server!");
    for cut in 0..bytes.len() {
        assert_eq!(decode(&bytes[..cut]), Ok(None), "cut at {cut}");
    }
}

#[test]
fn what_follows_a_frame_is_left_alone() {
    let bytes = [frame_of(1, &[7; 8]), vec![0; 5]].concat();
    assert_eq!(decode(&bytes).unwrap().unwrap().bytes.len(), 20);
}

/// Each wrong byte of a header is reported as soon as it arrives.
#[test]
fn a_header_is_rejected_at_its_first_wrong_byte() {
    for bit in 0..40 {
        let mut bytes = frame_of(1, &[7; 8]);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let error = decode(&bytes[..=bit / 8]).unwrap_err();
        assert_eq!(decode(&bytes), Err(error));
        match bit / 8 {
            4 => assert_eq!(error, FrameError::Version { got: bytes[4] }),
            at => assert_eq!(error, FrameError::Magic { at, got: bytes[at] }),
        }
    }
}

#[test]
fn known_types_are_decoded_and_others_rejected() {
    for kind in 0..=255u8 {
        let bytes = frame_of(kind, b"");
        match kind {
            1..=10 | 255 => {
                let frame = decode(&bytes).unwrap().unwrap();
                assert_eq!(frame.kind as u8, kind);
            }
            _ => {
                assert_eq!(decode(&bytes), Err(FrameError::Type { got: kind }));
                assert_eq!(decode(&bytes[..6]), Err(FrameError::Type { got: kind }));
            }
        }
    }
}

#[test]
fn types_are_indexed_in_order() {
    assert!((0..).zip(FrameType::ALL).all(|(i, kind)| kind.index() == i));
}

/// A flipped bit never leaves a valid frame. One in the length may ask for more bytes.
#[test]
fn no_flipped_bit_is_accepted() {
    let good = frame_of(3, &[0x5A; 52]);
    assert_eq!(good.len(), 64);
    for bit in 0..512 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(!matches!(decode(&bytes), Ok(Some(_))), "bit {bit}");
    }
}

#[test]
fn other_checksums_are_rejected() {
    let good = frame_of(3, b"123456789");
    let (covered, crc) = good.split_at(good.len() - 4);
    let castagnoli = crc_by_bits(covered, CASTAGNOLI).to_be_bytes();
    let swapped: Vec<u8> = crc.iter().rev().copied().collect();
    let inverted: Vec<u8> = crc.iter().map(|byte| !byte).collect();
    let payload_only = crc_by_bits(&covered[8..], IEEE).to_be_bytes();
    for wrong in [&castagnoli[..], &swapped, &inverted, &payload_only, &[0; 4]] {
        let refused = decode(&[covered, wrong].concat()).map(|_| ());
        assert!(matches!(refused, Err(FrameError::Crc { .. })), "{wrong:02x?}");
    }
}

#[test]
fn the_longest_payload_round_trips() {
    let payload = vec![0xA5; PAYLOAD_BYTES_MAX];
    let mut out = Vec::new();
    encode(FrameType::Echo, &[&payload[..9], &payload[9..]], &mut out);
    assert_eq!(out.len(), FRAME_BYTES_MAX);
    assert_eq!(decode(&out).unwrap().unwrap().payload, payload);
}

#[test]
#[should_panic(expected = "at most 65535 bytes")]
fn a_longer_payload_panics() {
    encode(FrameType::Echo, &[&vec![0; PAYLOAD_BYTES_MAX + 1]], &mut Vec::new());
}

proptest! {
    #[test]
    fn frames_round_trip(
        kind in proptest::sample::select(&FrameType::ALL[..]),
        parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..400), 0..4),
        before in proptest::collection::vec(any::<u8>(), 0..9),
    ) {
        let mut out = before.clone();
        let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        encode(kind, &slices, &mut out);
        prop_assert_eq!(&out[before.len()..], &frame_of(kind as u8, &parts.concat())[..]);
        let frame = decode(&out[before.len()..]).unwrap().unwrap();
        prop_assert_eq!((frame.kind, frame.payload), (kind, &parts.concat()[..]));
    }

    #[test]
    fn arbitrary_bytes_never_break_it(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        magic in any::<bool>(),
    ) {
        let bytes = if magic { [&MAGIC[..], &[1], &bytes].concat() } else { bytes };
        if let Ok(Some(frame)) = decode(&bytes) {
            prop_assert_eq!(frame.bytes, &frame_of(frame.kind as u8, frame.payload)[..]);
        }
    }
}
