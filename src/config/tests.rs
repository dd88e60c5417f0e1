//! Tests of the limits at their edges, and of their sum.

use super::*;

const WEEK_MS: u64 = 604_800_000;

fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

#[test]
fn the_defaults_are_allowed() {
    assert_eq!(Config::default().check(), Ok(()));
}

/// Each limit at its edge: the edge is allowed, one beyond is not, and the message says which.
#[test]
fn each_limit_holds_at_its_edge() {
    type Set = fn(&mut Config, u64);
    let numbers: [(&'static str, Set, u64, u64); 11] = [
        ("buffer-bytes", |c, v| c.buffer_bytes = v as usize, 4096, 16 << 20),
        ("registered-buffers", |c, v| c.registered_buffers = v as usize, 0, 1024),
        ("batch-rows", |c, v| c.batch_rows = v as usize, 1, 16 << 20),
        ("packet-bytes-limit", |c, v| c.packet_bytes_limit = v, 271, u32::MAX as u64),
        ("groups-limit", |c, v| c.groups_limit = v as usize, 1, u32::MAX as u64),
        ("strings-bytes-limit", |c, v| c.strings_bytes_limit = v as usize, 256, u32::MAX as u64),
        ("max-connections", |c, v| c.max_connections = v as usize, 1, 65_536),
        ("max-streams", |c, v| c.max_streams = v as usize, 1, 65_536),
        ("rate-limit", |c, v| c.rate_limit = v as u32, 0, 1_000_000_000),
        ("global-rate-limit", |c, v| c.global_rate_limit = v as u32, 0, 1_000_000_000),
        ("capture-bytes-limit", |c, v| c.capture_bytes_limit = v, 1, 1 << 60),
    ];
    let times: [(&'static str, Set, u64, u64); 13] = [
        ("idle-timeout", |c, v| c.idle_timeout = ms(v), 100, WEEK_MS),
        ("packet-timeout", |c, v| c.packet_timeout = ms(v), 100, WEEK_MS),
        ("frame-timeout", |c, v| c.frame_timeout = ms(v), 100, WEEK_MS),
        ("handshake-timeout", |c, v| c.handshake_timeout = ms(v), 100, WEEK_MS),
        ("auth-timeout", |c, v| c.auth_timeout = ms(v), 100, WEEK_MS),
        ("write-timeout", |c, v| c.write_timeout = ms(v), 100, WEEK_MS),
        ("linger", |c, v| c.linger = ms(v), 0, 60_000),
        ("refused-linger", |c, v| c.refused_linger = ms(v), 0, 60_000),
        ("drain-delay", |c, v| c.drain_delay = Some(ms(v)), 0, WEEK_MS),
        ("drain-timeout", |c, v| c.drain_timeout = ms(v), 0, WEEK_MS),
        ("interval", |c, v| c.interval = Some(ms(v)), 100, 3_600_000),
        ("partials-interval", |c, v| c.partials_interval = ms(v), 100, 3_600_000),
        ("coalesce-delay", |c, v| c.coalesce_delay = ms(v), 0, 1000),
    ];
    let numbers = numbers.map(|case| (case, Amount::Number as fn(u64) -> Amount));
    let times = times.map(|case| (case, (|value| Amount::Time(ms(value))) as fn(u64) -> Amount));
    for ((option, set, min, max), amount) in numbers.into_iter().chain(times) {
        for (value, allowed) in [
            (Some(min), true),
            (Some(max), true),
            (min.checked_sub(1), false),
            (Some(max + 1), false),
        ] {
            let Some(value) = value else { continue };
            let mut config = Config::default();
            set(&mut config, value);
            let checked = config.check();
            assert_eq!(checked.is_ok(), allowed, "{option} = {value}");
            if let Err(error) = checked {
                let [value, min, max] = [value, min, max].map(amount);
                let expected = OutOfRange { option, value, min, max };
                assert_eq!(error, ConfigError::OutOfRange(expected));
            }
        }
    }
}

/// The option as it is typed, and values as they can be given.
#[test]
fn what_is_out_of_range_is_said_in_its_unit() {
    let said = |config: Config| config.check().unwrap_err().to_string();
    let idle = |idle_timeout| said(Config { idle_timeout, ..Config::default() });
    let limits = "it must be between 100ms and 7 days";
    assert_eq!(idle(ms(1)), format!("--idle-timeout is 1ms; {limits}"));
    assert_eq!(
        idle(Duration::from_micros(99_999)),
        format!("--idle-timeout is 99ms 999us; {limits}")
    );
    assert_eq!(idle(ms(WEEK_MS + 1)), format!("--idle-timeout is 7 days 1ms; {limits}"));
    assert_eq!(
        idle(ms(WEEK_MS) + Duration::from_nanos(1)),
        format!("--idle-timeout is 7 days 1ns; {limits}")
    );
    let coalesce_delay = Duration::from_nanos(1_000_000_001);
    assert_eq!(
        said(Config { coalesce_delay, ..Config::default() }),
        "--coalesce-delay is 1s 1ns; it must be between 0s and 1s"
    );
    assert_eq!(
        said(Config { batch_rows: 0, ..Config::default() }),
        "--batch-rows is 0; it must be between 1 and 16777216"
    );
}

/// Limits that depend on the schema, at their edges, for the smallest, the built-in and the largest
/// record.
#[test]
fn windows_and_packets_hold_a_record_of_the_schema() {
    for (record_bytes, packet_bytes_min) in [(1, 1), (267, 271), (3000, 3002), (65_535, 65_539)] {
        let record = RecordSizes { record_bytes, packet_bytes_min, ..RecordSizes::default() };
        assert_eq!(record.window_bytes_min(), 2 * packet_bytes_min);
        let with = |buffer_bytes: usize, packet_bytes_limit: u64| {
            Config { record, buffer_bytes, packet_bytes_limit, ..Config::default() }.check()
        };
        let window = record.window_bytes_min().max(4096);
        let packet = packet_bytes_min as u64;
        assert_eq!(with(window, packet), Ok(()), "{record:?}");
        let refused = |option, value, min, max| {
            let [value, min, max] = [value, min, max].map(Amount::Number);
            Err(ConfigError::OutOfRange(OutOfRange { option, value, min, max }))
        };
        let (window, buffer_max) = (window as u64, 16 << 20);
        let narrow = refused("buffer-bytes", window - 1, window, buffer_max);
        assert_eq!(with(window as usize - 1, packet), narrow, "{record:?}");
        let short = refused("packet-bytes-limit", packet - 1, packet, u32::MAX.into());
        assert_eq!(with(window as usize, packet - 1), short, "{record:?}");
    }
}

/// The sum grows with the schema's records: more texts, wider rows and slots, larger pages.
#[test]
fn the_sum_follows_the_schema() {
    let with = |record: RecordSizes, aggregate: AggregateMode| {
        Config { record, aggregate, ..Config::default() }.memory(2)
    };
    let own = RecordSizes::default();
    for aggregate in [AggregateMode::Columns, AggregateMode::TwoPhase] {
        let usual = with(own, aggregate);
        let texts = with(RecordSizes { texts: 3, ..own }, aggregate);
        let more = 2 * (81_920 + 16_384);
        assert_eq!(texts.connection_receiving, usual.connection_receiving + more);
        assert_eq!(texts.connection_groups, usual.connection_groups + 2 * 84 * 1_000_000);
        let none = with(RecordSizes { texts: 0, text_bytes: 0, ..own }, aggregate);
        assert_eq!(none.connection_receiving, usual.connection_receiving - more / 2);
    }
    let wide = RecordSizes { row_bytes: 320, partial_row_bytes: 400, slot_bytes: 320, ..own };
    let columns = with(wide, AggregateMode::Columns);
    assert_eq!(columns.rows_at_start, 2 * 4 * 65_536 * 320);
    let two_phase = with(wide, AggregateMode::TwoPhase);
    assert_eq!(two_phase.rows_at_start, 0);
    let page = with(own, AggregateMode::TwoPhase).connection_receiving + 1024 * (320 - 32);
    assert_eq!(two_phase.connection_receiving, page);
}

#[test]
fn contradictory_options_are_refused() {
    let pair =
        |tls: TlsOptions| TlsOptions { cert: Some("cert".into()), key: Some("key".into()), ..tls };
    let on = TlsOptions { messages: true, ..TlsOptions::default() };
    let cases: [(&str, Config); 10] = [
        ("are the same", Config { port: Some(9000), ..Config::default() }),
        ("are the same", Config { records_port: Some(6000), ..Config::default() }),
        ("nothing to serve", Config { port: None, records_port: None, ..Config::default() }),
        ("needs --cert", Config { tls: on.clone(), ..Config::default() }),
        ("have no effect", Config { tls: pair(TlsOptions::default()), ..Config::default() }),
        ("turned off", Config { port: None, tls: pair(on.clone()), ..Config::default() }),
        ("locks everyone out", Config { require_auth: true, ..Config::default() }),
        (
            "accepts any user",
            Config { auth_open: true, auth_file: Some("f".into()), ..Config::default() },
        ),
        ("beyond 65535", Config { port: Some(64_536), ..Config::default() }),
        (
            "turned off",
            Config {
                records_port: None,
                tls: pair(TlsOptions { records: true, ..TlsOptions::default() }),
                ..Config::default()
            },
        ),
    ];
    for (words, config) in cases {
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
    let free =
        Config { port: Some(0), records_port: Some(0), admin_port: Some(0), ..Config::default() };
    assert_eq!(free.check(), Ok(()));
    let edge = Config { port: Some(64_535), tls: pair(on), ..Config::default() };
    assert_eq!((edge.check(), edge.admin_port()), (Ok(()), 65_535));
}

#[test]
fn the_sum_adds_its_parts() {
    let config = Config { max_streams: 3, max_connections: 7, ..Config::default() };
    let memory = config.memory(2);
    assert_eq!(memory.registered, 2 * 8 * (256 << 10));
    let idle = 7 * MESSAGE_IDLE_BYTES;
    let receiving = memory.at_start() + 3 * memory.connection_receiving + idle;
    assert_eq!(memory.all_receiving(), receiving);
    let worst = receiving + 3 * memory.connection_groups + 7 * MESSAGE_BUSY_BYTES;
    assert_eq!(memory.worst(), worst + QUEUED_BYTES + 2 * HUB_QUEUE * MESSAGE_WINDOW_BYTES);
}

/// Written down as numbers, so that a changed constant or a forgotten part is noticed.
#[test]
fn each_part_is_what_the_documents_say() {
    let two_phase = Config::default().memory(2);
    assert_eq!(two_phase.rows_at_start, 0);
    let stream = (256 << 10) + 12_288 + 81_920 + 16_384 + 172_032 + 2048;
    assert_eq!(two_phase.connection_receiving, stream + 32_768);
    let texts = 1_000_000 * 84 + 6 * (64 << 20);
    assert_eq!(two_phase.connection_groups, 3 * 1_000_000 * 487 + texts);

    let columns = Config { aggregate: AggregateMode::Columns, ..Config::default() }.memory(2);
    assert_eq!(columns.rows_at_start, 2 * 4 * 65_536 * 32);
    assert_eq!(columns.connection_receiving, stream + 65_536 * 32);
    let rows = 2 * 1_000_000 + 262_144 + 65_536;
    assert_eq!(columns.connection_groups, rows * 384 + texts);
    assert_eq!((columns.queues, columns.registered), (two_phase.queues, two_phase.registered));
}

#[test]
fn partials_cost_the_batches_in_addition() {
    let without = Config::default().memory(2);
    let with = Config { partials: Some("d".into()), ..Config::default() }.memory(2);
    assert_eq!(with.connection_receiving, without.connection_receiving + 2 * 172_032);
    let texts = 1_000_000 * 84 + 6 * (64 << 20);
    assert_eq!(with.connection_groups, without.connection_groups + 1_000_000 * 487 + texts);
    assert_eq!(with.at_start(), without.at_start());
    assert_eq!((without.partials, with.partials), (0, 32 << 20));
    let streams = with.streams * 2 * 172_032;
    assert_eq!(with.all_receiving(), without.all_receiving() + streams + (32 << 20));
}

#[test]
fn captures_cost_their_chunks_however_many_streams_there_are() {
    let without = Config::default().memory(2);
    let with = Config { capture: Some("captures".into()), ..Config::default() }.memory(2);
    assert_eq!((without.captured, with.captured), (0, 33 * (256 << 10)));
    assert_eq!(with.all_receiving(), without.all_receiving() + with.captured);
    assert_eq!(with.worst(), without.worst() + with.captured);
}

#[test]
fn a_node_s_name_can_be_part_of_a_file_name() {
    for (name, allowed) in [
        ("n", true),
        ("Node_1.example-2", true),
        ("", false),
        ("a/b", false),
        ("a b", false),
        ("\u{e4}", false),
    ] {
        assert_eq!(is_node_name(name), allowed, "{name:?}");
        let config = Config { node: Some(name.to_owned()), ..Config::default() };
        assert_eq!(config.check().is_ok(), allowed, "{name:?}");
    }
    assert!(is_node_name(&"n".repeat(64)) && !is_node_name(&"n".repeat(65)));
}

/// The smallest and largest value of every limit in the sum, in both aggregate modes.
#[test]
fn the_sum_holds_at_the_ends_of_its_limits() {
    for aggregate in [AggregateMode::Columns, AggregateMode::TwoPhase] {
        let smallest = Config {
            aggregate,
            buffer_bytes: BUFFER_BYTES.0,
            registered_buffers: 0,
            batch_rows: BATCH_ROWS.0,
            groups_limit: GROUPS_LIMIT.0,
            strings_bytes_limit: STRINGS_BYTES_LIMIT.0,
            max_streams: MAX_CONNECTIONS.0,
            max_connections: MAX_CONNECTIONS.0,
            ..Config::default()
        };
        let largest = Config {
            aggregate,
            buffer_bytes: BUFFER_BYTES.1,
            registered_buffers: REGISTERED_BUFFERS_MAX,
            batch_rows: BATCH_ROWS.1,
            groups_limit: GROUPS_LIMIT.1,
            strings_bytes_limit: STRINGS_BYTES_LIMIT.1,
            max_streams: MAX_CONNECTIONS.1,
            max_connections: MAX_CONNECTIONS.1,
            ..Config::default()
        };
        assert_eq!((smallest.check(), largest.check()), (Ok(()), Ok(())));
        let (small, large) = (smallest.memory(1), largest.memory(1024));
        // Even then a stream has its cache, its first pages and its histograms.
        assert!(small.connection_receiving > 256 << 10 && small.connection_groups > 816);
        assert!(small.worst() < 256 << 20, "{small:?}");
        // 65,536 streams of 2^32 - 1 groups of 600 bytes and more; nothing has overflowed.
        assert!(
            large.worst() > 65_536 * GROUPS_LIMIT.1 * 600 && large.worst() < usize::MAX,
            "{large:?}"
        );
    }
}

#[test]
fn a_worker_lets_two_receivers_wait_at_least() {
    assert_eq!(queued_bytes_of_worker(2), QUEUED_BYTES / 2);
    assert_eq!(queued_bytes_of_worker(32), QUEUED_BYTES / 32);
    assert_eq!(queued_bytes_of_worker(33), 2 * RECEIVER_QUEUE_BYTES);
}
