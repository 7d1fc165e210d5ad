//! What one can run. Each scenario ends in an [`Ending`]: its report and whether it was red.

pub mod common;
pub mod crash;
pub mod run;
pub mod smoke;
