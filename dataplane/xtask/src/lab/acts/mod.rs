//! The acts of the lab, in the order in which they are played. Each notes its checks in the report.

pub mod crash;
pub mod destinations;
pub mod ending;
pub mod flows;
pub mod idle;
pub mod mtu;
pub mod plugins;
pub mod refusals;
pub mod reload;
pub mod sharing;
pub mod start;
