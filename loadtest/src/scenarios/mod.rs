//! What one can run. Each scenario ends in a [`common::Ending`]: its report and whether it was red.

pub mod cluster;
pub mod cluster_power;
pub mod cluster_storm;
pub mod common;
pub mod crash;
pub mod mixed;
pub mod power;
pub mod reference;
pub mod run;
pub mod slow;
pub mod smoke;
pub mod stall;
pub mod storm;
