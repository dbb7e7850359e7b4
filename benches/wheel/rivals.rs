//! What could stand in the wheel's place.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::future::poll_fn;
use std::hint::black_box;
use std::task::Poll;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::sync::Cache;
use tokio_util::time::{DelayQueue, delay_queue};

use crate::{Contender, Figures, numbers, processor_time, report, shuffled};

/// A heap whose timers are moved by storing the new deadline, and filed again when they come up too early.
pub(crate) struct Heap {
    heap: BinaryHeap<Reverse<(u32, u32)>>,
    deadlines: Vec<u32>,
}

impl Contender for Heap {
    fn new(deadlines: &[u32]) -> Self {
        Self { heap: BinaryHeap::new(), deadlines: deadlines.to_vec() }
    }

    fn insert(&mut self, timer: u32, deadline: u32) {
        self.heap.push(Reverse((deadline, timer)));
    }

    fn re_arm(&mut self, timer: u32, deadline: u32) {
        *self.deadlines.get_mut(timer as usize).unwrap() = deadline;
    }

    fn advance(&mut self, now: u32) -> (usize, Duration) {
        let (begun, mut fired) = (processor_time(), 0);
        while let Some(&Reverse((due, timer))) = self.heap.peek().filter(|entry| entry.0.0 <= now) {
            self.heap.pop();
            let deadline = *self.deadlines.get(timer as usize).unwrap();
            if deadline > due {
                self.heap.push(Reverse((deadline, timer)));
            } else {
                fired += 1;
            }
        }
        (fired, processor_time() - begun)
    }
}

/// An ordered set of deadlines; moving one takes it out and puts it in.
pub(crate) struct Tree {
    tree: BTreeMap<(u32, u32), ()>,
    deadlines: Vec<u32>,
}

impl Contender for Tree {
    fn new(deadlines: &[u32]) -> Self {
        Self { tree: BTreeMap::new(), deadlines: deadlines.to_vec() }
    }

    fn insert(&mut self, timer: u32, deadline: u32) {
        self.tree.insert((deadline, timer), ());
    }

    fn re_arm(&mut self, timer: u32, deadline: u32) {
        let place = self.deadlines.get_mut(timer as usize).unwrap();
        let before = std::mem::replace(place, deadline);
        self.tree.remove(&(before, timer)).unwrap();
        self.tree.insert((deadline, timer), ());
    }

    fn advance(&mut self, now: u32) -> (usize, Duration) {
        let (begun, mut fired) = (processor_time(), 0);
        while let Some(entry) = self.tree.first_entry().filter(|entry| entry.key().0 <= now) {
            black_box(entry.remove_entry());
            fired += 1;
        }
        (fired, processor_time() - begun)
    }
}

/// tokio-util's queue, on tokio's paused clock.
pub(crate) struct Queue {
    queue: DelayQueue<u32>,
    keys: Vec<delay_queue::Key>,
    origin: tokio::time::Instant,
}

/// Runs `work` where tokio's time stands still unless it is told to pass.
pub(crate) fn with_paused_time<T>(work: impl FnOnce() -> T) -> T {
    let runtime = runtime();
    let _inside = runtime.enter();
    runtime.block_on(async { tokio::time::pause() });
    RUNTIME.set(runtime).ok().unwrap();
    let _inside = RUNTIME.get().unwrap().enter();
    work()
}

static RUNTIME: std::sync::OnceLock<tokio::runtime::Runtime> = std::sync::OnceLock::new();

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

impl Contender for Queue {
    fn new(deadlines: &[u32]) -> Self {
        Self {
            queue: DelayQueue::new(),
            keys: Vec::with_capacity(deadlines.len()),
            origin: tokio::time::Instant::now(),
        }
    }

    fn insert(&mut self, timer: u32, deadline: u32) {
        let key = self.queue.insert_at(timer, self.origin + Duration::from_secs(deadline.into()));
        self.keys.push(key);
    }

    fn re_arm(&mut self, timer: u32, deadline: u32) {
        let key = self.keys.get(timer as usize).unwrap();
        self.queue.reset_at(key, self.origin + Duration::from_secs(deadline.into()));
    }

    fn advance(&mut self, now: u32) -> (usize, Duration) {
        let runtime = RUNTIME.get().unwrap();
        let now = self.origin + Duration::from_secs(now.into());
        let passed = now.saturating_duration_since(tokio::time::Instant::now());
        runtime.block_on(async {
            // A millisecond more, because the queue rounds deadlines up.
            tokio::time::advance(passed + Duration::from_millis(1)).await;
            let (begun, mut fired) = (processor_time(), 0);
            // Else tokio has it stop after some polls.
            tokio::task::unconstrained(poll_fn(|context| {
                while let Poll::Ready(Some(expired)) = self.queue.poll_expired(context) {
                    black_box(expired.into_inner());
                    fired += 1;
                }
                Poll::Ready(())
            }))
            .await;
            (fired, processor_time() - begun)
        })
    }
}

/// All entries expire at one moment.
struct At(Instant);

impl Expiry<u32, u32> for At {
    fn expire_after_create(&self, _key: &u32, _value: &u32, now: Instant) -> Option<Duration> {
        Some(self.0.saturating_duration_since(now))
    }

    fn expire_after_update(&self, _: &u32, _: &u32, now: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(self.0.saturating_duration_since(now))
    }
}

/// Moka has no clock that a caller can move, so it is measured on real time.
pub(crate) fn measure_moka(count: usize) -> Figures {
    let each = |begun: Instant| begun.elapsed().as_secs_f64() * 1e9 / count as f64;
    let order = shuffled(count);
    let values: Vec<u32> = numbers(7).take(count).collect();
    let patience = Duration::from_secs_f64(2.0 + 8e-6 * count as f64);
    let end = Instant::now() + patience;
    let mut figures = Figures::default();
    let before = report::resident_bytes().unwrap_or_default();
    let cache: Cache<u32, u32> = Cache::builder().expire_after(At(end)).build();
    let begun = Instant::now();
    for (timer, &value) in (0..).zip(&values) {
        cache.insert(timer, value);
    }
    cache.run_pending_tasks();
    figures.insert_ns = each(begun);
    figures.rebuild_s = begun.elapsed().as_secs_f64();
    figures.bytes = report::resident_bytes().unwrap_or_default().saturating_sub(before) as f64 / count as f64;
    let begun = Instant::now();
    for (&timer, &value) in order.iter().zip(&values) {
        cache.insert(timer, value);
    }
    cache.run_pending_tasks();
    figures.re_arm_ns = each(begun);
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
    // Moka notices the moment that has come a little later.
    std::thread::park_timeout(Duration::from_millis(1200));
    let mut longest = Duration::ZERO;
    let begun = Instant::now();
    while cache.entry_count() > 0 {
        let step = processor_time();
        cache.run_pending_tasks();
        longest = longest.max(processor_time() - step);
    }
    figures.expire_ns = each(begun);
    figures.expire_re_armed_ns = figures.expire_ns;
    figures.longest_us = longest.as_secs_f64() * 1e6;
    figures
}
