//! Workers: the threads around the writer's and the reaper's steps, the one that tells waiters, and the end of all.
//!
//! It knows the machines and the bells. Invariants: a worker waits only for its bell; a panic in a step poisons the
//! engine and ends the thread; closing stops intake, lets all finish, writes what is left, gives what answers are left
//! and closes the file; it happens once, whoever asks first.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Engine;
use crate::error::{Error, ErrorKind, Result};

const WRITER: &str = "dwell-writer";
/// The longest sleep of a worker. A wait does not count the time that the machine sleeps, so this is how late a worker
/// may come after that; waking once a minute costs nothing.
const NAP_MAX: Duration = Duration::from_secs(60);
/// Answers that the writer gives itself, and the time that a batch may take for each answer if another thread is to give
/// them. Telling somebody takes about 20 us, and whoever is told soon asks again. Where a commit costs more than telling
/// all of them, they had better meet in the next batch than wait for one after it.
const ANSWERS_FEW: usize = 16;
const ANSWER_TIME_MAX: Duration = Duration::from_micros(50);
/// Batches that the time is averaged over: a disk that is slow now and then is slow.
const BATCHES_AVERAGED: u32 = 8;

impl Engine {
    pub(super) fn start_workers(self: &Arc<Self>) -> Result<()> {
        let spawn = |name: &str, run: fn(&Arc<Self>)| {
            let engine = Arc::clone(self);
            let body = move || {
                if catch_unwind(AssertUnwindSafe(|| run(&engine))).is_err() {
                    engine.stop(std::thread::current().name().unwrap_or("worker"));
                }
            };
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(body)
                .map_err(|error| Error::new(ErrorKind::Storage, "failed to start a worker thread").because(error))
        };
        self.writer.lock().start_thread(self)?;
        for (name, run) in [
            (WRITER, Self::run_writer as fn(&Arc<Self>)),
            ("dwell-reaper", Self::run_reaper),
            ("dwell-teller", Self::run_teller),
        ] {
            // Noted at once, so that closing finds the first if the second does not start.
            self.threads.lock().push(spawn(name, run)?);
        }
        Ok(())
    }

    /// After a panic in a worker: tells everybody who waits for anything.
    fn stop(self: &Arc<Self>, worker: &str) {
        self.health.poison(worker);
        self.refuse(self.queue.shut());
        self.wake_everybody();
        // It reads the disk, which may be what panicked.
        let _ = catch_unwind(AssertUnwindSafe(|| while self.hand_on_events() {}));
        self.finish_events();
        self.deliver();
    }

    fn run_writer(self: &Arc<Self>) {
        let mut batch_time = Duration::ZERO;
        while self.check_open().is_ok() {
            let begun = self.clock.since_boot();
            let mut writer = self.writer.lock();
            let stepped = self.contained(|| writer.step(self, false));
            drop(writer);
            let Some(wake_ms) = stepped else { return self.stop(WRITER) };
            let answers = self.answers.len();
            if answers > 0 {
                let took = self.clock.since_boot().saturating_sub(begun);
                batch_time = (batch_time * (BATCHES_AVERAGED - 1) + took) / BATCHES_AVERAGED;
            }
            // Whoever is told gets to run at once, in the writer's place; with many, the next batch would wait for it.
            let most = ANSWER_TIME_MAX.saturating_mul(u32::try_from(answers).unwrap_or(u32::MAX));
            if answers > ANSWERS_FEW && batch_time < most {
                self.teller_bell.ring();
            } else {
                self.deliver();
            }
            let now_ms = self.clock.now_ms();
            if let Some(wake_ms) = self.queue.rest(wake_ms, now_ms) {
                let nap = wake_ms.map(|wake| Duration::from_millis(wake.saturating_sub(now_ms)).min(NAP_MAX));
                self.queue.bell.wait(nap);
                self.queue.be_awake();
            }
        }
        // The teller may have gone before the last ring.
        self.deliver();
    }

    /// Tells the waiters of a large batch while the writer writes the next, wakes whoever waits for an end, and hands on
    /// events.
    fn run_teller(self: &Arc<Self>) {
        while self.check_open().is_ok() {
            self.teller_bell.wait(None);
            loop {
                self.deliver();
                if !self.hand_on_events() {
                    break;
                }
            }
            self.deliver();
        }
    }

    fn run_reaper(self: &Arc<Self>) {
        while self.check_open().is_ok() {
            self.reap();
            let expiry = self.reaper.lock().step(self);
            let wake = [expiry, self.gather_touches()].into_iter().flatten().min();
            let wake = wake.map_or(u32::MAX, |wake| wake.0);
            self.reaper_wake.store(wake, Ordering::Release);
            // A slot filed between the step and the store would ring for a wake that is not set yet.
            if self.unarmed.lock().is_empty() {
                // To the moment at which the tick begins; a wait that ends too early is followed by another.
                let left_ms = (u64::from(wake) * 1000).saturating_sub(self.clock.now_ms());
                self.reaper_bell.wait(Some(Duration::from_millis(left_ms.max(1)).min(NAP_MAX)));
            }
        }
    }

    /// Does all work that is due, for an engine without threads.
    pub(crate) fn run_pending(self: &Arc<Self>) {
        if self.check_open().is_err() {
            // What ends now is for the next start to tell.
            return self.deliver();
        }
        {
            // First, because it may make sessions expire.
            let _turn = self.writer.lock();
            self.look_at_wall();
        }
        self.reap();
        self.gather_touches();
        while self.write_turn(false).is_some_and(|wake_ms| wake_ms <= self.clock.now_ms()) {}
    }

    /// Waiting for a receipt does the writer's work: always where no threads run, otherwise where that spares two changes
    /// of threads.
    pub(super) fn write_for_one(self: &Arc<Self>) {
        if !self.write_on_poll() {
            self.lead();
        }
    }

    /// A future may do the writer's work only where no threads run, because it blocks. Returns whether that is so.
    pub(super) fn write_on_poll(self: &Arc<Self>) -> bool {
        let manual = self.settings.manual_workers;
        if manual {
            self.write_turn(false);
        }
        manual
    }

    /// Writes in the place of the writer's thread, for somebody who waits alone while nothing is being written. With others
    /// waiting, the thread is better at it: the next batch forms while it writes.
    fn lead(self: &Arc<Self>) {
        if !self.queue.has_one_waiter() {
            return;
        }
        let Some(mut writer) = self.writer.try_lock() else { return };
        if self.check_open().is_err() {
            return;
        }
        let led = self.contained(|| writer.step(self, false));
        drop(writer);
        match led {
            Some(_) => {
                // The thread may sleep, and there is more to do later.
                self.queue.wake_for_later(self.clock.now_ms());
                self.deliver();
            }
            None => self.stop(WRITER),
        }
    }

    /// Runs a step, and poisons the engine if it panics, before anybody else gets the lock that is held meanwhile.
    fn contained<T>(&self, step: impl FnOnce() -> T) -> Option<T> {
        let outcome = catch_unwind(AssertUnwindSafe(step));
        outcome.inspect_err(|_| self.health.poison(WRITER)).ok()
    }

    /// Stops intake, writes what is left, closes the file. Later calls do nothing.
    pub(crate) fn close(self: &Arc<Self>) -> Result<()> {
        let trouble = self.check_open().err();
        let durable = self.health.check_writable().err();
        if !self.health.begin_close() {
            return Ok(());
        }
        self.wake_everybody();
        self.queue.bell.ring();
        self.reaper_bell.ring();
        self.teller_bell.ring();
        // The teller may have gone before the wakers came.
        self.deliver();
        let threads = std::mem::take(&mut *self.threads.lock());
        // A waker that the writer runs may drop the last handle; a thread cannot wait for itself.
        let own = std::thread::current().id();
        let others = threads.into_iter().filter(|thread| thread.thread().id() != own);
        let panicked = others.filter_map(|thread| thread.join().err()).count();
        debug_assert_eq!(panicked, 0, "workers contain their panics");
        let closed = self.writer.lock().close(self);
        self.finish_events();
        self.deliver();
        self.index.drop_cells();
        match trouble.or(durable) {
            Some(error) => Err(error),
            None => closed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::super::events::{Happening, Ring};
    use super::super::{EndReason, Ended};
    use super::*;
    use crate::options::Options;
    use crate::storage::disk::{Disk, SimDisk};
    use crate::time::ManualClock;
    use crate::token::Entropy;

    /// Randomness that panics when told to, on whatever thread asks for it.
    #[derive(Debug, Default)]
    struct Panics(AtomicBool);

    impl Entropy for Panics {
        fn fill(&self, bytes: &mut [u8]) -> Result<()> {
            if self.0.load(Ordering::SeqCst) {
                std::panic::resume_unwind(Box::new("as told"));
            }
            crate::token::OsEntropy.fill(bytes)
        }
    }

    fn open(options: &Options) -> (Arc<Engine>, Arc<Panics>) {
        let (disk, entropy): (Arc<dyn Disk>, _) = (Arc::new(SimDisk::memory()), Arc::new(Panics::default()));
        let settings = options.check().unwrap();
        (Engine::open(&disk, settings, Arc::clone(&entropy) as Arc<dyn Entropy>).unwrap().0, entropy)
    }

    #[test]
    fn the_writer_is_woken_when_a_receipt_is_dropped_or_asked_and_not_before() {
        let clock = ManualClock::new();
        let (engine, _) = open(&Options::new().clock(clock).manual_workers());
        let (cell, _) = engine.begin(Arc::from([]), 0).unwrap();
        // What its thread does where there is one.
        let rest = || {
            engine.write_turn(true);
            let wake_ms = engine.clock.now_ms() + 500;
            assert_eq!(engine.queue.rest(Some(wake_ms), engine.clock.now_ms()), Some(Some(wake_ms)));
        };
        rest();
        let field = || Ok(Some(Arc::from([1; 8].as_slice())));
        engine.change(&cell, 0, false, |_| field()).unwrap();
        let receipt = engine.save(&cell, 0).unwrap();
        assert!(!engine.queue.bell.take_ring(), "it will look soon enough");
        drop(receipt);
        assert!(engine.queue.bell.take_ring());
        rest();
        engine.change(&cell, 0, false, |_| field()).unwrap();
        engine.save(&cell, 0).unwrap().blocking_wait().unwrap();
        assert!(!engine.queue.bell.take_ring(), "it was written by whoever waited");
    }

    #[test]
    fn what_nobody_waits_for_is_written_all_the_same() {
        let (engine, _) = open(&Options::new());
        for keep in [true, false, true] {
            let (cell, _) = engine.begin(Arc::from([]), 0).unwrap();
            let kept = engine.save(&cell, 0).unwrap();
            let kept = keep.then_some(kept);
            let begun = std::time::Instant::now();
            while engine.queue.dirty_bytes() > 0 || !engine.queue.is_empty() {
                thread::yield_now();
                assert!(begun.elapsed() < Duration::from_secs(30), "nobody wrote it");
            }
            if let Some(receipt) = kept {
                receipt.blocking_wait().unwrap();
            }
        }
        engine.close().unwrap();
    }

    fn read(ring: &Ring, engine: &Engine) -> Vec<Happening> {
        std::iter::from_fn(|| ring.wait(engine, None)).map(|note| note.what).collect()
    }

    #[test]
    fn a_panic_in_a_worker_is_told_to_everybody() {
        let (engine, entropy) = open(&Options::new());
        let ring = engine.subscribe();
        let (cell, _) = engine.begin(Arc::from([]), 0).unwrap();
        let waiting = Ended::of(Arc::clone(&cell), 0);
        let nowhere = Ended::of_nothing(Arc::clone(&engine));
        thread::scope(|scope| {
            let reader = scope.spawn(|| read(&ring, &engine));
            let waiters = [waiting, nowhere].map(|ended| scope.spawn(|| ended.blocking_wait()));
            entropy.0.store(true, Ordering::SeqCst);
            let unknown = engine.save(&cell, 0).unwrap().blocking_wait().unwrap_err();
            assert_eq!(unknown.kind(), ErrorKind::Unknown);
            assert!(waiters.into_iter().all(|waiter| waiter.join().unwrap() == EndReason::Fault));
            assert!(matches!(reader.join().unwrap()[..], [Happening::Created]), "and then its end");
        });
        assert_eq!(Ended::of(cell, 0).blocking_wait(), EndReason::Fault, "asked afterwards");
        assert!(engine.trouble().unwrap().contains("dwell-writer"));
        assert_eq!(engine.check_open().unwrap_err().kind(), ErrorKind::Closed);
        engine.close().unwrap_err();
    }

    #[test]
    fn what_happened_before_a_panic_is_told_before_the_end() {
        let (engine, _) = open(&Options::new().clock(ManualClock::new()).manual_workers());
        let ring = engine.subscribe();
        engine.begin(Arc::from([]), 0).unwrap();
        engine.stop("a worker");
        assert!(matches!(read(&ring, &engine)[..], [Happening::Created]));
        engine.close().unwrap_err();
    }
}
