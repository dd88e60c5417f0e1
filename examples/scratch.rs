use ringest::config::*;
use ringest::engine::columns::ColumnSet;
use ringest::engine::groups::GroupTable;
use ringest::engine::intake::*;
use std::time::Instant;
fn main() {
    let groups: u32 = std::env::args().nth(1).unwrap().parse().unwrap();
    let pr: usize = std::env::args().nth(2).unwrap().parse().unwrap();
    let recs: usize = (groups as usize * 2).max(65536) / pr * pr;
    let mut rng = fastrand::Rng::with_seed(1);
    let words = ["north", "pump", "valve", "sensor", "meter"];
    let mut stream = Vec::new();
    for _ in 0..recs / pr {
        stream.extend(((4 + 267 * pr) as u32).to_be_bytes());
        for _ in 0..pr {
            let g = rng.u32(..groups);
            let begin = stream.len();
            stream.extend([1u32, 42, 100, 200, 255][g as usize % 5].to_be_bytes());
            stream.extend(rng.u16(..).to_be_bytes());
            stream.extend((rng.f32() * 1e30).to_be_bytes());
            stream.push(rng.u8(..));
            let x = g as usize / 5;
            let t = if x / 25 > 0 {
                format!("{} {} {}", words[x % 5], words[x / 5 % 5], x / 25)
            } else {
                format!("{} {}", words[x % 5], words[x / 5 % 5])
            };
            stream.extend(t.as_bytes());
            stream.resize(begin + 267, b' ');
        }
    }
    for mode in ["copy", "two", "copy", "two", "copy", "two"] {
        let config =
            Config { groups_limit: 10_000_000, strings_bytes_limit: 1 << 30, ..Config::default() };
        let mut intake = RecordIntake::new(&config, config.buffer_bytes);
        let mut buffer = vec![0u8; config.buffer_bytes];
        let mut scratch = ColumnSet::with_rows(FOLD_ROWS);
        let mut table = GroupTable::with_limits(config.groups_limit, FOLD_ROWS_MAX);
        let mut at = 0;
        let target = (24_000_000usize).max(recs * 6);
        let mut total = 0;
        let mut t0 = Instant::now();
        let mut n0 = 0;
        let mut warm = false;
        while total / 267 < target {
            if !warm && total / 267 > recs * 2 {
                warm = true;
                t0 = Instant::now();
                n0 = total;
            }
            let free = if mode == "copy" { 0..buffer.len() } else { intake.free() };
            let n = free.len().min(stream.len() - at);
            buffer[free.start..free.start + n].copy_from_slice(&stream[at..at + n]);
            at = (at + n) % stream.len();
            total += n;
            if mode == "copy" {
                std::hint::black_box(&mut buffer);
                continue;
            }
            intake.handle_read(n);
            while intake.poll_groups(&buffer, &mut scratch, &mut table).unwrap() == Next::Rows {}
            intake.compact(&mut buffer);
        }
        let ns = t0.elapsed().as_nanos() as f64 / ((total - n0) as f64 / 267.0);
        println!("{mode:5} {ns:6.2} ns/record  groups {}", table.groups());
    }
}
