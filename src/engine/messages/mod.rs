//! The pure parts of the message server: users, tokens, rate limits per user, outboxes.

pub(crate) mod outbox;
pub(crate) mod token;
pub(crate) mod user_buckets;
pub(crate) mod users;
