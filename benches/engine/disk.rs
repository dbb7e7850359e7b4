//! The disk without us: what one durable write costs here at least.

use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::report::{RUNS, Run};

/// Overwrites 4 KiB of a file and waits for the disk, over and over.
pub(crate) fn overwrite_and_sync(home: &Path, run: Duration) -> Vec<Run> {
    let mut file = OpenOptions::new().create_new(true).write(true).open(home.join("bare")).unwrap();
    file.write_all(&vec![1; PAGES * PAGE]).unwrap();
    file.sync_all().unwrap();
    let mut one = || {
        let (begun, mut run_done) = (Instant::now(), Run::default());
        while run_done.time < run {
            let started = Instant::now();
            let at = run_done.operations % PAGES as u64 * PAGE as u64;
            file.seek(SeekFrom::Start(at)).unwrap();
            file.write_all(&[2; PAGE]).unwrap();
            file.sync_data().unwrap();
            run_done.latencies.push(started.elapsed());
            run_done.operations += 1;
            run_done.time = begun.elapsed();
        }
        run_done
    };
    (0..RUNS).map(|_| one()).collect()
}

const PAGE: usize = 4096;
const PAGES: usize = 256;
