//! The stores that are compared.
//!
//! It knows each of them by name, what it promises, and how to open it in an empty directory.

mod dwell;
mod fjall;
mod floor;
mod group;
mod redb;
mod sqlite;

use std::path::Path;

use crate::store::Store;

/// A store to compare.
#[derive(Clone, Copy)]
pub(crate) struct Adapter {
    pub(crate) name: &'static str,
    /// What is acknowledged outlives the process and the power.
    pub(crate) durable: bool,
    /// It keeps sessions, and does not only write.
    pub(crate) keeps: bool,
    pub(crate) open: fn(&Path) -> Box<dyn Store>,
}

const ALL: &[Adapter] = &[
    Adapter { name: "dwell", durable: true, keeps: true, open: dwell::open },
    Adapter { name: "sqlite-full", durable: true, keeps: true, open: sqlite::full },
    Adapter { name: "sqlite-full-group", durable: true, keeps: true, open: sqlite::full_group },
    Adapter { name: "sqlite-normal", durable: false, keeps: true, open: sqlite::normal },
    Adapter { name: "fjall", durable: true, keeps: true, open: fjall::each },
    Adapter { name: "fjall-group", durable: true, keeps: true, open: fjall::group },
    Adapter { name: "redb", durable: true, keeps: true, open: redb::each },
    Adapter { name: "redb-group", durable: true, keeps: true, open: redb::group },
    Adapter { name: "floor", durable: true, keeps: false, open: floor::open },
];

/// Those of these names, or all.
pub(crate) fn choose(names: &[String]) -> Result<Vec<Adapter>, String> {
    if names.is_empty() {
        return Ok(ALL.to_vec());
    }
    let known = || ALL.iter().map(|adapter| adapter.name).collect::<Vec<_>>().join(", ");
    let find = |name: &String| ALL.iter().find(|adapter| adapter.name == name).copied();
    names.iter().map(|name| find(name).ok_or_else(|| format!("no adapter `{name}`; there are {}", known()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_are_chosen_by_name() {
        assert_eq!(choose(&[]).unwrap().len(), ALL.len());
        let names = |names: &[&str]| choose(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        assert_eq!(
            names(&["fjall", "dwell"]).unwrap().iter().map(|adapter| adapter.name).collect::<Vec<_>>(),
            ["fjall", "dwell"]
        );
        assert!(names(&["oracle"]).is_err_and(|error| error.contains("oracle") && error.contains("redb-group")));
    }
}
