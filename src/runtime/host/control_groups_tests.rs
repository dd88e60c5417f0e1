//! Limits of control groups, read from directory trees that stand in for a host's.

use super::*;

/// A tree with these files, whose text ends in a line break as the kernel's does.
fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }
    root
}

fn limits(files: &[(&str, &str)]) -> ControlGroups {
    ControlGroups::read(host(files).path())
}

fn limit<T>(value: T, file: &str) -> Option<GroupLimit<T>> {
    Some(GroupLimit { value, file: PathBuf::from(file) })
}

const MOUNTED_2: &str =
    "25 20 0:22 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";

#[test]
fn every_level_of_version_2_counts_and_the_tightest_wins() {
    let found = limits(&[
        ("proc/self/mountinfo", MOUNTED_2),
        ("proc/self/cgroup", "0::/system.slice/ringest.service"),
        ("sys/fs/cgroup/system.slice/ringest.service/memory.max", "67108864"),
        ("sys/fs/cgroup/system.slice/memory.max", "1073741824"),
        ("sys/fs/cgroup/system.slice/ringest.service/cpu.max", "max 100000"),
        ("sys/fs/cgroup/system.slice/cpu.max", "150000 100000"),
        ("sys/fs/cgroup/system.slice/ringest.service/pids.max", "100"),
        ("sys/fs/cgroup/system.slice/ringest.service/pids.current", "60"),
        ("sys/fs/cgroup/system.slice/pids.max", "max"),
        ("sys/fs/cgroup/system.slice/pids.current", "900"),
    ]);
    let own = "/sys/fs/cgroup/system.slice/ringest.service";
    assert_eq!(found.memory_bytes, limit(64 << 20, &format!("{own}/memory.max")));
    assert_eq!(found.cores, limit(1.5, "/sys/fs/cgroup/system.slice/cpu.max"));
    assert_eq!(found.threads_left, limit(40, &format!("{own}/pids.max")));
}

#[test]
fn a_parent_may_be_tighter_and_memory_high_counts() {
    let found = limits(&[
        ("proc/self/mountinfo", MOUNTED_2),
        ("proc/self/cgroup", "0::/a/b/c"),
        ("sys/fs/cgroup/a/b/c/memory.max", "max"),
        ("sys/fs/cgroup/a/b/memory.high", "33554432"),
        ("sys/fs/cgroup/a/memory.max", "50331648"),
        ("sys/fs/cgroup/a/pids.max", "5"),
        ("sys/fs/cgroup/a/pids.current", "7"),
    ]);
    assert_eq!(found.memory_bytes, limit(32 << 20, "/sys/fs/cgroup/a/b/memory.high"));
    assert_eq!(found.threads_left, limit(0, "/sys/fs/cgroup/a/pids.max"));
    assert_eq!(found.cores, None);
}

#[test]
fn each_controller_of_version_1_has_its_own_group() {
    let mountinfo = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                     34 31 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                     37 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                     38 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                     39 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
    let groups = "9:name=systemd:/x\n8:pids:/p/q\n4:memory:/m/n\n2:cpuacct,cpu:/c\n0::/x";
    let found = limits(&[
        ("proc/self/mountinfo", mountinfo),
        ("proc/self/cgroup", groups),
        ("sys/fs/cgroup/memory/m/n/memory.limit_in_bytes", "9223372036854771712"),
        ("sys/fs/cgroup/memory/m/memory.limit_in_bytes", "134217728"),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712"),
        ("sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_quota_us", "50000"),
        ("sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_period_us", "100000"),
        ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1"),
        ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000"),
        ("sys/fs/cgroup/pids/p/pids.max", "10"),
        ("sys/fs/cgroup/pids/p/pids.current", "4"),
        // No controller is in version 2 here, so this file has no meaning.
        ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "1"),
    ]);
    let memory = "/sys/fs/cgroup/memory/m/memory.limit_in_bytes";
    assert_eq!(found.memory_bytes, limit(128 << 20, memory));
    assert_eq!(found.cores, limit(0.5, "/sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_quota_us"));
    assert_eq!(found.threads_left, limit(6, "/sys/fs/cgroup/pids/p/pids.max"));
}

#[test]
fn a_container_sees_its_own_group_at_the_top() {
    // Without a namespace of its own: the names are the host's, the mount begins at its group.
    let bound = "34 31 0:31 /docker/ab /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";
    for group in ["/docker/ab", "/docker/ab/", "/elsewhere"] {
        let found = limits(&[
            ("proc/self/mountinfo", bound),
            ("proc/self/cgroup", &format!("4:memory:{group}")),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "4096"),
        ]);
        assert_eq!(found.memory_bytes.map(|limit| limit.value), Some(4096), "{group}");
    }
    // With one: the top is `/`, and a process that entered from outside is above it.
    for group in ["/", "/../../x"] {
        let found = limits(&[
            ("proc/self/mountinfo", MOUNTED_2),
            ("proc/self/cgroup", &format!("0::{group}")),
            ("sys/fs/cgroup/memory.max", "8192"),
        ]);
        assert_eq!(found.memory_bytes.map(|limit| limit.value), Some(8192), "{group}");
    }
}

#[test]
fn without_limits_or_groups_there_are_none() {
    let nothing = ControlGroups::default();
    assert_eq!(limits(&[]), nothing);
    let mounted = [("proc/self/mountinfo", MOUNTED_2), ("proc/self/cgroup", "0::/a")];
    assert_eq!(limits(&mounted), nothing);
    let nonsense = [
        ("proc/self/mountinfo", "25 20 0:22\n- cgroup2\n"),
        ("proc/self/cgroup", "\u{fffd}\n0:\n::"),
    ];
    assert_eq!(limits(&nonsense), nothing);
    // Reads what this host has; whatever it is, it is read without an error.
    let _ = ControlGroups::of_this_process();
}

#[test]
fn blanks_in_paths_are_octal() {
    assert_eq!(unescape(r"/a\040b\134c"), PathBuf::from(r"/a b\c"));
    assert_eq!(unescape(r"/a\zz"), PathBuf::from("/azz"));
    let mounted = mounts(r"25 20 0:22 / /my\040groups rw - cgroup2 cgroup2 rw");
    assert_eq!(mounted[0].at, PathBuf::from("/my groups"));
}
