//! Counts allocations, reallocations and frees of each thread by itself: allocates nothing of its
//! own and judges nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};

/// The system's allocator, and a count of what each thread asks of it.
pub struct CountingAllocator;

/// What one thread has asked for. It alone writes here.
pub struct ThreadCounts {
    /// The kernel's id of the thread; 0 before there is one.
    thread: AtomicI32,
    allocations: AtomicU64,
    reallocations: AtomicU64,
    frees: AtomicU64,
}

/// What a thread had asked for at one moment, or between two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub allocations: u64,
    pub reallocations: u64,
    pub frees: u64,
}

/// More threads than all tests of this binary start. One beyond would not be counted, and
/// [`ThreadCounts::of`] would not find it.
const THREADS_MAX: usize = 4096;

static COUNTS: [ThreadCounts; THREADS_MAX] = [const {
    ThreadCounts {
        thread: AtomicI32::new(0),
        allocations: AtomicU64::new(0),
        reallocations: AtomicU64::new(0),
        frees: AtomicU64::new(0),
    }
}; THREADS_MAX];
static THREADS: AtomicUsize = AtomicUsize::new(0);
/// The thread whose allocations are shown, and how many more of them.
static SHOWN_THREAD: AtomicI32 = AtomicI32::new(0);
static SHOWN_LEFT: AtomicU64 = AtomicU64::new(0);

thread_local! {
    // Neither needs memory to be made nor a destructor, so both are there as long as the thread is.
    static OWN: Cell<Option<&'static ThreadCounts>> = const { Cell::new(None) };
    static SHOWING: Cell<bool> = const { Cell::new(false) };
}

impl ThreadCounts {
    /// Those of the thread with this id of the kernel's.
    pub fn of(thread: i32) -> &'static ThreadCounts {
        let all = &COUNTS[..THREADS.load(Ordering::Acquire).min(THREADS_MAX)];
        // A later thread may have got the id of one that is gone.
        let found = all.iter().rev().find(|counts| counts.thread.load(Ordering::Acquire) == thread);
        found.expect("each thread allocates something as it starts")
    }

    pub fn asked(&self) -> Asked {
        Asked {
            allocations: self.allocations.load(Ordering::Relaxed),
            reallocations: self.reallocations.load(Ordering::Relaxed),
            frees: self.frees.load(Ordering::Relaxed),
        }
    }

    /// Shows on stderr where its next `times` allocations come from.
    pub fn show(&self, times: u64) {
        SHOWN_LEFT.store(times, Ordering::Relaxed);
        SHOWN_THREAD.store(self.thread.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    fn own() -> Option<&'static ThreadCounts> {
        if let Some(counts) = OWN.get() {
            return Some(counts);
        }
        let counts = COUNTS.get(THREADS.fetch_add(1, Ordering::AcqRel))?;
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        counts.thread.store(thread, Ordering::Release);
        OWN.set(Some(counts));
        Some(counts)
    }

    fn is_shown(&self) -> bool {
        let shown = SHOWN_THREAD.load(Ordering::Relaxed);
        shown != 0
            && shown == self.thread.load(Ordering::Relaxed)
            && SHOWN_LEFT.load(Ordering::Relaxed) > 0
    }
}

impl Asked {
    /// What came after `earlier`.
    pub fn since(self, earlier: Asked) -> Asked {
        Asked {
            allocations: self.allocations - earlier.allocations,
            reallocations: self.reallocations - earlier.reallocations,
            frees: self.frees - earlier.frees,
        }
    }
}

fn count(which: impl FnOnce(&ThreadCounts) -> &AtomicU64, what: &str, bytes: usize) {
    let Some(counts) = ThreadCounts::own() else { return };
    // To show where a call comes from takes memory, too.
    if SHOWING.get() {
        return;
    }
    which(counts).fetch_add(1, Ordering::Relaxed);
    if counts.is_shown() {
        SHOWING.set(true);
        SHOWN_LEFT.fetch_sub(1, Ordering::Relaxed);
        eprintln!("{what} of {bytes} bytes:\n{}", Backtrace::force_capture());
        SHOWING.set(false);
    }
}

// SAFETY: every call goes on to the system's allocator, whose results are given as they are. What
// is done beside it allocates only while it shows a call, and the calls that come of that are
// neither counted nor shown.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(|counts| &counts.allocations, "allocation", layout.size());
        // SAFETY: the caller's promises are those of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(|counts| &counts.allocations, "allocation", layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(|counts| &counts.reallocations, "reallocation", bytes);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, bytes) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(|counts| &counts.frees, "free", layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}
