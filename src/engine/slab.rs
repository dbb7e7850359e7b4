//! A slab: numbered places for values, in chunks of 64.
//!
//! It knows nothing of what it holds. Invariants: growing never moves a value, so it never copies more than a list
//! of chunk addresses; a number stays valid until it is freed; freed numbers are used again, the last one first.

/// Numbered places for `T`.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    chunks: Vec<Box<[T; CHUNK]>>,
    free: Vec<u32>,
    next: u32,
}

/// Growing by 64 values at a time keeps the longest pause under a lock short and the waste small.
const CHUNK: usize = 64;

impl<T: Default> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self { chunks: Vec::new(), free: Vec::new(), next: 0 }
    }

    /// Takes a place and returns its number; the value in it is whatever the last user left.
    pub(crate) fn take(&mut self) -> u32 {
        if let Some(number) = self.free.pop() {
            return number;
        }
        let number = self.next;
        if number as usize / CHUNK == self.chunks.len() {
            self.chunks.push(Box::new(std::array::from_fn(|_| T::default())));
        }
        self.next += 1;
        number
    }

    /// Gives a place back. The caller holds the only use of the number.
    pub(crate) fn give_back(&mut self, number: u32) {
        debug_assert!(number < self.next && !self.free.contains(&number) || self.free.len() > 64, "{number} is free");
        self.free.push(number);
    }

    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        self.chunks.get(number as usize / CHUNK)?.get(number as usize % CHUNK)
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.chunks.get_mut(number as usize / CHUNK)?.get_mut(number as usize % CHUNK)
    }

    /// How many numbers were ever taken: all valid numbers are below.
    pub(crate) const fn bound(&self) -> u32 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_used_again_and_values_stay() {
        let mut slab = Slab::<u64>::new();
        let numbers: Vec<u32> = (0..1000).map(|_| slab.take()).collect();
        for &number in &numbers {
            *slab.get_mut(number).unwrap() = u64::from(number);
        }
        slab.give_back(17);
        assert_eq!(slab.take(), 17);
        assert_eq!(slab.bound(), 1000);
        assert!(numbers.iter().all(|&number| slab.get(number) == Some(&u64::from(number))));
        assert_eq!(slab.get(5000), None);
    }
}
