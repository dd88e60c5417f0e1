//! What must come back: expected groups, exact sums, the results read.

pub mod double_double;
pub mod expected;
pub mod results;
pub mod tally;
