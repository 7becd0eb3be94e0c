//! Drives Weir, or any other receiver of remote write, from outside: as a load generator, and as
//! the judge of what came of it.

pub mod histogram;
pub mod load;
pub mod procfs;
pub mod workload;
