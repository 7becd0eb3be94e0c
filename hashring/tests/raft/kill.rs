//! A writer is killed again and again, most of the times while it opens the store. What it was told
//! is durable is there each time.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use crate::writer::{Numbers, Writer};

const KILLS_MIN: u64 = 60;
/// After so many kills without a hit the file below is put there by hand: on a disk that is fast
/// enough no kill meets it.
const KILLS_MAX: u64 = 300;
/// Kills that hit the file below.
const HITS_MIN: u64 = 1;

/// A file that is there for a moment while the store is opened. A kill that leaves it half written
/// is the one that the database below cannot stand.
fn unfinished_file(path: &Path) -> Option<PathBuf> {
    let mut files = fs::read_dir(path).ok()?.flatten().map(|entry| entry.path());
    files.find(|file| file.extension().is_some_and(|extension| extension == "generating"))
}

#[test]
fn killed_writers_lose_nothing() {
    let seed = 0x5eed_0001;
    let mut numbers = Numbers(seed);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("log");
    let (mut kills, mut hits, mut acknowledged) = (0, 0, 0);
    while kills < KILLS_MIN || hits < HITS_MIN {
        let mut writer = Writer::start(&path);
        if kills % 4 == 0 {
            let count = numbers.below(1..40);
            writer.wait_until(|acked| acked.count >= count);
        } else {
            while unfinished_file(&path).is_none() && writer.acked().count == 0 {
                std::hint::spin_loop();
            }
        }
        let acked = writer.kill();
        if kills >= KILLS_MAX {
            fs::write(path.join("snap.0000000000000040.generating"), [0x40; 64]).unwrap();
        }
        if let Some(file) = unfinished_file(&path) {
            // It is written in microseconds, and mostly whole. A kill just before would have left
            // less of it.
            let file = File::options().write(true).open(file).unwrap();
            let bytes = file.metadata().unwrap().len();
            file.set_len(numbers.below(0..bytes + 1).min(numbers.below(0..bytes + 1))).unwrap();
            hits += 1;
        }
        acked.check(&path);
        kills += 1;
        acknowledged += acked.count;
    }
    println!("{kills} kills, {hits} of them left a file half written, {acknowledged} writes acknowledged");
    assert!(acknowledged > kills, "the kills come too early");
}
