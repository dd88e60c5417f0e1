//! Fields of the files in /proc that describe this process and its host.

use std::fs;

/// A field of /proc/self/status, by its name with the colon.
pub(crate) fn process_status(name: &str) -> Option<String> {
    proc_field(&fs::read("/proc/self/status").ok()?, name)
}

/// The rest of the line that begins with `name`, without white space around it.
pub(crate) fn proc_field(file: &[u8], name: &str) -> Option<String> {
    let at = memchr::memmem::find_iter(file, name.as_bytes())
        .find(|&at| at == 0 || file[at - 1] == b'\n')?;
    let rest = &file[at + name.len()..];
    let line = &rest[..memchr::memchr(b'\n', rest).unwrap_or(rest.len())];
    Some(String::from_utf8_lossy(line).trim().to_owned())
}

/// Bytes of a size as /proc files print it: `1234 kB`.
pub(crate) fn kib(size: &str) -> Option<u64> {
    Some(size.strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// Resident memory of this process; `None` if the kernel does not report it.
pub(crate) fn resident_bytes() -> Option<u64> {
    kib(&process_status("VmRSS:")?)
}

/// Memory of the host.
pub(crate) fn memory_total_bytes() -> Option<u64> {
    kib(&proc_field(&fs::read("/proc/meminfo").ok()?, "MemTotal:")?)
}

/// Threads of this process; 0 if /proc cannot be read.
pub(crate) fn running_threads() -> usize {
    fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_at_line_starts() {
        let file = b"Name:\tSeccomp: 9\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        assert_eq!(proc_field(file, "Seccomp:").as_deref(), Some("2"));
        assert_eq!(proc_field(file, "Name:").as_deref(), Some("Seccomp: 9"));
        assert_eq!(proc_field(file, "CapEff:"), None);
    }
}
