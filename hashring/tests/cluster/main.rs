//! Nodes with real disks and real connections, in one process.

mod changes;
mod forming;
mod harness;
mod joining;
mod leaving;
mod replacing;
mod shown;
mod strangers;
