//! Mistakes that tests plant in the storage, to see that they are caught.
//!
//! It knows nothing. Invariant: a disk of the operating system never asks for one.

/// A mistake, most of them in the journal.
#[cfg_attr(not(feature = "sim"), expect(unreachable_pub, reason = "public in `sim` only"))]
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// A frame is acknowledged without being flushed.
    UnflushedFrame,
    /// A frame of an earlier lap counts when the ring is read.
    StaleFrame,
    /// A part of the ring is written over before what it stands for is in the tables.
    FreedTooEarly,
    /// A checkpoint does not note how far it went, so frames are read again that came before it.
    ReplayNotNoted,
    /// A frame counts whatever its check says.
    CheckNotChecked,
    /// Not a mistake of ours: the B-tree panics, as over a damaged page.
    PanickingTree,
}
