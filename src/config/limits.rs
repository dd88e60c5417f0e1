//! Fixed limits, and the ranges of configurable ones. `Config::check` applies the ranges.

use std::time::Duration;

/// Rows that a worker decodes and folds into a connection's groups at a time: about one read, and
/// few enough to stay in the core's first-level cache.
pub const FOLD_ROWS: usize = 512;
/// How long a worker decodes the bytes of one read before it looks after its other connections: it
/// then finishes the pass of up to [`FOLD_ROWS`] records, and goes on with that read after them.
/// Together that is less than a millisecond: in the slowest schema that was found a pass takes 650
/// µs. A read of the built-in schema with a million groups takes less than a turn.
pub const TURN: Duration = Duration::from_micros(300);
/// Rows that one connection's groups may hold before they are passed on: partials count in 32 bits.
pub const FOLD_ROWS_MAX: u64 = u32::MAX as u64;
/// Slots of a page of groups; each stream has at least one page. `engine::groups::paged` asserts
/// it.
pub const GROUP_PAGE_SLOTS: usize = 1024;

/// Bytes of a page of text slots; each stream has at least one page. `engine::decode::intern`
/// asserts it.
pub const TEXT_PAGE_BYTES: usize = 16 << 10;

/// Rows of partials that a connection keeps before they are merged, regardless of its groups.
pub const PENDING_ROWS: usize = 256 << 10;

/// Copies of a row of partials at the peak where Polars groups whole columns: old rows, new rows,
/// Polars' hash table, the order of the result. Measured with 250,000 to a million
/// groups of the built-in schema (docs/operating/sizing.md shows how), rounded up.
pub const PARTIAL_ROW_COPIES: usize = 8;
/// The same where a worker folds rows into groups: partial, Polars' hash table, the order of the
/// result. Measured with 20,000 to 2.7 million groups, rounded up.
pub const FOLDED_ROW_COPIES: usize = 5;
/// A spilled sum of a group without its key: the entry and its share of the map, which doubles, and
/// the allocation of the key.
pub const SPILLED_SUM_BYTES: usize = 128;
/// A group takes 16/5 of a slot right after all pages of a table were split: then five of sixteen
/// slots are in use.
pub const SLOT_SIXTEENTHS: (usize, usize) = (16, 5);
/// Tables of groups that a stream may need at a time: two are merged before it is noticed that
/// together they have too many groups, while a third is being filled. A stream of up to
/// [`FOLD_ROWS_MAX`] rows needs only one.
pub const FOLDED_TABLES: usize = 3;

/// Copies of the bytes of distinct texts at the peak: interned, the slack of a vector that has just
/// doubled, and the result, where a byte that is not printable takes four.
pub const TEXT_COPIES: usize = 6;
/// The same of a record with a text in Latin-1, of which such a byte is two in UTF-8.
pub const LATIN1_TEXT_COPIES: usize = 10;

/// Bytes that one distinct text takes in addition to its own: a slot of 16 bytes in a table whose
/// pages were all just split (five of sixteen slots in use), 4 for its end and as much slack, 8 for
/// its rank, 16 for its view in the result.
pub const TEXT_OVERHEAD_BYTES: usize = 84;

/// Bytes of those that a distinct text takes when the result is made: its rank and its view.
pub const TEXT_RESULT_BYTES: usize = 24;
/// Bytes of texts, and ends of texts, for which there is room at first. The room grows by a half
/// each time.
pub const TEXTS_ROOM: (usize, usize) = (4 << 10, 256);

/// Bytes of the text cache of each connection's interner (the first 32 bytes of 2048 fields, their
/// codes and lengths). `engine::decode::text_cache` asserts it.
pub const INTERN_CACHE_BYTES: usize = 2048 * (32 + 8);

/// Runs that one parsing pass may produce; a read with more runs takes several passes. As many as
/// the records of a pass (`FOLD_ROWS`), since the smallest packets have one record each.
pub const RUNS_LIMIT: usize = 512;
/// Bytes of one run. `wire::records::packets` asserts it.
pub const RUN_BYTES: usize = 24;

/// Latencies are resolved down to this many nanoseconds.
pub const LATENCY_NS_MIN: u64 = 64;
/// Longer latencies are recorded as this value; a histogram never grows.
pub const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// Significant decimal digits of a latency.
pub const LATENCY_DIGITS: u8 = 3;
/// Bytes of one histogram with the three values above. `engine::stream::latency` asserts it.
pub const LATENCY_BYTES: usize = 21 * 1024 * 8;

/// Significant decimal digits of the latencies that each message connection keeps, and of the waits
/// of a record connection's coalesced reads. With two digits, a single slow reply made a quiet
/// connection keep more than 7 KiB.
pub const SMALL_LATENCY_DIGITS: u8 = 1;
/// The most bytes that they take. `engine::stream::latency` tests it.
pub const SMALL_LATENCY_BYTES: usize = 2 << 10;

/// Column sets per worker that may be in flight to the aggregation, in addition to the one that
/// each connection may hold. As many are allocated at start.
pub const BATCHES_IN_FLIGHT: usize = 4;
/// Jobs (full column sets, finished connections) that may wait for one aggregation thread.
pub const AGGREGATION_QUEUE: usize = 32;
/// Threads that write and sync the files of results, partials, and captures: as many of each at the
/// same time, where a disk answers slowly.
pub const FILE_WRITERS: usize = 8;
/// Bytes of encoded batches of partials that may wait for the disk; with more, aggregation waits. A
/// batch that is larger waits alone.
pub const PARTIALS_WAITING_BYTES: usize = 32 << 20;
/// Results that may wait to be printed.
pub const REPORT_QUEUE: usize = 4;
/// Accepted connections that may wait for one worker.
pub const INBOX: usize = 64;
/// Connections that the kernel may hold before they are accepted.
pub const LISTEN_BACKLOG: i32 = 1024;
/// Silence after which the kernel asks whether a peer is still there.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// How often it asks again.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// How many unanswered questions end the connection: two minutes after the peer vanished.
pub const KEEPALIVE_PROBES: u32 = 4;
/// Submission queue entries of each worker's ring.
pub const RING_ENTRIES: u32 = 256;
/// How long a new ring may take to complete an operation that does nothing. With more, the start
/// fails: a filter or a defect keeps the ring from working.
pub const RING_PATIENCE: Duration = Duration::from_secs(10);
/// The most buffers that one ring may register; tokio-uring silently drops the excess.
pub const REGISTERED_BUFFERS_MAX: usize = 1024;

/// Bytes that coalesced reads of a record connection wait for, or half of its window if that is
/// less. One read of 64 KiB costs an eighth of 60 reads of 1 KiB, and still fits into a core's own
/// cache.
pub const COALESCE_BYTES: usize = 64 << 10;
/// Small and fast reads in a row after which a connection's reads are coalesced.
pub const COALESCE_READS: u32 = 16;
/// The same after coalescing did not pay: the number doubles each time, up to this.
pub const COALESCE_READS_MAX: u32 = 1024;
/// Reads are fast if there are this many in a `--coalesce-delay`, and small if this many fit into
/// [`COALESCE_BYTES`].
pub const COALESCE_READS_PER_DELAY: u32 = 8;
/// Single reads that a coalesced one must replace, or coalescing ends. Timer, low-water mark and
/// poll cost about as much as two reads. It must be less than the reads that arrive during a wait
/// at the pace that started coalescing.
pub const COALESCE_GAIN: usize = 3;
/// Coalesced reads in a row that fill the window, after which coalescing ends.
pub const COALESCE_FULL_READS: u32 = 4;
/// The part of `--coalesce-delay` after which a wait ends. The rest allows for a late timer and a
/// busy worker.
pub const COALESCE_DUE: f64 = 0.625;
/// The part of it after which a wait ends together with another that is due, so that the timer of
/// many connections fires at most eight times in a delay, not once for each of them.
pub const COALESCE_EARLY: f64 = 0.5;
const _: () = assert!(
    (COALESCE_GAIN as f64) < COALESCE_DUE * COALESCE_READS_PER_DELAY as f64
        && 0.0 < COALESCE_EARLY
        && COALESCE_EARLY <= COALESCE_DUE
        && COALESCE_DUE < 1.0
);

/// How long a line waits for a stderr that accepts nothing. After that, lines are dropped and
/// counted until one is accepted: the reader of stderr must delay neither results nor the end.
pub const STDERR_PATIENCE: Duration = Duration::from_millis(500);
/// How often deadlines are checked, and so how late one may be noticed.
pub const TICK: Duration = Duration::from_millis(50);
/// How long after the first SIGINT another one ends the process at once. One that comes sooner is
/// the same request, delivered twice.
pub const SECOND_SIGINT_AFTER: Duration = Duration::from_secs(1);
/// How long a start may take after SIGTERM or SIGINT. A start that reads a file from a file system
/// that hangs must not keep the process.
pub const STOPPED_START: Duration = Duration::from_secs(2);
/// How long a stopping engine goes on accepting where somebody asks whether it is ready: two
/// checks, a second apart, and the time that the answer takes to reach every balancer.
pub const DRAIN_DELAY_CHECKED: Duration = Duration::from_secs(5);
/// How long the acceptor rests after the process ran out of file descriptors.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Log lines about single connections that are written per second; the rest are counted.
pub const LOG_LINES_PER_SECOND: u32 = 20;

/// Longest payload that a client may send before it has authenticated, with `--require-auth`.
pub const PAYLOAD_BYTES_BEFORE_AUTH: usize = 512;
/// Failures to authenticate after which a connection is closed.
pub const AUTH_FAILURES_MAX: u8 = 3;
/// How long the answer to wrong credentials is delayed.
pub const AUTH_FAILURE_DELAY: Duration = Duration::from_millis(100);

/// Resident memory of the program itself, with Polars, before it takes anything for peers. Measured
/// (docs/operating/sizing.md), rounded up.
pub const PROGRAM_BYTES: usize = 32 << 20;
/// The part of the memory of the host, or of its control group, that `--memory-limit` is by
/// default. The other quarter is the reserve for what cannot be counted: free pieces that the
/// allocator keeps, the copies that Polars makes beyond those of [`FOLDED_ROW_COPIES`], the line of
/// a result while it is printed, and the kernel's socket buffers.
pub const MEMORY_LIMIT_SHARE: (u64, u64) = (3, 4);
/// Bytes for groups and texts without which an engine does not start: fewer would end streams of a
/// few hundred groups.
pub const LEAST_GROWTH_BYTES: usize = 8 << 20;
/// Largest `--memory-limit`, which exceeds any host. The smallest follows from other options.
pub const MEMORY_LIMIT_MAX: u64 = 1 << 60;
/// Bytes that TLS may keep of a record stream: a message that has not arrived in full, and
/// plaintext that the window has no room for.
pub const TLS_STREAM_BYTES: usize = 2 * TLS_INCOMING_BYTES_MAX;
/// How often memory that was given back is returned to the system.
pub const TRIM_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes that must have been given back since the last time.
pub const TRIM_BYTES: usize = 1 << 20;
/// Receive window of a message connection that is idle or sends little.
pub const SMALL_WINDOW_BYTES: usize = 2 << 10;
/// Receive window of a message connection that sends much: the longest frame, at least.
pub const MESSAGE_WINDOW_BYTES: usize = 128 << 10;
/// Bytes of a quiet message connection without TLS: window, state, its place in tables. Measured
/// with 10,000 connections (docs/operating/sizing.md), rounded up.
pub const MESSAGE_IDLE_BYTES: usize = 8 << 10;
/// Bytes that a busy one takes in addition: its large window, the replies to a window full of the
/// smallest frames, each refused by the rate limit, and what is kept of reads whose replies wait.
pub const MESSAGE_BUSY_BYTES: usize = MESSAGE_WINDOW_BYTES
    + MESSAGE_WINDOW_BYTES / 12 * 48
    + SMALL_LATENCY_BYTES
    + 2 * OWED_READS * OWED_BYTES;
/// Reads of a client whose replies may wait; with more, no further requests of it are read. What is
/// kept of them may take twice the bytes, since it grows by doubling.
pub const OWED_READS: usize = 64;
/// Bytes that are kept of one. `runtime::messages::peer` asserts it.
pub const OWED_BYTES: usize = 32;
/// Bytes that may wait for a receiver that does not read; with more, it is disconnected.
pub const RECEIVER_QUEUE_BYTES: usize = 1 << 20;
/// Pieces that may wait for a receiver, regardless of size; with more, it is disconnected.
pub const RECEIVER_QUEUE_PIECES: usize = 8192;
/// Bytes that may wait for all receivers together. Each worker has an equal part, but at least
/// enough for two receivers.
pub const QUEUED_BYTES: usize = 64 << 20;
/// Bytes of replies that may wait for a client; with more, no further requests of it are read.
pub const REPLIES_WAITING_BYTES: usize = 64 << 10;
/// Pieces of broadcasts that may wait for one worker to deliver them; with more, senders wait.
pub const HUB_QUEUE: usize = 64;
/// Bytes of broadcasts after which a delivery takes no further piece.
pub const DELIVERY_BYTES: usize = 128 << 10;
/// Receivers that a worker serves before it returns to its sockets.
pub const DELIVERIES_AT_ONCE: usize = 64;
/// Refused connections that the acceptor keeps open until they have read the reason.
pub const REFUSED_LINGERING: usize = 256;

/// Longest record: what a u16 length can express, and short enough to keep the smallest window
/// small.
pub const RECORD_BYTES_MAX: usize = 65_535;
/// Most fields of a record.
pub const SCHEMA_FIELDS_MAX: usize = 256;
/// Most key fields of a schema.
pub const SCHEMA_KEYS_MAX: usize = 8;
/// Most aggregates of a schema.
pub const SCHEMA_AGGREGATES_MAX: usize = 64;
/// Longest text or bytes field that is a key: `engine::blocks::text_tag` keeps lengths in 12 bits.
pub const TEXT_KEY_BYTES_MAX: usize = 4095;
/// Longest name of a schema or field, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Bytes of an `s` in struct notation up to which it may well be an address or another number, so
/// that a key of it is worth a warning: an IPv6 address and a UUID have 16.
pub const SHORT_TEXT_BYTES: usize = 16;
/// Records that `schema check --sample` shows: what fits beside each other on a screen.
pub const SAMPLE_RECORDS: usize = 4;
/// Bytes of a sample that are looked at.
pub const SAMPLE_BYTES_MAX: u64 = 16 << 20;
/// Largest schema file: room for the most fields, with comments.
pub const SCHEMA_FILE_BYTES_MAX: usize = 1 << 20;

/// Smallest and largest `--buffer-bytes`. The smallest prevents a window from being filled by one
/// unfinished record; the largest is what a single read can usefully return.
pub const BUFFER_BYTES: (usize, usize) = (4 << 10, 16 << 20);
/// Smallest and largest `--batch-rows`.
pub const BATCH_ROWS: (usize, usize) = (1, 16 << 20);
/// Smallest and largest `--packet-bytes-limit`: a record of one byte, and what a u32 length can
/// express. The schema in use raises the smallest to a packet of one record.
pub const PACKET_BYTES_LIMIT: (u64, u64) = (1, u32::MAX as u64);
/// Smallest and largest `--groups-limit`: codes of texts are u32.
pub const GROUPS_LIMIT: (usize, usize) = (1, u32::MAX as usize);
/// Smallest and largest `--strings-bytes-limit`: one text, and what a u32 offset can express.
pub const STRINGS_BYTES_LIMIT: (usize, usize) = (256, u32::MAX as usize);
/// Smallest and largest `--max-connections` and `--max-streams`.
pub const MAX_CONNECTIONS: (usize, usize) = (1, 65_536);
/// Smallest and largest `--rate-limit` and `--global-rate-limit`; 0 means no limit.
pub const RATE_LIMIT: (u64, u64) = (0, 1_000_000_000);
/// How far the default admin port is above the message port.
pub const ADMIN_PORT_OFFSET: u16 = 1000;
/// Smallest and largest `--idle-timeout` and other times that peers are given: two ticks, and a
/// week.
pub const TIMEOUT_MS: (u64, u64) = (2 * TICK.as_millis() as u64, 7 * 24 * 3600 * 1000);
/// Smallest and largest `--admit-timeout`; with 0, a connection without a free slot is refused at
/// once.
pub const ADMIT_TIMEOUT_MS: (u64, u64) = (0, TIMEOUT_MS.1);
/// Smallest and largest `--drain-timeout`; with 0, the signal ends running streams.
pub const DRAIN_TIMEOUT_MS: (u64, u64) = (0, TIMEOUT_MS.1);
/// Smallest and largest `--drain-delay`; with 0, the signal closes the listeners.
pub const DRAIN_DELAY_MS: (u64, u64) = (0, TIMEOUT_MS.1);
/// Smallest and largest `--linger` and `--refused-linger`; 0 closes at once.
pub const LINGER_MS: (u64, u64) = (0, 60 * 1000);

/// Smallest and largest `--coalesce-delay`; 0 turns coalescing off. A stream that would wait longer
/// than a second is not fast.
pub const COALESCE_DELAY_MS: (u64, u64) = (0, 1000);
/// Smallest and largest `--interval`: two ticks, since workers publish latencies on each tick, and
/// an hour.
pub const INTERVAL_MS: (u64, u64) = (2 * TICK.as_millis() as u64, 3600 * 1000);
/// Shortest time between two log lines about unwritable files of the same kind.
pub const FILE_COMPLAINTS: Duration = Duration::from_secs(1);
/// Longest `--node`, as for host names.
pub const NODE_NAME_BYTES_MAX: usize = 64;
/// Smallest and largest `--partials-interval`. Each batch of a stream writes and syncs two files,
/// and what is not in a file yet is lost if the process is killed.
pub const PARTIALS_INTERVAL_MS: (u64, u64) = (100, 3600 * 1000);
/// Rows of a result that are encoded for a file at a time: a row group of Parquet, a batch of
/// Arrow. They determine the memory that writing takes in addition to the result.
pub const FILE_ROWS: usize = 128 << 10;
/// Smallest and largest `--capture-bytes-limit`; the largest exceeds any disk.
pub const CAPTURE_BYTES_LIMIT: (u64, u64) = (1, 1 << 60);
/// Bytes that are handed to the capture thread at a time: usually at most one read.
pub const CAPTURE_CHUNK_BYTES: usize = 256 << 10;
/// Chunks that may wait for the capture thread; with more, streams wait.
pub const CAPTURE_CHUNKS: usize = 32;

/// Most users in a file.
pub const AUTH_USERS_MAX: usize = 100_000;
/// Largest file of users: the most users with the longest names, and some comments.
pub const AUTH_FILE_BYTES_MAX: usize = 32 << 20;
/// Longest name of a user, in bytes.
pub const USER_BYTES_MAX: usize = 255;
/// Random bytes of a token, 256 bits: it cannot be guessed, nor found from its plain SHA-256.
pub const TOKEN_BYTES: usize = 32;
/// Random bytes of a session id, 128 bits: no two are the same by chance.
pub const SESSION_ID_BYTES: usize = 16;
/// Shortest time between two sweeps for full buckets, so that a table that grows fast is not swept
/// for each new name.
pub const SWEEP_PAUSE_NS: u64 = 100_000_000;

/// Size of the buffer for received TLS data while it is empty.
pub const TLS_INCOMING_BYTES: usize = 2 << 10;
/// Most bytes of received TLS records that do not form a whole message yet, such as a handshake
/// message with a long chain of client certificates.
pub const TLS_INCOMING_BYTES_MAX: usize = 64 << 10;
/// Largest PEM file: about 500 certificates.
pub const PEM_FILE_BYTES_MAX: usize = 1 << 20;
/// TLS 1.2 sessions kept for resumption by clients without tickets. Each takes a few hundred bytes,
/// or some KiB with client certificates.
pub const TLS_SESSIONS_MAX: usize = 1024;
/// A certificate that expires within this time causes a warning.
pub const CERTIFICATE_ENDS_SOON: Duration = Duration::from_secs(7 * 24 * 3600);

/// Bytes of the packets that `send` makes once and then sends repeatedly, unless the groups need
/// more. They stay in a core's second-level cache and hold some thousand different records.
pub const SEND_BLOCK_BYTES: usize = 1 << 20;
/// The most bytes of them: room for 10,000,000 groups of the built-in record, and for the largest
/// packet that a length can express.
pub const SEND_BLOCK_BYTES_MAX: u128 = 4 << 30;
/// Smallest and largest `send --groups`. Each group has a record in memory, so the largest takes
/// 2.7 GB with the built-in record; narrow keys allow fewer.
pub const SEND_GROUPS: (u32, u32) = (1, 10_000_000);
/// Smallest and largest `send --write-bytes`. The largest keeps a write within the 1024 pieces that
/// one system call takes.
pub const SEND_WRITE_BYTES: (usize, usize) = (0, 256 << 20);
/// Smallest and largest `send --rate` in records per second; 0 means as fast as possible.
pub const SEND_RATE: (u64, u64) = (0, 1_000_000_000);
/// Smallest and largest `replay --write-bytes`, which each connection keeps in memory.
pub const REPLAY_WRITE_BYTES: (usize, usize) = (1, 256 << 20);
/// Largest `replay --rate` in bytes per second; 0 means as fast as possible.
pub const REPLAY_RATE_MAX: u64 = 1_000_000_000_000;
/// Smallest and largest `load --rate` in messages per second: far more than one process can send.
pub const LOAD_RATE: (u64, u64) = (1, 1_000_000_000);
/// Longest `load --duration`, `load --warm-up` and `send --verify-timeout`: a week, as for other
/// times.
pub const CLIENT_TIME_MAX: Duration = Duration::from_millis(TIMEOUT_MS.1);
/// Shortest `load --duration`.
pub const LOAD_DURATION_MIN: Duration = Duration::from_millis(1);
/// Shortest sleep of a connection that sends at a rate. If its writes are due more often, it sends
/// several each time it wakes, since waking costs more than a small write.
pub const SEND_SLEEP_MIN: Duration = Duration::from_micros(100);

/// Admin connections at a time.
pub const ADMIN_CONNECTIONS: usize = 32;
/// Those of them that are kept for questions about health. If all are taken, the oldest makes room.
pub const ADMIN_HEALTH_CONNECTIONS: usize = 4;
/// Shortest time between two log lines about a lack of admin connections.
pub const ADMIN_COMPLAINTS: Duration = Duration::from_secs(60);
/// Longest head of a request, including its first line; also the size of a read.
pub const ADMIN_HEAD_BYTES: usize = 8 << 10;
/// Longest time from the start of a connection, or from the first byte of a later request, until
/// its head has arrived.
pub const ADMIN_HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time from the head of a request until the client has received the reply.
pub const ADMIN_REPLY_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest silence between two requests, longer than the usual 15 s between scrapes.
pub const ADMIN_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may go on sending after the last reply, so that closing does not destroy the
/// reply.
pub const ADMIN_LINGER: Duration = Duration::from_secs(1);
/// The most bytes that are read and discarded in that time.
pub const ADMIN_LINGER_BYTES: usize = 64 << 10;
/// Time over which rates are measured.
pub const ADMIN_SAMPLE: Duration = Duration::from_secs(1);
