//! What a timer costs, in nanoseconds and bytes: the engine's wheel, and what could stand in its place.
//!
//! `cargo bench --bench wheel` takes about two minutes. Options, after `--`: `--quick` runs everything small, to see
//! that it works; `--full` adds ten million timers (about ten minutes more and 5 GiB of memory).
//!
//! Every contender runs in a process of its own, so that memory is what the system says the process grew by. Timers are
//! due at random within half an hour; every figure is the median of three runs. *Insert* files one, in a structure that
//! grows. *Re-arm* moves each timer once, in random order, to half an hour later. *Expire* lets time pass
//! second by second until all have fired. *Longest* is the longest that one call held its caller up: for the wheel a
//! slice of 256 visits, as its caller asks for; for the others one second's worth, because they cannot stop before. It is
//! processor time, so that what else runs on the machine does not count.
//! *Rebuild* is how long it takes to file all of them. Moka runs on real time and expires everything at
//! one moment.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "it prints a table and stops at the first failure")]

#[path = "../engine/report.rs"]
#[expect(dead_code, reason = "the other benchmarks print more")]
mod report;
mod rivals;
#[path = "../../src/engine/wheel.rs"]
#[allow(dead_code, unreachable_pub, reason = "the engine's own file; its tests run with the engine")]
mod wheel;

use std::hint::black_box;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use report::{RUNS, median};
use wheel::{Timers, Visit, Wheel};

/// Something that holds timers by number and fires them.
trait Contender {
    /// An empty one. Deadlines that its owner would keep anyway are copied here, before memory and time count.
    fn new(deadlines: &[u32]) -> Self;
    fn insert(&mut self, timer: u32, deadline: u32);
    fn re_arm(&mut self, timer: u32, deadline: u32);
    /// Lets time pass to this second. Returns how many fired and the longest that one call took.
    fn advance(&mut self, now: u32) -> (usize, Duration);
}

/// What one run of one contender took.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    insert_ns: f64,
    re_arm_ns: f64,
    expire_ns: f64,
    expire_re_armed_ns: f64,
    longest_us: f64,
    rebuild_s: f64,
    bytes: f64,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let [child, name, count] = args.as_slice()
        && child == CHILD
    {
        return run_child(name, count.parse().unwrap());
    }
    let mut counts = vec![1_000_000];
    for arg in &args {
        match arg.as_str() {
            "--quick" => counts = vec![20_000],
            "--full" => counts.push(10_000_000),
            other => panic!("unknown option `{other}`; there are --quick and --full"),
        }
    }
    report::environment(&std::env::temp_dir());
    for count in counts {
        report::heading(&format!("{count} timers"));
        println!(
            "  {:<34} {:>9} {:>9} {:>9} {:>11} {:>12} {:>9} {:>8}",
            "", "insert", "re-arm", "expire", "& re-armed", "longest", "rebuild", "bytes"
        );
        for (name, what) in CONTENDERS {
            let runs: Vec<Figures> = (0..RUNS).map(|_| spawn(name, count)).collect();
            print_row(what, &runs);
        }
    }
}

const CHILD: &str = "--child";
const CONTENDERS: [(&str, &str); 5] = [
    ("wheel", "the engine's wheel"),
    ("heap", "BinaryHeap, lazily re-armed"),
    ("tree", "BTreeMap by deadline"),
    ("delay_queue", "tokio-util's DelayQueue"),
    ("moka", "moka, expiry for each entry"),
];

/// Idle timeout of the sessions that the timers stand for, in seconds.
const IDLE: u32 = 1800;

fn spawn(name: &str, count: usize) -> Figures {
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    let output = command.args([CHILD, name, &count.to_string()]).stderr(Stdio::inherit()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut parts = text.split_whitespace();
    let mut next = || parts.next().expect("the child process failed").parse().unwrap();
    Figures {
        insert_ns: next(),
        re_arm_ns: next(),
        expire_ns: next(),
        expire_re_armed_ns: next(),
        longest_us: next(),
        rebuild_s: next(),
        bytes: next(),
    }
}

fn print_row(what: &str, runs: &[Figures]) {
    let of = |figure: fn(&Figures) -> f64| median(runs.iter().map(figure).collect()).0;
    println!(
        "  {what:<34} {:>6.1} ns {:>6.1} ns {:>6.1} ns {:>8.1} ns {:>9.0} us {:>7.3} s {:>6.1} B",
        of(|run| run.insert_ns),
        of(|run| run.re_arm_ns),
        of(|run| run.expire_ns),
        of(|run| run.expire_re_armed_ns),
        of(|run| run.longest_us),
        of(|run| run.rebuild_s),
        of(|run| run.bytes),
    );
}

fn run_child(name: &str, count: usize) {
    let figures = match name {
        "wheel" => measure::<EngineWheel>(count),
        "heap" => measure::<rivals::Heap>(count),
        "tree" => measure::<rivals::Tree>(count),
        "delay_queue" => rivals::with_paused_time(|| measure::<rivals::Queue>(count)),
        "moka" => rivals::measure_moka(count),
        other => panic!("no contender `{other}`"),
    };
    let Figures { insert_ns, re_arm_ns, expire_ns, expire_re_armed_ns, longest_us, rebuild_s, bytes } = figures;
    println!("{insert_ns} {re_arm_ns} {expire_ns} {expire_re_armed_ns} {longest_us} {rebuild_s} {bytes}");
}

fn measure<C: Contender>(count: usize) -> Figures {
    let deadlines: Vec<u32> = numbers(7).take(count).map(|number| 1 + number % IDLE).collect();
    let order = shuffled(count);
    let mut figures = Figures::default();
    let each = |begun: Instant| begun.elapsed().as_secs_f64() * 1e9 / count as f64;

    let mut contender = C::new(&deadlines);
    let before = report::resident_bytes().unwrap_or_default();
    let begun = Instant::now();
    for (timer, &deadline) in (0..).zip(&deadlines) {
        contender.insert(timer, deadline);
    }
    figures.insert_ns = each(begun);
    figures.bytes = report::resident_bytes().unwrap_or_default().saturating_sub(before) as f64 / count as f64;

    let mut longest = Duration::ZERO;
    let mut expire = |contender: &mut C, from: u32, to: u32| {
        let begun = Instant::now();
        let mut fired = 0;
        for now in from..=to {
            let (more, took) = contender.advance(now);
            fired += more;
            longest = longest.max(took);
        }
        assert_eq!(fired, count, "timers that did not fire");
        each(begun)
    };
    figures.expire_ns = expire(&mut contender, 1, IDLE);
    drop(contender);

    let mut contender = C::new(&deadlines);
    let begun = Instant::now();
    for (timer, &deadline) in (0..).zip(&deadlines) {
        contender.insert(timer, deadline);
    }
    figures.rebuild_s = begun.elapsed().as_secs_f64();

    let later: Vec<u32> = order.iter().map(|&timer| deadlines.get(timer as usize).unwrap() + IDLE).collect();
    let begun = Instant::now();
    for (&timer, &deadline) in order.iter().zip(&later) {
        contender.re_arm(timer, deadline);
    }
    figures.re_arm_ns = each(begun);
    figures.expire_re_armed_ns = expire(&mut contender, 1, 2 * IDLE);
    figures.longest_us = longest.as_secs_f64() * 1e6;
    figures
}

/// The engine's wheel, with deadlines where a slot would have them.
struct EngineWheel {
    wheel: Wheel,
    owner: Owner,
}

struct Owner {
    deadlines: Vec<u32>,
    fired: usize,
}

/// Visits in a slice, as the engine's reaper asks for.
const SLICE: usize = 256;

impl Timers for Owner {
    fn due(&mut self, slot: u32, _armed: u32, visit: Visit) -> Option<u32> {
        let deadline = self.deadlines.get(slot as usize).copied()?;
        if deadline > visit.now {
            black_box(visit.armed(deadline));
            return Some(deadline);
        }
        self.fired += 1;
        None
    }
}

impl Contender for EngineWheel {
    fn new(deadlines: &[u32]) -> Self {
        Self { wheel: Wheel::new(0), owner: Owner { deadlines: deadlines.to_vec(), fired: 0 } }
    }

    fn insert(&mut self, timer: u32, deadline: u32) {
        black_box(self.wheel.insert(timer, deadline));
    }

    fn re_arm(&mut self, timer: u32, deadline: u32) {
        *self.owner.deadlines.get_mut(timer as usize).unwrap() = deadline;
    }

    fn advance(&mut self, now: u32) -> (usize, Duration) {
        let before = self.owner.fired;
        let mut longest = Duration::ZERO;
        loop {
            let begun = processor_time();
            let done = self.wheel.advance(now, SLICE, &mut self.owner);
            longest = longest.max(processor_time() - begun);
            if done {
                return (self.owner.fired - before, longest);
            }
        }
    }
}

/// What this thread has run for. The longest of many short calls, by the clock on the wall, would be how long another
/// program had the processor.
fn processor_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(now.tv_sec).unwrap(), u32::try_from(now.tv_nsec).unwrap())
}

/// Reproducible numbers without a dependency (Marsaglia's xorshift).
fn numbers(mut state: u32) -> impl Iterator<Item = u32> {
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    })
}

fn shuffled(count: usize) -> Vec<u32> {
    use rand::SeedableRng;
    use rand::seq::SliceRandom;
    let mut order: Vec<u32> = (0..u32::try_from(count).unwrap()).collect();
    order.shuffle(&mut rand::rngs::ChaCha8Rng::seed_from_u64(3));
    order
}
