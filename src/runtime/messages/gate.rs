//! Checks credentials against the current auth file. Knows no connections and no protocol; the
//! caller delays its reply after a refusal.

use crate::config::Config;
use crate::engine::messages::user_buckets::UserBuckets;
use crate::engine::messages::users::AuthTable;
use crate::runtime::clock;
use crate::runtime::connection::line_budget::LineBudget;
use crate::runtime::host::auth_file::{self, AuthFileError};
use crate::wire::messages::limiter::SharedBucket;
use crate::wire::messages::payload::Credentials;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// The users, each with a rate limit.
pub(crate) struct Gate {
    file: Option<PathBuf>,
    table: RwLock<Arc<AuthTable>>,
    open: bool,
    buckets: UserBuckets,
    failures: Mutex<LineBudget>,
}

impl Gate {
    /// Reads the auth file, if there is one.
    ///
    /// # Errors
    /// If it cannot be read or parsed.
    pub(crate) fn new(config: &Config) -> Result<Self, AuthFileError> {
        let table = match &config.auth_file {
            Some(file) => {
                let table = auth_file::load(file)?;
                auth_file::warn_of(&table, file);
                table
            }
            None => AuthTable::default(),
        };
        Ok(Gate {
            file: config.auth_file.clone(),
            table: RwLock::new(Arc::new(table)),
            open: config.auth_open,
            // Users who left within the last second count too.
            buckets: UserBuckets::new(config.rate_limit, 2 * config.max_connections),
            failures: Mutex::new(LineBudget::new("further failed authentications suppressed")),
        })
    }

    /// Whether the credentials are accepted. Takes the same time for an unknown user.
    pub(crate) fn judge(&self, credentials: Credentials<'_>) -> bool {
        let table = Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner));
        let known = table.verify(credentials.user, credentials.token.as_bytes());
        known || self.open
    }

    /// Logs that a client failed to authenticate, for tools that ban addresses; `cause` must not
    /// hold what the client sent.
    pub(crate) fn log_failure(&self, connection: u64, peer: SocketAddr, cause: &dyn fmt::Display) {
        if self.failures().allow(clock::now()) {
            tracing::warn!(connection, %peer, "{cause}");
        }
    }

    /// Logs how many failures were not logged, at the end.
    pub(crate) fn count_suppressed(&self) {
        self.failures().count_suppressed();
    }

    fn failures(&self) -> MutexGuard<'_, LineBudget> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The user's rate limit, shared by all its connections; `None` if there are too many users, in
    /// which case the connection keeps its own.
    pub(crate) fn bucket(&self, user: &str, now_ns: u64) -> Option<SharedBucket> {
        self.buckets.take(user, now_ns)
    }

    /// Reloads the auth file; returns the number of its users, or `None` if there is no file.
    ///
    /// # Errors
    /// Those of [`new`](Self::new), and a file without users where there were some: it may be one
    /// that is just being written. The previous users then stay in effect.
    pub(crate) fn reload(&self) -> Result<Option<usize>, AuthFileError> {
        let Some(file) = &self.file else { return Ok(None) };
        let table = auth_file::load(file)?;
        let users = table.len();
        if users == 0 && !self.table.read().unwrap_or_else(PoisonError::into_inner).is_empty() {
            return Err(AuthFileError::NoUsers { path: file.clone() });
        }
        auth_file::warn_of(&table, file);
        let mut current = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *current, Arc::new(table));
        // Dropping a large table takes time, so unlock first: no worker should wait for it.
        drop(current);
        drop(old);
        Ok(Some(users))
    }
}
