//! One account for the memory that peers make the engine take. Counts, and decides who must leave
//! when it is used up; it frees nothing itself.
//!
//! Each record stream and each message client has a [`MemoryShare`]. A stream
//! [asks](MemoryShare::ask) before it grows, which takes two atomic additions. If that would exceed
//! the limit, nothing is counted, and the stream [waits](MemoryShare::poll_room): the share that
//! holds the most is condemned, unless enough is already being given back by those that are
//! leaving. The one that waits may itself hold the most, with what it asks for; then it is
//! condemned. Who waits is served in the order of size, the smallest first: a stream with few
//! groups notices little of those with many.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// The account of an engine.
#[derive(Debug)]
pub struct MemoryAccount {
    limit: usize,
    used: AtomicUsize,
    /// All bytes that were ever given back.
    released: AtomicUsize,
    /// Whether a share waits, so that giving back needs no lock otherwise.
    awaited: AtomicBool,
    roll: Mutex<Roll>,
}

/// The shares of an account.
#[derive(Debug, Default)]
struct Roll {
    /// Those that may be condemned.
    staying: Vec<Arc<MemoryShare>>,
    /// Those that were condemned or have finished. Also those without an owner that hold something.
    leaving: Vec<Arc<MemoryShare>>,
    waiting: Vec<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    share: Arc<MemoryShare>,
    waker: Waker,
}

/// What one stream or client holds of an account.
pub(crate) struct MemoryShare {
    account: Arc<MemoryAccount>,
    /// All that it holds, its credit included.
    bytes: AtomicUsize,
    /// What was granted after a wait and has not been used yet.
    credit: AtomicUsize,
    /// What was refused last; 0 once it is granted.
    wanted: AtomicUsize,
    condemned: AtomicBool,
    /// Whether it is condemned or has finished.
    leaves: AtomicBool,
    /// Whether it has no owner any more.
    gone: AtomicBool,
    /// Woken when it is condemned.
    watcher: Mutex<Option<Waker>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Roll {
    /// Forgets those that have no owner and hold nothing.
    fn forget_empty(&mut self) {
        let gone = |share: &MemoryShare| share.gone.load(Ordering::Relaxed) && share.bytes() == 0;
        self.leaving.retain(|share| !gone(share));
    }
}

/// Removes a share from a list, if it is in there.
fn remove(list: &mut Vec<Arc<MemoryShare>>, share: &Arc<MemoryShare>) -> Option<Arc<MemoryShare>> {
    let at = list.iter().position(|other| Arc::ptr_eq(other, share))?;
    Some(list.swap_remove(at))
}

impl MemoryAccount {
    /// An account of `limit` bytes, of which `fixed` are in use for good.
    pub fn new(limit: usize, fixed: usize) -> Arc<Self> {
        Arc::new(MemoryAccount {
            limit,
            used: AtomicUsize::new(fixed),
            released: AtomicUsize::new(0),
            awaited: AtomicBool::new(false),
            roll: Mutex::default(),
        })
    }

    /// An account that only counts.
    pub fn unlimited() -> Arc<Self> {
        Self::new(isize::MAX as usize, 0)
    }

    /// The limit.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// All bytes that were ever given back.
    pub(crate) fn released(&self) -> usize {
        self.released.load(Ordering::Relaxed)
    }

    /// A new share, which may be condemned from now on.
    pub(crate) fn join(self: &Arc<Self>) -> ShareOwner {
        let share = Arc::new(MemoryShare {
            account: Arc::clone(self),
            bytes: AtomicUsize::new(0),
            credit: AtomicUsize::new(0),
            wanted: AtomicUsize::new(0),
            condemned: AtomicBool::new(false),
            leaves: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            watcher: Mutex::default(),
        });
        let mut roll = locked(&self.roll);
        roll.forget_empty();
        roll.staying.push(Arc::clone(&share));
        drop(roll);
        ShareOwner { share }
    }

    fn take(&self, bytes: usize) -> bool {
        let add = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= self.limit);
        self.used.fetch_update(Ordering::SeqCst, Ordering::Relaxed, add).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::SeqCst);
        self.released.fetch_add(bytes, Ordering::Relaxed);
        // Ordered after the subtraction. Who waits sets this before looking at what is used, so
        // either that sees what was given back here, or this sees that somebody waits.
        if self.awaited.load(Ordering::SeqCst) {
            self.with_roll(|roll, woken| self.serve(roll, woken));
        }
    }

    /// Works on the roll, and then wakes whoever has to know.
    fn with_roll<T>(&self, work: impl FnOnce(&mut Roll, &mut Vec<Waker>) -> T) -> T {
        let mut woken = Vec::new();
        let out = work(&mut locked(&self.roll), &mut woken);
        // After unlocking: waking may drop a task, and with it the owner of a share.
        woken.into_iter().for_each(Waker::wake);
        out
    }

    /// Grants what is asked for while there is room, the smallest share first. Without room for it,
    /// makes sure that some will be given back.
    fn serve(&self, roll: &mut Roll, woken: &mut Vec<Waker>) {
        let size = |waiter: &Waiter| waiter.share.size();
        while let Some(at) = (0..roll.waiting.len()).min_by_key(|&at| size(&roll.waiting[at])) {
            let share = Arc::clone(&roll.waiting[at].share);
            let wanted = share.wanted.load(Ordering::Relaxed);
            if self.take(wanted) {
                share.bytes.fetch_add(wanted, Ordering::Relaxed);
                share.credit.fetch_add(wanted, Ordering::Relaxed);
                share.wanted.store(0, Ordering::Release);
                woken.push(roll.waiting.swap_remove(at).waker);
            } else {
                self.relieve(roll, Some(&share), woken);
                if !share.is_condemned() {
                    break;
                }
            }
        }
        self.awaited.store(!roll.waiting.is_empty(), Ordering::SeqCst);
    }

    /// Condemns the largest shares until there will be room for what `asker` wants, or until that
    /// is the largest and is condemned itself.
    fn relieve(&self, roll: &mut Roll, asker: Option<&MemoryShare>, woken: &mut Vec<Waker>) {
        let wanted = asker.map_or(0, |share| share.wanted.load(Ordering::Relaxed));
        loop {
            let leaving: usize = roll.leaving.iter().map(|share| share.bytes()).sum();
            let stays = self.used().saturating_sub(leaving);
            if stays.saturating_add(wanted) <= self.limit {
                return;
            }
            let size = |&at: &usize| roll.staying[at].size();
            let Some(at) = (0..roll.staying.len()).max_by_key(size) else { return };
            let share = roll.staying.swap_remove(at);
            share.condemned.store(true, Ordering::Release);
            share.leaves.store(true, Ordering::Relaxed);
            woken.extend(locked(&share.watcher).take());
            let waits = |waiter: &mut Waiter| Arc::ptr_eq(&waiter.share, &share);
            woken.extend(roll.waiting.extract_if(.., waits).map(|waiter| waiter.waker));
            let asked = asker.is_some_and(|asker| std::ptr::eq(asker, &*share));
            roll.leaving.push(share);
            if asked {
                return;
            }
        }
    }
}

impl fmt::Debug for MemoryShare {
    /// Without the account, which has a list of its shares.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryShare({})", self.bytes())
    }
}

impl MemoryShare {
    /// Counts `bytes` more, unless the account has no room for them or the share is condemned.
    pub(crate) fn ask(&self, bytes: usize) -> bool {
        let spend = |credit: usize| credit.checked_sub(bytes);
        let credit = &self.credit;
        if credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok() {
            return true;
        }
        if !self.is_condemned() && self.account.take(bytes) {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            return true;
        }
        self.wanted.store(bytes, Ordering::Relaxed);
        false
    }

    /// Counts `bytes` more in any case: they are already in use, or too few to wait for. If that
    /// exceeds the limit, the largest share is condemned.
    pub(crate) fn force(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let used = self.account.used.fetch_add(bytes, Ordering::SeqCst).saturating_add(bytes);
        // What one that is leaving takes for its result is on its way out.
        if used > self.account.limit && !self.leaves.load(Ordering::Relaxed) {
            self.account.with_roll(|roll, woken| self.account.relieve(roll, None, woken));
        }
    }

    /// Counts `bytes` less.
    pub(crate) fn give_back(&self, bytes: usize) {
        if bytes > 0 {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.account.give_back(bytes);
        }
    }

    /// Bytes that it holds.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// What it holds and waits for.
    fn size(&self) -> usize {
        self.bytes().saturating_add(self.wanted.load(Ordering::Relaxed))
    }

    /// The account that it is a share of.
    pub(crate) fn account(&self) -> &Arc<MemoryAccount> {
        &self.account
    }

    /// Whether its holder must leave.
    #[inline]
    pub(crate) fn is_condemned(&self) -> bool {
        self.condemned.load(Ordering::Acquire)
    }

    /// Whether it is condemned or its holder has finished.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaves.load(Ordering::Relaxed)
    }

    /// After a refusal: ready with true once what was asked for is granted, with false once the
    /// share is condemned.
    pub(crate) fn poll_room(self: &Arc<Self>, waker: &Waker) -> Poll<bool> {
        self.account.with_roll(|roll, woken| {
            roll.waiting.retain(|waiter| !Arc::ptr_eq(&waiter.share, self));
            if !self.is_condemned() && self.wanted.load(Ordering::Acquire) > 0 {
                self.account.awaited.store(true, Ordering::SeqCst);
                roll.waiting.push(Waiter { share: Arc::clone(self), waker: waker.clone() });
                self.account.serve(roll, woken);
            }
            match self.wanted.load(Ordering::Acquire) {
                _ if self.is_condemned() => Poll::Ready(false),
                0 => Poll::Ready(true),
                _ => Poll::Pending,
            }
        })
    }

    /// Ready once the share is condemned.
    pub(crate) fn poll_condemned(&self, waker: &Waker) -> Poll<()> {
        *locked(&self.watcher) = Some(waker.clone());
        if self.is_condemned() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Keeps a share on its account's roll.
#[derive(Debug)]
pub(crate) struct ShareOwner {
    share: Arc<MemoryShare>,
}

impl ShareOwner {
    /// The share.
    pub(crate) fn share(&self) -> &Arc<MemoryShare> {
        &self.share
    }

    /// Its holder has finished: what it holds will be given back without anybody's doing.
    pub(crate) fn finish(&self) {
        self.share.leaves.store(true, Ordering::Relaxed);
        let mut roll = locked(&self.share.account.roll);
        if let Some(share) = remove(&mut roll.staying, &self.share) {
            roll.leaving.push(share);
        }
    }
}

impl Drop for ShareOwner {
    fn drop(&mut self) {
        let (share, account) = (&self.share, &self.share.account);
        share.leaves.store(true, Ordering::Relaxed);
        share.gone.store(true, Ordering::Relaxed);
        account.with_roll(|roll, woken| {
            // Parts of it may outlive the owner for a moment.
            if let Some(share) = remove(&mut roll.staying, share) {
                roll.leaving.push(share);
            }
            roll.waiting.retain(|waiter| !Arc::ptr_eq(&waiter.share, share));
            if !roll.waiting.is_empty() {
                account.serve(roll, woken);
            }
        });
        share.give_back(share.credit.swap(0, Ordering::Relaxed));
        locked(&account.roll).forget_empty();
    }
}

#[cfg(test)]
#[path = "account_tests.rs"]
mod tests;
