//! Tables for people, lines of JSON for programs.

use std::path::Path;

use serde_json::{Value, json};

use crate::measure::{Figures, Round, spread};
use crate::workloads::Workload;

/// Which machine, and what is compared.
pub(crate) fn environment(home: &Path) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu_info = read("/proc/cpuinfo");
    let cpu = cpu_info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    println!(
        "{} {}, {} x {}, in {}, load {}",
        std::env::consts::OS,
        read("/proc/sys/kernel/osrelease").trim(),
        std::thread::available_parallelism().map_or(0, usize::from),
        cpu.map_or("unknown processor", |(_, name)| name),
        home.display(),
        read("/proc/loadavg").split(' ').next().unwrap_or("unknown"),
    );
    println!("SQLite {}, redb 4, fjall 3, dwell as it is here", rusqlite::version());
}

/// Prints a table and returns its lines of JSON.
pub(crate) fn table(workload: &Workload, rounds: &[(&'static str, Vec<Round>)]) -> Vec<Value> {
    let plural = if workload.clients == 1 { "client" } else { "clients" };
    println!("\n{}: {}, {} {plural}", workload.name, workload.what, workload.clients);
    println!(
        "  {:<18} {:>9} {:>21} {:>7} {:>9} {:>9} {:>9} {:>8} {:>7}",
        "", "a second", "least .. most", "dwell x", "p50 us", "p99 us", "p99.9 us", "B", "flushes"
    );
    let lines: Vec<(&str, Vec<Figures>, u64)> = rounds
        .iter()
        .map(|(name, rounds)| {
            let count = rounds.iter().map(|round| round.operations).sum();
            (*name, rounds.iter().map(|round| round.clone().figures()).collect(), count)
        })
        .collect();
    let rate = |figures: &[Figures]| spread(figures.iter().map(|figures| figures.ops_per_s).collect());
    let ours = lines.iter().find(|(name, ..)| *name == "dwell").map(|(_, figures, _)| rate(figures)[0]);
    for (name, figures, _) in &lines {
        let [middle, least, most] = rate(figures);
        let wait = |at: usize| spread(figures.iter().map(|figures| figures.waits_us[at]).collect())[0];
        let optional = |of: fn(&Figures) -> Option<f64>, digits: usize| {
            let values: Option<Vec<f64>> = figures.iter().map(of).collect();
            values.map_or_else(|| "?".to_owned(), |values| format!("{:.digits$}", spread(values)[0]))
        };
        println!(
            "  {name:<18} {middle:>9.0} {:>21} {:>7} {:>9.0} {:>9.0} {:>9.0} {:>8} {:>7}",
            format!("{least:.0} .. {most:.0}"),
            ours.map_or_else(String::new, |ours| format!("{:.2}", ours / middle)),
            wait(0),
            wait(1),
            wait(2),
            optional(|figures| figures.bytes_per_op, 0),
            optional(|figures| figures.fsyncs_per_op, 2),
        );
    }
    lines.iter().map(|(name, figures, count)| line(workload, name, figures, *count)).collect()
}

fn line(workload: &Workload, adapter: &str, figures: &[Figures], count: u64) -> Value {
    let all = |of: fn(&Figures) -> Option<f64>| {
        let values: Option<Vec<f64>> = figures.iter().map(of).collect();
        values.map_or(Value::Null, |values| {
            let [median, min, max] = spread(values);
            json!({ "median": median, "min": min, "max": max })
        })
    };
    json!({
        "workload": workload.name,
        "adapter": adapter,
        "clients": workload.clients,
        "n": count,
        "ops_per_s": all(|figures| Some(figures.ops_per_s)),
        "p50_us": all(|figures| Some(figures.waits_us[0])),
        "p99_us": all(|figures| Some(figures.waits_us[1])),
        "p999_us": all(|figures| Some(figures.waits_us[2])),
        "bytes_per_op": all(|figures| figures.bytes_per_op),
        "fsyncs_per_op": all(|figures| figures.fsyncs_per_op),
    })
}
