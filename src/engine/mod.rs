//! The engine: sessions in memory, time, and the one road to the disk.
//!
//! What lives here: the index of live sessions, the cells of those in use, the lists of each principal's sessions, the
//! queue and the writer, the wheel and the reaper. It knows storage and ring 0; it knows nothing of handles, cookies
//! or frameworks.
//!
//! # Lock order
//!
//! Each lock may be taken while those before it are held, never the other way round:
//!
//! 1. a handle's binding
//! 2. the writer, the reaper, the gathering of touches, the turn of a cold load, the turn of handing on events; of these
//!    only the writer's turn takes others, the gathering and the handing on
//! 3. the list of a principal, or of anonymous sessions: never two
//! 4. a shard of the index: never two
//! 5. a cell
//! 6. leaves: queue, answers, wakers, cutoffs, unwritten rows, unarmed slots, events, health, clock, credits, the ring
//!    of server keys
//!
//! The writer takes a binding only when it holds nothing but its own turn; whoever holds a binding takes nothing but a
//! cell and leaves. The disk is read and written, and channels are waited for, only under the locks of group 2. Code
//! of the application (closures, serde, wakers) runs under none.
//!
//! # Invariants
//!
//! - A session is decided about from memory; a row on disk is never live that memory says is dead once anybody was
//!   told so.
//! - A session goes from live to dead once. There is no upsert: every write is "if this row is live".
//! - Everything that becomes durable goes through the queue; the writer reads the state, not the history.
//!
//! On a crash, what was acknowledged is on disk and what was not is there whole or not at all. A panic in a worker
//! poisons the engine: every later call says so.

mod binding;
mod cell;
mod clock;
mod course;
mod credits;
mod end;
mod ended;
mod events;
pub(crate) mod fields;
mod group;
mod health;
mod index;
mod list;
mod load;
mod principals;
mod publish;
mod queue;
mod reaper;
mod receipt;
mod refused;
mod restore;
mod slab;
mod slot;
mod soft;
mod succession;
mod sweep;
mod touches;
mod wheel;
mod workers;
mod write;
mod writer;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

pub(crate) use binding::Handle;
pub(crate) use cell::{Cell, Content, Stamp};
pub(crate) use end::Spare;
pub use ended::{EndReason, Ended};
pub(crate) use events::{By, Happening, Note, Refusal, Ring, Why};
pub(crate) use group::{Rotate, SignInRequest};
pub(crate) use list::Listed;
pub(crate) use load::Hot;
use parking_lot::Mutex;
pub use receipt::Receipt;
pub(crate) use refused::Flaw;
pub(crate) use restore::Found;
pub(crate) use writer::KeyStanding;

use crate::error::Result;
use crate::options::Settings;
use crate::storage::disk::Disk;
use crate::storage::record::{Checkpoint, Row};
use crate::storage::{self, Keys, Reader};
use crate::token::Entropy;

/// One open store and everything about it.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) settings: Settings,
    pub(crate) keys: Arc<Keys>,
    pub(crate) reader: Reader,
    pub(crate) clock: clock::EngineClock,
    ledger: credits::Ledger,
    pub(crate) counters: Counters,
    pub(crate) principals: principals::Principals,
    pub(crate) index: index::Index,
    entropy: Arc<dyn Entropy>,
    cutoffs: end::Cutoffs,
    queue: queue::Queue,
    answers: queue::Answers,
    waiting: ended::Waiting,
    events: events::Hub,
    refused: refused::Refused,
    next_row: AtomicU64,
    next_memory_row: AtomicU64,
    /// Data of sessions that stay off the disk.
    memory_only_bytes: AtomicUsize,
    live: AtomicU32,
    /// Rows that are not on disk yet, so that their handles resolve.
    unwritten: Mutex<HashMap<Row, slot::SlotId>>,
    /// One cold load at a time for each row; rows share a turn by number.
    cold_turns: Vec<Mutex<()>>,
    /// Slots that the reaper has not seen yet.
    unarmed: Mutex<Vec<slot::SlotId>>,
    reaper_wake: AtomicU32,
    reaper_bell: queue::Bell,
    teller_bell: queue::Bell,
    writer: Mutex<writer::Machine>,
    reaper: Mutex<reaper::Machine>,
    touches: Mutex<touches::Machine>,
    /// Gathered ones did not get to disk, so the next gathering is of all.
    touches_dropped: AtomicBool,
    idle_in_use: touches::InUse,
    health: health::Health,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

/// What has happened since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) commits: Counter,
    pub(crate) expired: Counter,
    pub(crate) evicted: Counter,
    pub(crate) revoked: Counter,
    pub(crate) refused_rows: Counter,
    /// Values that did not decode, by field name and version.
    undecodable: Mutex<BTreeMap<(String, u8), u64>>,
}

/// Different fields that are counted one by one; more than an application has.
const UNDECODABLE_MAX: usize = 256;

impl Counters {
    /// Notes that a stored value did not decode: its name and version, never the value.
    pub(crate) fn note_undecodable(&self, name: &str, version: u8) {
        let mut undecodable = self.undecodable.lock();
        if let Some(count) = undecodable.get_mut(&(name.to_owned(), version)) {
            *count += 1;
        } else if undecodable.len() < UNDECODABLE_MAX {
            undecodable.insert((name.to_owned(), version), 1);
        }
    }

    pub(crate) fn undecodable(&self) -> Vec<(String, u8, u64)> {
        self.undecodable.lock().iter().map(|((name, version), &count)| (name.clone(), *version, count)).collect()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicUsize);

impl Counter {
    pub(crate) fn add(&self, count: usize) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Cold loads that can be under way at once; more than any disk serves faster together.
const COLD_TURNS: usize = 64;

impl Engine {
    /// Opens the store in `disk` and starts the workers, unless they are to be driven by hand.
    pub(crate) fn open(
        disk: &Arc<dyn Disk>,
        settings: Settings,
        entropy: Arc<dyn Entropy>,
    ) -> Result<(Arc<Self>, Found)> {
        let beginning = clock::EngineClock::beginning(settings.clock.as_ref(), Row(1));
        let sizes = storage::Sizes { page_cache: settings.page_cache_bytes, journal: settings.journal_bytes };
        let mut opened = storage::open(disk, sizes, beginning, entropy.as_ref())?;
        let clock = resume_time(&settings, &mut opened, beginning)?;
        let next_row = Row(opened.state.next_row);
        let ledger = credits::Ledger::new(opened.credits);
        // Before any session is judged: the wall clock may have stepped while nothing ran.
        clock.look().into_iter().for_each(|credit| ledger.add(credit));
        let reaper = reaper::Machine::new(clock.now());
        let engine = Arc::new(Self {
            index: index::Index::new(settings.cache_bytes, Arc::clone(opened.keys.retired())),
            principals: principals::Principals::new(),
            cutoffs: end::Cutoffs::default(),
            queue: queue::Queue::new(settings.linger_ms),
            answers: queue::Answers::default(),
            waiting: ended::Waiting::default(),
            events: events::Hub::new(),
            refused: refused::Refused::default(),
            next_row: AtomicU64::new(next_row.0),
            next_memory_row: AtomicU64::new(write::first_memory_row(entropy.as_ref())?),
            memory_only_bytes: AtomicUsize::new(0),
            live: AtomicU32::new(0),
            unwritten: Mutex::new(HashMap::new()),
            cold_turns: (0..COLD_TURNS).map(|_| Mutex::new(())).collect(),
            unarmed: Mutex::new(Vec::new()),
            reaper_wake: AtomicU32::new(u32::MAX),
            reaper_bell: queue::Bell::new(),
            teller_bell: queue::Bell::new(),
            writer: Mutex::new(writer::Machine::new(opened.writer, clock.now_ms())),
            reaper: Mutex::new(reaper),
            touches: Mutex::new(touches::Machine::new(clock.now())),
            touches_dropped: AtomicBool::new(false),
            idle_in_use: touches::InUse::new(),
            health: health::Health::default(),
            threads: Mutex::new(Vec::new()),
            counters: Counters::default(),
            keys: opened.keys,
            reader: opened.reader,
            clock,
            ledger,
            entropy,
            settings,
        });
        engine.index.profiles().reserve(&engine.settings);
        let found = engine.restore(opened.cutoffs)?;
        engine.writer.lock().take_over()?;
        if !engine.settings.manual_workers {
            engine.start_workers().inspect_err(|_| drop(engine.close()))?;
        }
        Ok((engine, found))
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        self.health.check_open()
    }

    pub(crate) fn check_durable(&self) -> Result<()> {
        self.health.check_durable()
    }

    /// What is wrong with the engine, if anything is.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.health.trouble()
    }

    /// Live sessions, those included that expired and were not collected yet.
    pub(crate) fn live(&self) -> u32 {
        self.live.load(Ordering::Relaxed)
    }

    pub(crate) fn dirty_bytes(&self) -> usize {
        self.queue.dirty_bytes()
    }

    pub(crate) fn wheel_bytes(&self) -> usize {
        self.reaper.lock().bytes()
    }

    fn count_filed(&self, sessions: u32) {
        self.live.fetch_add(sessions, Ordering::Relaxed);
    }

    fn forget_filed(&self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }

    #[expect(clippy::indexing_slicing, reason = "the remainder is below the number of turns")]
    fn cold_turn(&self, row: Row) -> &Mutex<()> {
        &self.cold_turns[usize::try_from(row.0 % COLD_TURNS as u64).unwrap_or_default()]
    }
}

/// Goes on from the engine time of a store. If little is left of it, every session is ended and it begins anew, so that
/// a machine whose clock is decades ahead at each boot does not come to where nobody can sign in any more.
fn resume_time(settings: &Settings, opened: &mut storage::Opened, beginning: Checkpoint) -> Result<clock::EngineClock> {
    let resume = |opened: &storage::Opened| {
        let next_row = Row(opened.state.next_row);
        clock::EngineClock::resume(Arc::clone(&settings.clock), &opened.state.clock, next_row)
    };
    let clock = resume(opened);
    if !clock.is_near_its_end() {
        return Ok(clock);
    }
    opened.writer.end_everything()?;
    // If the power fails between the two, the next start does it again.
    let anew = storage::Batch { ends_sessions: true, clock: beginning, clock_is_due: true, ..Default::default() };
    opened.writer.apply(&anew)?;
    opened.state = opened.writer.state();
    Ok(resume(opened))
}
