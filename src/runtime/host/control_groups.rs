//! Limits of the control groups of this process: memory, CPU time and number of processes. Covers
//! every level from the process's own group to the root, in version 1, version 2 and hybrids.
//! Changes no group.

use std::fmt;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Values of memory.limit_in_bytes from here on mean "no limit": the kernel shows the largest
/// number of whole pages.
const UNLIMITED_BYTES: u64 = 1 << 62;

/// A limit, and the file that sets it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GroupLimit<T> {
    /// The limit.
    pub value: T,
    /// The file, as this process sees it.
    pub file: PathBuf,
}

impl<T> fmt::Display for GroupLimit<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.display().fmt(f)
    }
}

/// The tightest limits over all levels; `None` where no level has one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ControlGroups {
    /// Bytes of memory.
    pub memory_bytes: Option<GroupLimit<u64>>,
    /// CPU time, in cores.
    pub cores: Option<GroupLimit<f64>>,
    /// Processes and threads that may be started in addition to those that run.
    pub threads_left: Option<GroupLimit<u64>>,
}

impl ControlGroups {
    /// The limits of this process.
    pub(crate) fn of_this_process() -> Self {
        Self::read(Path::new("/"))
    }

    /// The same, with the files below `root` in place of those of the system.
    fn read(root: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let groups = read("proc/self/cgroup");
        let mut limits = ControlGroups::default();
        for mount in mounts(&read("proc/self/mountinfo")) {
            let Some(group) = mount.group(&groups) else { continue };
            let mut level = Level { root, limits: &mut limits };
            for directory in mount.levels(&group) {
                match &mount.controllers {
                    None => level.version_2(&directory),
                    Some(controllers) => level.version_1(&directory, controllers),
                }
            }
        }
        limits
    }
}

/// A mounted hierarchy of control groups.
#[derive(Debug, PartialEq)]
struct Mount {
    /// Controllers of a hierarchy of version 1; `None` for version 2.
    controllers: Option<Vec<String>>,
    /// The group that is mounted: not always the topmost one, as in some containers.
    group_at_top: PathBuf,
    /// Where it is mounted.
    at: PathBuf,
}

/// The hierarchies in /proc/self/mountinfo, whose format is in proc_pid_mountinfo(5).
fn mounts(mountinfo: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (group_at_top, at) = (unescape(place.next()?), unescape(place.next()?));
        let mut kind = kind.split(' ');
        let controllers = match kind.next()? {
            "cgroup2" => None,
            "cgroup" => Some(kind.nth(1)?.split(',').map(str::to_owned).collect()),
            _ => return None,
        };
        Some(Mount { controllers, group_at_top, at })
    };
    mountinfo.lines().filter_map(mount).collect()
}

/// A path in which white space and backslashes are written as octal numbers, such as `\040`.
fn unescape(text: &str) -> PathBuf {
    let mut pieces = text.split('\\');
    let mut path = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let code = piece.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                path.push(char::from(code));
                path.push_str(&piece[3..]);
            }
            None => path.push_str(piece),
        }
    }
    PathBuf::from(path)
}

impl Mount {
    /// The group of this process in this hierarchy, from the text of /proc/self/cgroup.
    fn group(&self, groups: &str) -> Option<PathBuf> {
        groups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (names, path) = rest.split_once(':')?;
            let is_own = match &self.controllers {
                None => names.is_empty(),
                Some(controllers) => {
                    names.split(',').any(|name| controllers.iter().any(|own| own == name))
                }
            };
            is_own.then(|| PathBuf::from(path))
        })
    }

    /// The directories of a group and of those around it, up to the mount. A group outside what is
    /// mounted, as seen from within a container, cannot be looked at: that leaves the mount.
    fn levels(&self, group: &Path) -> Vec<PathBuf> {
        let inside = group.strip_prefix(&self.group_at_top).unwrap_or(Path::new(""));
        let visible = inside.components().all(|part| matches!(part, Component::Normal(_)));
        let inside = if visible { inside } else { Path::new("") };
        let own = self.at.join(inside);
        own.ancestors().take_while(|level| level.starts_with(&self.at)).map(PathBuf::from).collect()
    }
}

/// The limits found so far, while the groups of a hierarchy are looked at.
struct Level<'a> {
    root: &'a Path,
    limits: &'a mut ControlGroups,
}

impl Level<'_> {
    fn version_2(&mut self, directory: &Path) {
        // Above memory.high, a group is slowed down until it is of no use.
        for name in ["memory.max", "memory.high"] {
            self.memory(&directory.join(name));
        }
        let file = directory.join("cpu.max");
        let text = self.text(&file).unwrap_or_default();
        if let Some((quota, period)) = text.split_once(' ') {
            self.cpu(quota, period, file);
        }
        self.processes(directory);
    }

    fn version_1(&mut self, directory: &Path, controllers: &[String]) {
        let has = |name: &str| controllers.iter().any(|own| own == name);
        if has("memory") {
            self.memory(&directory.join("memory.limit_in_bytes"));
        }
        if has("cpu") {
            let file = directory.join("cpu.cfs_quota_us");
            let period = self.text(&directory.join("cpu.cfs_period_us"));
            if let (Some(quota), Some(period)) = (self.text(&file), period) {
                self.cpu(&quota, &period, file);
            }
        }
        if has("pids") {
            self.processes(directory);
        }
    }

    fn memory(&mut self, file: &Path) {
        let limit = self.number(file).filter(|&bytes| bytes < UNLIMITED_BYTES);
        tighten(&mut self.limits.memory_bytes, limit, file);
    }

    /// `quota` is `max` or -1 without a limit.
    fn cpu(&mut self, quota: &str, period: &str, file: PathBuf) {
        let us = |text: &str| text.parse::<f64>().ok().filter(|&us| us > 0.0);
        let cores = us(quota).zip(us(period)).map(|(quota, period)| quota / period);
        tighten(&mut self.limits.cores, cores, &file);
    }

    fn processes(&mut self, directory: &Path) {
        let file = directory.join("pids.max");
        let running = self.number(&directory.join("pids.current")).unwrap_or(0);
        let left = self.number(&file).map(|max| max.saturating_sub(running));
        tighten(&mut self.limits.threads_left, left, &file);
    }

    fn text(&self, file: &Path) -> Option<String> {
        let path = self.root.join(file.strip_prefix("/").unwrap_or(file));
        Some(fs::read_to_string(path).ok()?.trim().to_owned())
    }

    /// `None` for `max`, and without such a file, as in the topmost group.
    fn number(&self, file: &Path) -> Option<u64> {
        self.text(file)?.parse().ok()
    }
}

fn tighten<T: PartialOrd>(limit: &mut Option<GroupLimit<T>>, value: Option<T>, file: &Path) {
    let Some(value) = value else { return };
    if limit.as_ref().is_none_or(|limit| value < limit.value) {
        *limit = Some(GroupLimit { value, file: file.to_owned() });
    }
}

#[cfg(test)]
#[path = "control_groups_tests.rs"]
mod tests;
