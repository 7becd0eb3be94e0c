//! What people do: drain nodes, and put new ones in the place of those that died.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{sleep, timeout};
use weir_hashring::{
    cluster::{Dialer, RingRecord},
    ids::Uid,
    ring::{Command, NodeState},
};
use weir_proto::weir_cluster::{ProposeRequest, cluster_client::ClusterClient};

use crate::{
    host::{Host, PORT},
    network::{Network, Sky, plain_answer},
};

/// The hosts that were started so far.
pub type Hosts = Arc<Mutex<Vec<Arc<Host>>>>;

/// What there is to do.
#[derive(Clone, Copy, Debug)]
pub enum Job {
    /// A node shall leave.
    Drain(Uid, usize),
    /// A node lost its disk; whoever is on its host now takes its place.
    Replace(Uid, usize),
}

/// Jobs for the operator.
#[derive(Default)]
pub struct Jobs {
    new: Mutex<Vec<Job>>,
    open: AtomicUsize,
}

impl Jobs {
    pub fn add(&self, job: Job) {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.new.lock().push(job);
    }

    /// How many are not done.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

/// The newest ring that any running host uses.
pub fn newest(hosts: &Hosts) -> Option<Arc<RingRecord>> {
    let records = hosts.lock().iter().filter_map(|host| Some(host.running()?.record())).collect::<Vec<_>>();
    records.into_iter().max_by_key(|record| record.entries_applied)
}

/// Does one job after the other, for ever.
pub async fn run(hosts: Hosts, jobs: Arc<Jobs>, sky: Arc<Mutex<Sky>>, seed: u64) -> turmoil::Result {
    let network = Network::bind(PORT, turmoil::lookup("operator"), seed, sky).await?;
    tokio::spawn({
        let network = network.clone();
        async move { network.run(Arc::new(|_, _| Box::pin(async { plain_answer(Vec::new()) }))).await }
    });
    loop {
        let next = jobs.new.lock().pop();
        if let Some(job) = next {
            while let Some(command) = next_step(&hosts, job) {
                if let Some(command) = command {
                    propose(&hosts, &network, &command).await;
                }
                sleep(Duration::from_millis(500)).await;
            }
            jobs.open.fetch_sub(1, Ordering::Relaxed);
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// What to propose next for a job, if anything now; none if it is done.
fn next_step(hosts: &Hosts, job: Job) -> Option<Option<Command>> {
    let Some(record) = newest(hosts) else { return Some(None) };
    let ring = &record.state;
    let reason = "simulation".to_owned();
    let (Job::Drain(subject, _) | Job::Replace(subject, _)) = job;
    if ring.node(subject).is_none() && ring.tombstone(subject).is_none() {
        // Nobody who runs now knows the node, which joined lately.
        return Some(None);
    }
    match job {
        Job::Drain(uid, host) => {
            let node = ring.node(uid)?;
            let is_uploaded = hosts.lock().get(host).is_some_and(|host| host.disk.is_closed());
            let to = match node.state {
                NodeState::Active => NodeState::Draining,
                NodeState::Draining if is_uploaded => NodeState::Drained,
                NodeState::Drained => NodeState::Left,
                NodeState::Left | NodeState::Lost => return None,
                NodeState::Joining | NodeState::Draining => return Some(None),
            };
            Some(Some(Command::SetNodeState { uid, from: node.state, to, reason }))
        }
        Job::Replace(dead, host) => {
            let new = hosts.lock().get(host).and_then(|host| Some(host.running()?.node.uid()));
            let Some(old) = ring.node(dead) else {
                // Nothing to inherit. It is done once the new one is there.
                let is_there = new.and_then(|new| ring.node(new)).is_some();
                return if is_there { None } else { Some(None) };
            };
            if old.state != NodeState::Lost {
                let (from, to) = (old.state, NodeState::Lost);
                return Some(Some(Command::SetNodeState { uid: dead, from, to, reason }));
            }
            let new = new.filter(|new| *new != dead && ring.node(*new).is_some());
            Some(new.map(|new| Command::ReplaceNode { dead, new, force: false, at: None }))
        }
    }
}

async fn propose(hosts: &Hosts, network: &Network, command: &Command) {
    let addresses: Vec<String> =
        hosts.lock().iter().filter(|host| !host.is_gone()).map(|host| host.address()).collect();
    let encoded = serde_json::to_vec(command).expect("a command is text and numbers");
    for address in addresses {
        let Ok(channel) = network.dial(&address, Duration::ZERO) else { continue };
        let request = ProposeRequest {
            version: 1,
            command: encoded.clone(),
            forward: true,
            // The machine of whoever is to be lost is gone, however lately it was heard of.
            force: matches!(command, Command::SetNodeState { to: NodeState::Lost, .. }),
            ..ProposeRequest::default()
        };
        let mut client = ClusterClient::new(channel);
        if let Ok(Ok(_)) = timeout(Duration::from_secs(2), client.propose(request)).await {
            return;
        }
    }
}
