//! The checks that fuzzing runs, on the inputs that are in the tree: seeds, and whatever was found once.

#[expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "shared with a package of its own")]
#[path = "../fuzz/src/checks.rs"]
mod checks;

use std::path::Path;

#[test]
fn every_input_in_the_tree_passes_its_check() {
    for (target, check) in checks::ALL {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
        let mut inputs = 0;
        for entry in std::fs::read_dir(&folder).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            check(&bytes);
            for length in 0..bytes.len().min(512) {
                check(&bytes[..length]);
            }
            inputs += 1;
        }
        assert!(inputs > 0, "no inputs for {target}");
    }
}

/// The check of cookies can fail: it sees a session where there is one.
#[test]
fn the_check_of_cookies_meets_sessions() {
    checks::cookie(b"\x05\x01");
    assert!(checks::meets_session(b"\x05\x01") && !checks::meets_session(b"\x05\x03"));
}
