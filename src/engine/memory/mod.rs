//! The memory that peers make the engine take: one account, a share for each stream and client, and
//! the bytes that each part of a share holds. Allocates nothing for others.

pub(crate) mod account;
pub(crate) mod held;
