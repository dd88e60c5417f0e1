//! The verdicts of `host`, from given facts: makes no ring.

use super::*;
use rustix::io::Errno;

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
fn each_refusal_of_a_ring_has_its_own_remedy() {
    let remedy = |errno: Errno, disabled, seccomp| {
        let error = io::Error::from_raw_os_error(errno.raw_os_error());
        let finding = ring_refused(&error, &Refusal { disabled, seccomp });
        assert_eq!(finding.verdict, Verdict::Fail);
        finding.remedy.unwrap()
    };
    assert!(remedy(Errno::PERM, Some(2), true).contains("io_uring_disabled is 2"));
    assert!(remedy(Errno::PERM, Some(1), false).contains("kernel.io_uring_group"));
    assert!(remedy(Errno::PERM, Some(0), true).starts_with("a seccomp profile"));
    assert!(remedy(Errno::PERM, None, false).contains("security module"));
    assert!(remedy(Errno::NOSYS, None, false).contains("CONFIG_IO_URING"));
    assert!(remedy(Errno::NOSYS, Some(0), true).contains("podman"));
    assert!(remedy(Errno::NOMEM, Some(0), false).contains("RLIMIT_MEMLOCK"));
    assert!(remedy(Errno::INVAL, Some(0), false).contains("SINGLE_ISSUER"));
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

#[test]
fn a_quota_below_the_workers_is_a_warning() {
    let verdict = |text, workers| cpu_quota_finding(text, workers).verdict;
    assert_eq!(verdict(Some("max 100000\n"), 8), Verdict::Pass);
    assert_eq!(verdict(Some("150000 100000\n"), 2), Verdict::Warn);
    assert_eq!(verdict(Some("200000 100000\n"), 2), Verdict::Pass);
    assert_eq!(verdict(None, 2), Verdict::Pass);
}

#[test]
fn fields_of_proc_files_are_found_at_line_starts() {
    let file = b"Name:\tSeccomp: 9\nSeccomp:\t2\nSeccomp_filters:\t1\n";
    assert_eq!(proc_field(file, "Seccomp:").as_deref(), Some("2"));
    assert_eq!(proc_field(file, "Name:").as_deref(), Some("Seccomp: 9"));
    assert_eq!(proc_field(file, "CapEff:"), None);
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
    for finding in examine(&Config { records_port: Some(0), port: Some(0), ..Config::default() }) {
        assert_eq!(finding.remedy.is_none(), finding.verdict == Verdict::Pass, "{finding}");
    }
}
