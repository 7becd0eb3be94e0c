//! A machine for tests: it counts.

use super::{Machine, RestoreError};

/// A sum, and how many commands made it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    pub sum: u64,
    pub commands: u64,
}

impl Machine for Counter {
    type Command = u64;
    type Answer = u64;

    fn apply(&mut self, command: u64) -> u64 {
        self.sum += command;
        self.commands += 1;
        self.sum
    }

    fn snapshot(&self) -> Vec<u8> {
        [self.sum.to_be_bytes(), self.commands.to_be_bytes()].concat()
    }

    fn restore(bytes: &[u8]) -> Result<Counter, RestoreError> {
        let (sum, rest) = bytes.split_first_chunk().ok_or(RestoreError("cut".to_owned()))?;
        let commands = rest.try_into().map_err(|_| RestoreError("cut".to_owned()))?;
        Ok(Counter { sum: u64::from_be_bytes(*sum), commands: u64::from_be_bytes(commands) })
    }
}
