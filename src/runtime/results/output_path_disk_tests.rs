//! Replacing a file over a simulated disk: whatever fails, the path has the old content or the new
//! one, and the next attempt works.

use super::*;
use crate::runtime::disk::faults::{Crash, DiskFaults};
use crate::runtime::disk::simulated::SimulatedDisk;
use fastrand::Rng;
use std::io::Write;

fn write(path: &Path, content: &[u8]) -> Result<(), String> {
    let path = OutputPath::open("--output", path)?;
    path.write(|out| out.write_all(content)).map_err(|error| error.to_string())
}

fn run(seed: u64) {
    let mut random = Rng::with_seed(seed);
    let disk = SimulatedDisk::new(seed, DiskFaults::none());
    let path = disk.root().join("merged.csv");
    let old = random.bool().then(|| b"an old result".to_vec());
    old.iter().for_each(|old| disk.put(&path, old));
    let new: Vec<u8> = (0..random.usize(..200_000)).map(|_| random.u8(..)).collect();
    disk.restart(DiskFaults::draw(&mut random, 16, 200_000));
    let written = write(&path, &new);
    let announced = written.is_ok() && !disk.is_down();
    if !disk.is_down() {
        let crash = if random.bool() { Crash::Kill } else { Crash::Power };
        let now = disk.content(&path);
        assert!(now == old || now.as_ref() == Some(&new), "seed {seed}: neither old nor new");
        disk.crash(crash);
    }
    disk.restart(DiskFaults::none());
    let now = disk.content(&path);
    let is_new = now.as_ref() == Some(&new);
    assert!(is_new || now == old && !announced, "seed {seed}: {announced} {:?}", written.err());
    write(&path, b"the next").unwrap_or_else(|error| panic!("seed {seed}, the next: {error}"));
    disk.crash(Crash::Power);
    assert_eq!(disk.content(&path).as_deref(), Some(&b"the next"[..]), "seed {seed}");
}

#[test]
fn a_replaced_file_has_the_old_content_or_the_new() {
    (0..2000).for_each(run);
}
