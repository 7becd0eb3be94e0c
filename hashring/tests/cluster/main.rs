//! Nodes with real disks and real connections, in one process.

mod admin;
mod changes;
mod clocks;
mod cut_off;
mod forming;
mod founding;
mod generations;
mod harness;
mod joining;
mod leaving;
mod members;
mod replacing;
mod shown;
mod strangers;
mod voters;
