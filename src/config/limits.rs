//! The limits that are fixed, and the ranges of those that are not: chooses nothing and checks
//! nothing.

use std::time::Duration;

/// Rows that a worker decodes and folds into a connection's groups at a time: a read's worth, and
/// so few that they stay in the core's first cache.
pub const FOLD_ROWS: usize = 512;
/// Rows that one connection's groups may hold before they are handed on: partials count in 32 bits.
pub const FOLD_ROWS_MAX: u64 = u32::MAX as u64;
/// Slots of a page of groups, of which each stream has at least one. `engine::paged` asserts it.
pub const GROUP_PAGE_SLOTS: usize = 1024;

/// Bytes of a page of text slots, of which each stream has at least one. `engine::intern` asserts
/// it.
pub const TEXT_PAGE_BYTES: usize = 16 << 10;

/// Rows of partials that a connection keeps before they are merged, however few groups it has.
pub const PENDING_ROWS: usize = 256 << 10;

/// How often a row of partials is there at the worst moment where Polars groups whole columns: old
/// rows, new rows, Polars' hash table, the order of the result. Measured from 250,000 to a million
/// groups of the built-in schema (docs/operating/sizing.md shows how), rounded up.
pub const PARTIAL_ROW_COPIES: usize = 8;
/// The same where a worker folds rows into groups: partial, Polars' hash table, the order of the
/// result. Measured from 20,000 to 2.7 million groups, rounded up.
pub const FOLDED_ROW_COPIES: usize = 5;
/// Sixteenths of a slot that a group takes where all pages of a table have just been split: five
/// slots of sixteen are taken then.
pub const SLOT_SIXTEENTHS: (usize, usize) = (16, 5);
/// Tables of groups that a stream may cost: two that differ are put together before it is noticed
/// that they have too many groups, while a third is filled. One, where it has no more than
/// [`FOLD_ROWS_MAX`] rows.
pub const FOLDED_TABLES: usize = 3;

/// How often the bytes of distinct texts may be there: interned, in the slack of a vector that has
/// just doubled, and in the result, where a byte that is not printable takes four.
pub const TEXT_COPIES: usize = 6;

/// Bytes that one distinct text costs beside its own bytes: a slot of 16 bytes in a table whose
/// pages have all just been split (five slots of sixteen taken), its end 4 and as much slack, its
/// rank 8, its view in the result 16.
pub const TEXT_OVERHEAD_BYTES: usize = 84;

/// Bytes of the cache of texts that each connection's interner keeps (the first 32 bytes of 2048
/// fields, their codes and lengths). `engine::text_cache` asserts it.
pub const INTERN_CACHE_BYTES: usize = 2048 * (32 + 8);

/// Runs that one parsing pass may produce; a read with more runs is digested in several passes.
/// As many as the records of a pass (`FOLD_ROWS`): the smallest packets have one each.
pub const RUNS_LIMIT: usize = 512;
/// Bytes of one run. `wire::record` asserts it.
pub const RUN_BYTES: usize = 24;

/// Latencies are told apart down to this many nanoseconds.
pub const LATENCY_NS_MIN: u64 = 64;
/// Longer latencies are recorded as this one; a histogram never grows.
pub const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// Significant decimal digits of a latency.
pub const LATENCY_DIGITS: u8 = 3;
/// Bytes of one histogram with the three values above. `engine::latency` asserts it.
pub const LATENCY_BYTES: usize = 21 * 1024 * 8;

/// Significant decimal digits of the latencies that each message connection keeps, and of the waits
/// of a record connection's gathered reads: with two, one slow reply made a quiet connection keep
/// 7 KiB and more.
pub const SMALL_LATENCY_DIGITS: u8 = 1;
/// Bytes that they take at most. `engine::latency` tests it.
pub const SMALL_LATENCY_BYTES: usize = 2 << 10;

/// Column sets that may be under way to the aggregation, for each worker, beside the one that each
/// connection may hold. As many are made at start.
pub const BATCHES_IN_FLIGHT: usize = 4;
/// Jobs (full column sets, finished connections) that wait for one aggregation thread.
pub const AGGREGATION_QUEUE: usize = 32;
/// Results that wait to be printed.
pub const REPORT_QUEUE: usize = 4;
/// Accepted connections that wait for one worker to take them over.
pub const INBOX: usize = 64;
/// Connections that the kernel holds before they are accepted.
pub const LISTEN_BACKLOG: i32 = 1024;
/// Submission queue entries of each worker's ring.
pub const RING_ENTRIES: u32 = 256;
/// The most buffers that one ring may register; tokio-uring drops the excess without a word.
pub const REGISTERED_BUFFERS_MAX: usize = 1024;

/// Bytes that gathered reads of a record connection wait for, or half of its window where that is
/// less: with 64 KiB a read costs an eighth of what 60 reads of 1 KiB do, and it still fits into a
/// core's own cache.
pub const COALESCE_BYTES: usize = 64 << 10;
/// Small and fast reads in a row after which a connection's reads are gathered.
pub const COALESCE_READS: u32 = 16;
/// The same where gathering did not pay several times: it doubles each time, up to this.
pub const COALESCE_READS_MAX: u32 = 1024;
/// What is fast: so many reads in a `--coalesce-delay`. What is small: so many fit into a mark.
pub const COALESCE_READS_PER_DELAY: u32 = 8;
/// Single reads that a gathered one must be worth, or gathering ends. Timer, mark and poll cost
/// about as much as two; it must be less than what comes in a wait at the pace that began it.
pub const COALESCE_GAIN: usize = 3;
/// Gathered reads in a row that fill the window after which they are no longer gathered.
pub const COALESCE_FULL_READS: u32 = 4;
/// The part of a `--coalesce-delay` after which a wait is ended. The rest is for a timer that fires
/// late and a worker that is busy.
pub const COALESCE_DUE: f64 = 0.625;
/// The part of it after which a wait is ended together with one that is due, so that the timer of
/// many connections fires eight times in a delay at most, and not once for each of them.
pub const COALESCE_EARLY: f64 = 0.5;
const _: () = assert!(
    (COALESCE_GAIN as f64) < COALESCE_DUE * COALESCE_READS_PER_DELAY as f64
        && 0.0 < COALESCE_EARLY
        && COALESCE_EARLY <= COALESCE_DUE
        && COALESCE_DUE < 1.0
);

/// How long a line waits for a stderr that takes none. After it they are left out, and counted,
/// until one is taken: whoever reads stderr must be able to hold up neither results nor the end.
pub const STDERR_PATIENCE: Duration = Duration::from_millis(500);
/// How often deadlines are looked at, hence how late one may be noticed.
pub const TICK: Duration = Duration::from_millis(50);
/// How long the acceptor rests after the process ran out of file descriptors.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Log lines about single connections that are written in one second; the rest are counted.
pub const LOG_LINES_PER_SECOND: u32 = 20;

/// Longest payload that a client may send before it has authenticated, where that is required.
pub const PAYLOAD_BYTES_BEFORE_AUTH: usize = 512;
/// Failures to authenticate after which a connection is closed.
pub const AUTH_FAILURES_MAX: u8 = 3;
/// How long the answer to wrong credentials is held back.
pub const AUTH_FAILURE_DELAY: Duration = Duration::from_millis(100);

/// Receive window of a message connection that is idle or sends little.
pub const SMALL_WINDOW_BYTES: usize = 2 << 10;
/// Receive window of a message connection that sends much: the longest frame, at least.
pub const MESSAGE_WINDOW_BYTES: usize = 128 << 10;
/// Bytes of a quiet message connection, without TLS: window, state, its place in tables. Measured
/// with 10,000 connections (docs/operating/sizing.md), rounded up.
pub const MESSAGE_IDLE_BYTES: usize = 8 << 10;
/// Bytes of a busy one beside that: its large window, and the replies to a window full of the
/// smallest frames, each refused by the rate limit.
pub const MESSAGE_BUSY_BYTES: usize =
    MESSAGE_WINDOW_BYTES + MESSAGE_WINDOW_BYTES / 12 * 48 + SMALL_LATENCY_BYTES;
/// Bytes that may wait for one receiver that does not read; one more and it is cut.
pub const RECEIVER_QUEUE_BYTES: usize = 1 << 20;
/// Pieces that may wait for one receiver, whatever their size; one more and it is cut.
pub const RECEIVER_QUEUE_PIECES: usize = 8192;
/// Bytes that may wait for all receivers together; each worker has its part of them, but two
/// receivers' worth at least.
pub const QUEUED_BYTES: usize = 64 << 20;
/// Bytes that may wait for a client before no more of its requests are read.
pub const REPLIES_WAITING_BYTES: usize = 64 << 10;
/// Pieces of broadcasts that wait for one worker to deliver them; senders wait beyond.
pub const HUB_QUEUE: usize = 64;
/// Bytes of broadcasts that are delivered together, and one piece more.
pub const DELIVERY_BYTES: usize = 128 << 10;
/// Receivers that a worker serves before it looks after its sockets again.
pub const DELIVERIES_AT_ONCE: usize = 64;
/// Refused connections that the acceptor keeps until they have read why.
pub const REFUSED_LINGERING: usize = 256;

/// Bytes of a record at most: so that the smallest window that is allowed for it stays small, and
/// what a u16 length can say.
pub const RECORD_BYTES_MAX: usize = 65_535;
/// Fields of a record at most.
pub const SCHEMA_FIELDS_MAX: usize = 256;
/// Fields that make a group at most.
pub const SCHEMA_KEYS_MAX: usize = 8;
/// Aggregates of a schema at most.
pub const SCHEMA_AGGREGATES_MAX: usize = 64;
/// Bytes of a text or bytes field that is a key, at most: `engine::text_tag` keeps lengths in so
/// many bits.
pub const TEXT_KEY_BYTES_MAX: usize = 4095;
/// Longest name of a schema or a field.
pub const NAME_BYTES_MAX: usize = 64;
/// Bytes that a file with a schema may have: that many fields, with comments.
pub const SCHEMA_FILE_BYTES_MAX: usize = 1 << 20;

/// Smallest and largest `--buffer-bytes`. The smallest keeps a window from ever being full of one
/// unfinished record; the largest is what one `read` can sensibly bring.
pub const BUFFER_BYTES: (usize, usize) = (4 << 10, 16 << 20);
/// Smallest and largest `--batch-rows`.
pub const BATCH_ROWS: (usize, usize) = (1, 16 << 20);
/// Smallest and largest `--packet-bytes-limit`: a record of a byte, and what a u32 length can say.
/// It is a packet of one record of the schema in use at least.
pub const PACKET_BYTES_LIMIT: (u64, u64) = (1, u32::MAX as u64);
/// Smallest and largest `--groups-limit`: codes of texts are u32.
pub const GROUPS_LIMIT: (usize, usize) = (1, u32::MAX as usize);
/// Smallest and largest `--strings-bytes-limit`: one text, and what a u32 offset can say.
pub const STRINGS_BYTES_LIMIT: (usize, usize) = (256, u32::MAX as usize);
/// Smallest and largest `--max-connections` and `--max-streams`.
pub const MAX_CONNECTIONS: (usize, usize) = (1, 65_536);
/// Smallest and largest `--rate-limit` and `--global-rate-limit`; 0 is no limit.
pub const RATE_LIMIT: (u64, u64) = (0, 1_000_000_000);
/// What the admin port lies above the message port by default.
pub const ADMIN_PORT_OFFSET: u16 = 1000;
/// Smallest and largest `--idle-timeout` and of every other time that a peer is given to do
/// something: two ticks, and a week.
pub const TIMEOUT_MS: (u64, u64) = (2 * TICK.as_millis() as u64, 7 * 24 * 3600 * 1000);
/// Smallest and largest `--drain-timeout`; with 0 running streams end with the signal.
pub const DRAIN_TIMEOUT_MS: (u64, u64) = (0, TIMEOUT_MS.1);
/// Smallest and largest `--linger` and `--refused-linger`; 0 closes at once.
pub const LINGER_MS: (u64, u64) = (0, 60 * 1000);

/// Smallest and largest `--coalesce-delay`; 0 gathers nothing. What waits longer than a second is
/// no stream that comes fast.
pub const COALESCE_DELAY_US: (u64, u64) = (0, 1_000_000);
/// Smallest and largest `--interval`: two ticks, since workers publish latencies at each, and an
/// hour.
pub const INTERVAL_MS: (u64, u64) = (2 * TICK.as_millis() as u64, 3600 * 1000);
/// Time in which at most one line of the log is about files of one kind that cannot be written.
pub const FILE_COMPLAINTS: Duration = Duration::from_secs(1);
/// Longest `--node`, as in the names of hosts.
pub const NODE_NAME_BYTES_MAX: usize = 64;
/// Smallest and largest `--partials-interval`: each batch of a stream is two files, which are
/// synced, and what is not in a file is lost when a process is killed.
pub const PARTIALS_INTERVAL_MS: (u64, u64) = (100, 3600 * 1000);
/// Rows of a result that are turned into a file's form at a time: a row group of Parquet, a batch
/// of Arrow. What takes memory beside the result is that, and it grows with the texts.
pub const FILE_ROWS: usize = 128 << 10;
/// Smallest and largest `--capture-bytes-limit`: the largest is above what any disk has.
pub const CAPTURE_BYTES_LIMIT: (u64, u64) = (1, 1 << 60);
/// Bytes that are handed to the capture thread at a time: what one read usually brings at most.
pub const CAPTURE_CHUNK_BYTES: usize = 256 << 10;
/// Chunks that may wait for the capture thread; streams wait for room beyond.
pub const CAPTURE_CHUNKS: usize = 32;

/// Users that one file may have.
pub const AUTH_USERS_MAX: usize = 100_000;
/// Bytes that one file may have: that many users with the longest names, and some comments.
pub const AUTH_FILE_BYTES_MAX: usize = 32 << 20;
/// Longest name of a user, in bytes.
pub const USER_BYTES_MAX: usize = 255;
/// Random bytes of a token, 256 bits: nobody guesses one, and its plain SHA-256 gives nothing away.
pub const TOKEN_BYTES: usize = 32;
/// Random bytes of a session's id, 128 bits: no two sessions meet by chance.
pub const SESSION_ID_BYTES: usize = 16;
/// Time between two searches for buckets to forget. Where names come faster than buckets fill, the
/// table is not searched for each of them.
pub const SWEEP_PAUSE_NS: u64 = 100_000_000;

/// Bytes of the storage for received bytes while nothing is waiting in it.
pub const TLS_INCOMING_BYTES: usize = 2 << 10;
/// Bytes that received records may occupy before they say something: a handshake message in
/// pieces, such as a long chain of client certificates.
pub const TLS_INCOMING_BYTES_MAX: usize = 64 << 10;
/// Bytes that a file of certificates or a key may have: about 500 certificates.
pub const PEM_FILE_BYTES_MAX: usize = 1 << 20;
/// TLS 1.2 sessions that are remembered for resumption by clients without tickets. Each takes a
/// few hundred bytes, and some KiB with a client's certificates.
pub const TLS_SESSIONS_MAX: usize = 1024;
/// A certificate that ends within this time is worth a warning.
pub const CERTIFICATE_ENDS_SOON: Duration = Duration::from_secs(7 * 24 * 3600);

/// Bytes of the packets that `send` makes once and sends again and again, where the groups need no
/// more: they stay in a core's second-level cache, and hold some thousand different records.
pub const SEND_BLOCK_BYTES: usize = 1 << 20;
/// Bytes that they may be at most: 10,000,000 groups of the built-in record have room, and the
/// largest packet that a length can say.
pub const SEND_BLOCK_BYTES_MAX: u128 = 4 << 30;
/// Smallest and largest `send --groups`. Each group has a record in the block, so the largest is a
/// block of 2.7 GB with the built-in record; keys that say little allow fewer.
pub const SEND_GROUPS: (u32, u32) = (1, 10_000_000);
/// Smallest and largest `send --write-bytes`: at most so many blocks in one system call as it takes
/// pieces (1024).
pub const SEND_WRITE_BYTES: (usize, usize) = (0, 256 << 20);
/// Smallest and largest `send --rate` in records a second; 0 is as fast as they can be sent.
pub const SEND_RATE: (u64, u64) = (0, 1_000_000_000);
/// Smallest and largest `replay --write-bytes`, which each connection has in memory.
pub const REPLAY_WRITE_BYTES: (usize, usize) = (1, 256 << 20);
/// Largest `replay --rate` in bytes a second; 0 is as fast as they can be sent.
pub const REPLAY_RATE_MAX: u64 = 1_000_000_000_000;
/// Shortest sleep of a connection that sends at a rate. Where its writes are due at shorter
/// distances, it sends several each time that it wakes: waking costs more than a small write.
pub const SEND_SLEEP_MIN: Duration = Duration::from_micros(100);

/// Admin connections at one time; one more is told so and closed.
pub const ADMIN_CONNECTIONS: usize = 32;
/// Longest head of a request, its first line included; also what is read at a time.
pub const ADMIN_HEAD_BYTES: usize = 8 << 10;
/// Longest time from a connection's beginning, or from the first byte of a later request, until
/// the head is there.
pub const ADMIN_HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time from a head until the client has taken the reply.
pub const ADMIN_REPLY_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest silence between two requests; above the usual interval of scrapes, 15 s.
pub const ADMIN_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may go on sending after the last reply, so that a close does not destroy it.
pub const ADMIN_LINGER: Duration = Duration::from_secs(1);
/// What it may send in that time, thrown away.
pub const ADMIN_LINGER_BYTES: usize = 64 << 10;
/// Time that rates are measured over.
pub const ADMIN_SAMPLE: Duration = Duration::from_secs(1);
