//! Table-driven tests of sessions.
