//! Places where a test makes the running engine panic or wait. In builds without debug assertions,
//! such as releases, there are none.
//!
//! `RINGEST_FAILPOINTS` names a directory. A file `NAME.panic` or `NAME.block` in it makes the next
//! thread that passes the place `NAME` panic, or wait. That thread renames the file to `NAME.hit`,
//! so a test sees that it came by; one that waits goes on when the test removes `NAME.hit`.

/// The place `name`: does nothing unless a test has prepared it.
#[cfg(all(debug_assertions, not(feature = "simulation")))]
pub(crate) fn failpoint(name: &str) {
    use std::path::PathBuf;
    use std::sync::OnceLock;
    use std::time::Duration;
    use std::{env, fs, thread};

    static DIRECTORY: OnceLock<Option<PathBuf>> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| env::var_os("RINGEST_FAILPOINTS").map(PathBuf::from));
    let Some(directory) = directory else { return };
    let hit = directory.join(format!("{name}.hit"));
    let armed = |action| fs::rename(directory.join(format!("{name}.{action}")), &hit).is_ok();
    if armed("panic") {
        panic!("a test made {name} panic");
    }
    if armed("block") {
        while hit.exists() {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The place `name` in a simulation: panics if the world has planned it.
#[cfg(feature = "simulation")]
pub(crate) fn failpoint(name: &str) {
    if crate::runtime::world::panic_is_due(name) {
        panic!("the simulation made {name} panic");
    }
}

/// Nothing.
#[cfg(not(any(debug_assertions, feature = "simulation")))]
#[inline(always)]
pub(crate) fn failpoint(_name: &str) {}
