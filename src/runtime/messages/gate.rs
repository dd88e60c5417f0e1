//! Who is let in: judges credentials by the auth file that holds now. Knows no connection and no
//! protocol; whoever asks lets time pass after a refusal.

use crate::config::Config;
use crate::engine::messages::user_buckets::UserBuckets;
use crate::engine::messages::users::AuthTable;
use crate::runtime::host::auth_file::{self, AuthFileError};
use crate::wire::messages::limiter::TokenBucket;
use crate::wire::messages::payload::Credentials;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

/// The users, and one rate limit for each of them.
pub(crate) struct Gate {
    file: Option<PathBuf>,
    table: RwLock<Arc<AuthTable>>,
    open: bool,
    buckets: UserBuckets,
}

impl Gate {
    /// Reads the auth file, where there is one.
    ///
    /// # Errors
    /// Where it cannot be read or understood.
    pub(crate) fn new(config: &Config) -> Result<Self, AuthFileError> {
        let table = match &config.auth_file {
            Some(file) => auth_file::load(file)?,
            None => AuthTable::default(),
        };
        Ok(Gate {
            file: config.auth_file.clone(),
            table: RwLock::new(Arc::new(table)),
            open: config.auth_open,
            // Users who were here a second ago count as well as those who are.
            buckets: UserBuckets::new(config.rate_limit, 2 * config.max_connections),
        })
    }

    /// Whether the credentials are right. Takes the same time for a user who is not known.
    pub(crate) fn judge(&self, credentials: Credentials<'_>) -> bool {
        let table = Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner));
        let known = table.verify(credentials.user, credentials.token.as_bytes());
        known || self.open
    }

    /// The user's rate limit, shared by all its connections; `None` where too many users are
    /// there, and the connection keeps its own.
    pub(crate) fn bucket(&self, user: &str, now_ns: u64) -> Option<Arc<TokenBucket>> {
        self.buckets.take(user, now_ns)
    }

    /// Reads the auth file again; gives the number of its users, or `None` where there is no file.
    ///
    /// # Errors
    /// As for [`new`](Self::new); those who were let in before still are.
    pub(crate) fn reload(&self) -> Result<Option<usize>, AuthFileError> {
        let Some(file) = &self.file else { return Ok(None) };
        let table = auth_file::load(file)?;
        let users = table.len();
        let mut current = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *current, Arc::new(table));
        // Taking a large table apart takes time: no worker waits for it.
        drop(current);
        drop(old);
        Ok(Some(users))
    }
}
