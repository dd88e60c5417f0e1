//! Files of partials: whatever a Parquet file holds, a merge must end, with a result or with an
//! error that names the file. The first byte says what the file is: groups (`g`) or facts about
//! batches (`s`), in capitals without its checksum, behind which damage would not be noticed.

use crate::engine::aggregate::merge::{MergeOrder, merge};
use crate::wire::schema::Schema;
use std::path::PathBuf;
use std::{env, fs, process, thread};

/// The key of the checksum in a file's metadata.
const CHECKSUM_KEY: &[u8] = b"ringest.crc32";

pub(super) fn run(data: &[u8]) {
    let Some((what, file)) = data.split_first() else { return };
    let mut file = file.to_vec();
    if what.is_ascii_uppercase() {
        forget_checksum(&mut file);
    }
    let name = format!("ringest-fuzz-{}-{:?}", process::id(), thread::current().id());
    let path = env::temp_dir().join(name);
    fs::write(&path, file).expect("a file for each thread");
    let schema = Schema::built_in();
    let named = [path.clone()];
    let (groups, streams): (&[PathBuf], &[PathBuf]) = match what.to_ascii_lowercase() {
        b'g' => (&named, &[]),
        _ => (&[], &named),
    };
    for complete_only in [false, true] {
        let order = MergeOrder {
            schema: &schema,
            result: &schema,
            groups,
            streams,
            skip_damaged: false,
            complete_only,
        };
        match merge(&order) {
            Ok(merged) => assert_eq!(merged.grouped.columns().len(), schema.column_names().len()),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    fs::remove_file(path).expect("the file of this thread");
}

fn forget_checksum(file: &mut [u8]) {
    if let Some(at) = memchr::memmem::rfind(file, CHECKSUM_KEY) {
        file[at] = b'X';
    }
}
