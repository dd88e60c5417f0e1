//! Whether an engine wants new connections, and whether anybody asks. Closes no listener.

use std::sync::atomic::{AtomicBool, Ordering};

/// Shared by the admin listener, which answers `/readyz`, and by whoever stops the engine.
#[derive(Debug, Default)]
pub struct Readiness {
    leaving: AtomicBool,
    asked: AtomicBool,
}

impl Readiness {
    /// From now on the engine is not ready, although it may go on accepting for a while.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Whether the engine is about to stop.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Notes a question.
    pub(crate) fn note_question(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    /// Whether anybody has asked so far: a load balancer, or an orchestrator.
    pub(crate) fn has_been_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}
