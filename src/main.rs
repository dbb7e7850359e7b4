//! The `dwell` command. It has no commands yet.

fn main() {}
