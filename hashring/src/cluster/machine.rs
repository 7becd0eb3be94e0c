//! The ring as a machine of Raft.

use crate::{
    raft::{Machine, RestoreError},
    ring::{Applied, Command, Rejected, RingState},
};

/// What whoever proposed a command is told.
pub type Outcome = Result<Applied, Rejected>;

/// The ring that commands are applied to. Its snapshot is the state as JSON.
#[derive(Clone, Debug, Default)]
pub struct RingMachine {
    /// The state after all commands so far.
    pub state: RingState,
}

impl Machine for RingMachine {
    type Command = Command;
    type Answer = Outcome;

    fn apply(&mut self, command: Command) -> Outcome {
        self.state.apply(&command)
    }

    fn snapshot(&self) -> Vec<u8> {
        serde_json::to_vec(&self.state).expect("a state has only keys that are text or numbers")
    }

    fn restore(bytes: &[u8]) -> Result<RingMachine, RestoreError> {
        let state = serde_json::from_slice(bytes).map_err(|error| RestoreError(error.to_string()))?;
        Ok(RingMachine { state })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::tests::{cluster_of, golden_log, replay};

    #[test]
    fn states_come_back_from_snapshots() {
        for state in [RingState::default(), cluster_of(5), replay(&golden_log())] {
            let machine = RingMachine { state };
            let bytes = machine.snapshot();
            let restored = RingMachine::restore(&bytes).expect("it is a snapshot");
            assert_eq!(restored.state, machine.state);
            assert!(RingMachine::restore(&bytes[..bytes.len() - 1]).is_err());
        }
    }
}
