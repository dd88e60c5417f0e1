//! The verdicts of `host`, from given facts: makes no ring.

use super::*;
use std::path::PathBuf;

const GIB: u64 = 1 << 30;

#[test]
fn kernels_are_told_apart_by_their_release() {
    let verdict = |release| kernel_finding(release).verdict;
    assert_eq!(verdict("6.18.44-fc-v657"), Verdict::Pass);
    assert_eq!(verdict("6.0.0"), Verdict::Pass);
    assert_eq!(verdict("10.1"), Verdict::Pass);
    assert_eq!(verdict("5.19.17-generic"), Verdict::Fail);
    assert_eq!(verdict("strange"), Verdict::Warn);
}

#[test]
fn locked_memory_is_judged_at_its_edges() {
    let config = Config { registered_buffers: 4, buffer_bytes: 8192, ..Config::default() };
    let rings = 2 * RING_BYTES as u64;
    let fit = |allowed| {
        let (windows, finding) = locked_memory(&config, 2, allowed);
        (windows, finding.verdict)
    };
    assert_eq!(fit(None), (4, Verdict::Pass));
    assert_eq!(fit(Some(rings + 8 * 8192)), (4, Verdict::Pass));
    assert_eq!(fit(Some(rings + 8 * 8192 - 1)), (3, Verdict::Warn));
    assert_eq!(fit(Some(rings + 2 * 8192 - 1)), (0, Verdict::Warn));
    assert_eq!(fit(Some(rings)), (0, Verdict::Warn));
    assert_eq!(fit(Some(rings - 1)), (0, Verdict::Fail));
}

fn group_limit<T>(value: T) -> Option<GroupLimit<T>> {
    Some(GroupLimit { value, file: PathBuf::from("/sys/fs/cgroup/a/limit") })
}

#[test]
fn a_quota_below_the_workers_is_a_warning() {
    let judge = |cores, workers| cpu_quota(group_limit(cores).as_ref(), workers);
    let finding = judge(1.5, 2);
    assert_eq!(finding.verdict, Verdict::Warn);
    assert!(finding.found.ends_with("for 2 workers (/sys/fs/cgroup/a/limit)"), "{finding}");
    assert_eq!(judge(2.0, 2).verdict, Verdict::Pass);
    assert_eq!(cpu_quota(None, 2).verdict, Verdict::Pass);
}

/// A unit with 64 MiB on a host with much more.
#[test]
fn memory_is_judged_by_the_tightest_limit() {
    let config = Config { port: None, max_streams: 16, groups_limit: 1000, ..Config::default() };
    let config = Config { strings_bytes_limit: 4096, ..config };
    let sums = config.memory(2);
    let judge = |host: u64, group: Option<u64>| {
        let limit = share_of(group.map_or(host, |group| group.min(host)));
        memory_finding(&sums, limit, host, group.and_then(group_limit))
    };
    let finding = judge(24 * GIB, None);
    assert_eq!((finding.verdict, finding.remedy.as_deref()), (Verdict::Pass, None));
    assert!(finding.found.ends_with("the host has 24.0 GiB"), "{finding}");
    let finding = judge(24 * GIB, Some(32 << 20));
    assert_eq!(finding.verdict, Verdict::Fail);
    let said = "; 32.0 MiB are allowed (/sys/fs/cgroup/a/limit)";
    assert!(finding.found.ends_with(said), "{finding}");
    assert!(finding.remedy.unwrap().contains("MemoryMax="));
    // The edges: the program itself counts, and all streams that send keep below the limit.
    let needed = (sums.all_receiving() + PROGRAM_BYTES).div_ceil(3) * 4;
    for (bytes, verdict) in [
        (sums.all_receiving() + PROGRAM_BYTES - 1, Verdict::Fail),
        (sums.all_receiving() + PROGRAM_BYTES, Verdict::Warn),
        (needed - 1, Verdict::Warn),
        (needed, Verdict::Pass),
    ] {
        assert_eq!(judge(bytes as u64, None).verdict, verdict, "{bytes}");
        assert_eq!(judge(u64::MAX, Some(bytes as u64)).verdict, verdict, "{bytes}");
    }
}

/// Nothing that peers do exceeds the limit; but what is not counted comes on top of it.
#[test]
fn a_limit_that_leaves_no_quarter_is_a_warning() {
    let sums = Config::default().memory(2);
    let judge = |limit| memory_finding(&sums, limit, 24 * GIB, None);
    assert_eq!(judge(18 * GIB).verdict, Verdict::Pass);
    let finding = judge(18 * GIB + 1);
    assert_eq!(finding.verdict, Verdict::Warn);
    assert!(finding.remedy.unwrap().contains("lower --memory-limit to 18.0 GiB"));
    // Where the other limits keep below it anyway, it does not matter.
    let config = Config { port: None, max_streams: 16, groups_limit: 1000, ..Config::default() };
    let sums = Config { strings_bytes_limit: 4096, ..config }.memory(2);
    assert_eq!(memory_finding(&sums, 24 * GIB, 24 * GIB, None).verdict, Verdict::Pass);
}

/// What serve opens in addition counts as well.
#[test]
fn captures_and_partials_are_in_the_sums() {
    let plain = Config::default();
    let captures = Config { capture: Some(PathBuf::from("d")), ..plain.clone() };
    let more = files_needed(&captures, 2) - files_needed(&plain, 2);
    assert_eq!(more, plain.max_streams as u64);
    let partials = Config { partials: Some(PathBuf::from("d")), ..plain.clone() };
    assert!(partials.memory(2).worst() > plain.memory(2).worst());
    assert!(captures.memory(2).all_receiving() > plain.memory(2).all_receiving());
}

#[test]
fn only_listening_sockets_of_the_port_count() {
    let table = "  sl  local_address rem_address   st\n\
                 0: 0100007F:2328 00000000:0000 0A\n\
                 1: 0100007F:2329 0100007F:2328 01\n";
    assert!(table_has_listener(table, 9000));
    assert!(!table_has_listener(table, 9001));
    assert!(!table_has_listener(table, 9002));
}

#[test]
fn findings_that_are_no_pass_have_a_remedy() {
    let config = Config { records_port: Some(0), port: Some(0), ..Config::default() };
    for finding in examine(&config) {
        assert_eq!(finding.remedy.is_none(), finding.verdict == Verdict::Pass, "{finding}");
    }
}
