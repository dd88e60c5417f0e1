//! The pure parts of the message server: users, tokens, rate limits by user, outboxes.

pub mod outbox;
pub mod token;
pub mod user_buckets;
pub mod users;
