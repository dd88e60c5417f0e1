//! Hashes with random keys, so that a peer cannot choose values that collide. In a simulation the
//! seed decides the keys: they decide which page of groups is full, and so who runs out of memory.

#[cfg(not(feature = "simulation"))]
pub(crate) use foldhash::{fast::RandomState as FastHash, quality::RandomState as ThoroughHash};
#[cfg(feature = "simulation")]
pub(crate) use seeded::{FastHash, ThoroughHash, seed_hashes};

#[cfg(feature = "simulation")]
mod seeded {
    use foldhash::{fast, quality};
    use std::cell::Cell;
    use std::hash::BuildHasher;

    thread_local! {
        static NEXT: Cell<u64> = const { Cell::new(0) };
    }

    /// Decides the keys of all later hashes of this thread.
    pub(crate) fn seed_hashes(seed: u64) {
        NEXT.set(seed);
    }

    fn next() -> u64 {
        NEXT.set(NEXT.get().wrapping_add(0x9E37_79B9_7F4A_7C15));
        NEXT.get()
    }

    #[derive(Clone, Debug)]
    pub(crate) struct FastHash(fast::FixedState);

    #[derive(Clone, Debug)]
    pub(crate) struct ThoroughHash(quality::FixedState);

    impl Default for FastHash {
        fn default() -> Self {
            FastHash(fast::FixedState::with_seed(next()))
        }
    }

    impl Default for ThoroughHash {
        fn default() -> Self {
            ThoroughHash(quality::FixedState::with_seed(next()))
        }
    }

    impl BuildHasher for FastHash {
        type Hasher = <fast::FixedState as BuildHasher>::Hasher;

        fn build_hasher(&self) -> Self::Hasher {
            self.0.build_hasher()
        }
    }

    impl BuildHasher for ThoroughHash {
        type Hasher = <quality::FixedState as BuildHasher>::Hasher;

        fn build_hasher(&self) -> Self::Hasher {
            self.0.build_hasher()
        }
    }
}
