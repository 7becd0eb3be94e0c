//! How nodes say they are doing. Only the leader knows it, and the next one learns it anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use crate::ids::{Uid, UnixMillis};

/// What a node says about itself, again and again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// It takes writes.
    pub ready: bool,
    /// Series in its head.
    pub head_series: u64,
    /// How many it may have; 0 for any number.
    pub head_series_max: u64,
    /// Every sample older than this that the node holds is in the bucket; none if it cannot say.
    pub uploaded_through: Option<UnixMillis>,
    /// It owns no slots, has cut and uploaded all that it held, and checked each object.
    pub drained: bool,
}

impl Report {
    /// A node that is not ready, or has nine tenths of the series it may have, should get no slots.
    pub fn holds_moves_back(&self) -> bool {
        let is_near_limit = self.head_series_max > 0
            && u128::from(self.head_series) * 10 > u128::from(self.head_series_max) * 9;
        !self.ready || is_near_limit
    }
}

/// One run of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessId {
    /// Counts the starts of the node.
    pub boot: u64,
    /// Made up at the start; 0 if it is not said. A node that is copied and started in two places counts
    /// both starts alike, and this tells them apart.
    pub nonce: u64,
}

impl ProcessId {
    /// True if `later` cannot have come after this one by a restart on the same disk.
    fn is_cloned_by(self, later: ProcessId) -> bool {
        let is_other = self.nonce != 0 && later.nonce != 0 && self.nonce != later.nonce;
        later.boot < self.boot || (later.boot == self.boot && is_other)
    }
}

/// A report and who sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SoftState {
    /// The run of the node that sent it.
    pub process: ProcessId,
    /// What it said.
    pub report: Report,
    /// Where it is.
    pub address: String,
    /// Version of its program.
    pub version: String,
    /// When it said so.
    pub at: Instant,
    /// How many milliseconds its clock was ahead of the leader's; none if it did not say.
    pub clock_offset: Option<i64>,
}

/// Two processes have the same identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "another process runs as node {uid}: its start {boot} is known, and this is start {own}; the data of one is a copy of the other's, and only one of them may run"
)]
pub struct Cloned {
    /// The identity.
    pub uid: Uid,
    /// The latest start known.
    pub boot: u64,
    /// The start of who sent this.
    pub own: u64,
}

/// The reports of all nodes.
#[derive(Debug, Default)]
pub struct SoftTable(BTreeMap<Uid, SoftState>);

impl SoftTable {
    /// Refuses a process if another one of the same node is known that is not older.
    pub fn check(&self, uid: Uid, process: ProcessId) -> Result<(), Cloned> {
        match self.0.get(&uid) {
            Some(known) if known.process.is_cloned_by(process) => {
                Err(Cloned { uid, boot: known.process.boot, own: process.boot })
            }
            _ => Ok(()),
        }
    }

    /// Takes a report, unless another process of the same node has reported that is not older.
    pub fn take(&mut self, uid: Uid, state: SoftState) -> Result<(), Cloned> {
        self.check(uid, state.process)?;
        self.0.insert(uid, state);
        Ok(())
    }

    /// The last report of a node.
    pub fn get(&self, uid: Uid) -> Option<&SoftState> {
        self.0.get(&uid)
    }

    /// The last reports of all nodes.
    pub fn iter(&self) -> impl Iterator<Item = (Uid, &SoftState)> {
        self.0.iter().map(|(&uid, state)| (uid, state))
    }

    /// How far the clocks of those are ahead of the leader's who spoke within this time.
    pub fn clock_offsets(&self, now: Instant, within: Duration) -> Vec<i64> {
        let is_recent = |state: &&SoftState| now.saturating_duration_since(state.at) <= within;
        self.0.values().filter(is_recent).filter_map(|state| state.clock_offset).collect()
    }

    /// Who said within this time that nothing should be moved to it. Silence says nothing.
    pub fn not_ready(&self, now: Instant, within: Duration) -> BTreeSet<Uid> {
        let is_recent = |state: &SoftState| now.saturating_duration_since(state.at) <= within;
        let holds_back = |(_, state): &(Uid, &SoftState)| is_recent(state) && state.report.holds_moves_back();
        self.iter().filter(holds_back).map(|(uid, _)| uid).collect()
    }

    /// Forgets all nodes but these.
    pub fn retain(&mut self, is_known: impl Fn(Uid) -> bool) {
        self.0.retain(|&uid, _| is_known(uid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(boot: u64, ready: bool, head_series: u64, at: Instant) -> SoftState {
        let report = Report { ready, head_series, head_series_max: 100, ..Report::default() };
        SoftState {
            process: ProcessId { boot, nonce: 7 },
            report,
            address: String::new(),
            version: String::new(),
            at,
            clock_offset: None,
        }
    }

    #[test]
    fn who_holds_moves_back() {
        let start = Instant::now();
        let check = |ready, series, age: u64, expected: bool| {
            let mut table = SoftTable::default();
            table.take(Uid(1), state(1, ready, series, start)).unwrap();
            let now = start + Duration::from_secs(age);
            table.take(Uid(2), state(1, true, 0, now)).unwrap();
            let found = table.not_ready(now, Duration::from_secs(15));
            assert_eq!(found, expected.then_some(Uid(1)).into_iter().collect());
        };
        check(true, 90, 0, false);
        check(true, 91, 0, true);
        check(false, 0, 0, true);
        check(false, 0, 15, true);
        check(false, 0, 16, false);
        let unlimited = Report { ready: true, head_series: u64::MAX, ..Report::default() };
        assert!(!unlimited.holds_moves_back());
    }

    #[test]
    fn who_is_a_clone() {
        let check = |boot, nonce, is_refused| {
            let mut table = SoftTable::default();
            table.take(Uid(1), state(4, true, 0, Instant::now())).unwrap();
            let found = table.check(Uid(1), ProcessId { boot, nonce });
            assert_eq!(found.is_err(), is_refused, "start {boot} of process {nonce}");
            table.check(Uid(2), ProcessId { boot, nonce }).unwrap();
        };
        check(3, 7, true);
        check(3, 8, true);
        check(3, 0, true);
        check(4, 7, false);
        check(4, 8, true);
        check(4, 0, false);
        check(5, 8, false);
    }

    #[test]
    fn an_earlier_start_is_a_clone() {
        let now = Instant::now();
        let mut table = SoftTable::default();
        table.take(Uid(1), state(2, true, 0, now)).unwrap();
        assert_eq!(table.take(Uid(1), state(1, true, 0, now)), Err(Cloned { uid: Uid(1), boot: 2, own: 1 }));
        table.take(Uid(1), state(3, false, 0, now)).unwrap();
        assert_eq!(table.get(Uid(1)).map(|state| state.process.boot), Some(3));
        table.retain(|_| false);
        assert_eq!(table.get(Uid(1)), None);
    }
}
