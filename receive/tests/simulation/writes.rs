//! The data plane: any host takes a write, places its samples, sends them to their owners and counts what
//! these say. Placement, fencing and counting are those of the program; what is between them is made for
//! the simulation.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, time::sleep};
use tonic::body::Body;
use weir::replicate::quorum::{Decision, Vote, Votes, copies_needed};
use weir_hashring::{
    fencing::{Fence, Verdict},
    ids::{ClusterId, Digest, RingEpoch, Slot, Uid},
    series_hash,
    view::{NodeIndex, RingView},
};

use crate::{
    disk::Sample,
    host::{Host, Running},
    mutant::Mutant,
    network::plain_answer,
};

pub const WRITE: &str = "/simulation/write";
const BATCH: &str = "/simulation/batch";
/// What missed its owners is split anew so often.
const ATTEMPTS: usize = 3;
const BATCH_PATIENCE: Duration = Duration::from_millis(1500);
/// How long an owner waits for a ring that it does not know yet.
const CATCH_UP: Duration = Duration::from_millis(200);
const LOOK: Duration = Duration::from_millis(20);

/// What a batch says about the ring that it was split by.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct BatchHeader {
    pub cluster: ClusterId,
    /// Whom it is meant for.
    pub target: Uid,
    pub epoch: RingEpoch,
    pub digest: Digest,
    /// The slot of its series.
    pub slot: Slot,
}

/// Samples for one owner of one slot.
#[derive(Serialize, Deserialize)]
struct Batch {
    header: BatchHeader,
    samples: Vec<Sample>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum BatchAnswer {
    Stored,
    Refused(Refusal),
}

/// Why a batch is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Refusal {
    /// It is for another node, or of another cluster: the greeting of a stream is refused.
    NotForMe,
    /// This node does not own the slot, though it knows the very ring of the sender.
    NotOwner,
    Fenced(Verdict),
    /// The disk does not take it.
    NotWritten,
}

/// Answers requests of clients and of other hosts.
pub async fn answer(
    host: &Arc<Host>,
    running: &Arc<Running>,
    path: &str,
    body: Bytes,
) -> http::Response<Body> {
    let bytes = match path {
        WRITE => {
            let samples: Vec<Sample> = serde_json::from_slice(&body).expect("clients send samples");
            serde_json::to_vec(&write(host, running, samples).await)
        }
        _ => {
            let batch: Batch = serde_json::from_slice(&body).expect("hosts send batches");
            serde_json::to_vec(&take(host, running, batch).await)
        }
    };
    plain_answer(bytes.expect("an answer is text and numbers"))
}

/// Stores samples on their owners; true if all are.
async fn write(host: &Arc<Host>, running: &Arc<Running>, mut samples: Vec<Sample>) -> bool {
    let mut known = RingEpoch(0);
    for _ in 0..ATTEMPTS {
        // Waits for another ring than the one that did not do.
        for _ in 0..50 {
            if running.view().is_some_and(|view| view.epoch() > known) {
                break;
            }
            sleep(LOOK).await;
        }
        let Some(view) = running.view() else { return false };
        known = view.epoch();
        samples = attempt(host, running, &view, samples).await;
        if samples.is_empty() {
            return true;
        }
    }
    false
}

/// Stores samples by one ring; gives those that are not stored.
async fn attempt(
    host: &Arc<Host>,
    running: &Arc<Running>,
    view: &Arc<RingView>,
    samples: Vec<Sample>,
) -> Vec<Sample> {
    let mut votes = Votes::default();
    let mut batches: BTreeMap<(NodeIndex, Slot), Vec<usize>> = BTreeMap::new();
    let mut slots = Vec::new();
    for (index, (series, _)) in samples.iter().enumerate() {
        let tenant = format!("tenant-{}", series % 64);
        let Some(placement) = view.tenant(&tenant) else { return samples };
        let series = series.to_string();
        let slot = placement.slot(series_hash(view.hash_seed().0, &tenant, [("series", series.as_str())]));
        let owners = placement.owners_of(slot);
        votes.push(owners.len(), copies_needed(owners.len()));
        owners.iter().for_each(|owner| batches.entry((*owner, slot)).or_default().push(index));
        slots.push(slot);
    }
    let (sender, mut answers) = mpsc::unbounded_channel();
    let mut open = batches.len();
    for ((owner, slot), indexes) in batches {
        let node = view.node(owner).expect("owners are nodes of their view");
        let header = BatchHeader {
            cluster: view.cluster(),
            target: node.uid,
            epoch: view.epoch(),
            digest: view.digest(),
            slot,
        };
        let batch = Batch { header, samples: indexes.iter().map(|&index| samples[index]).collect() };
        let (host, running, sender) = (Arc::clone(host), Arc::clone(running), sender.clone());
        let address = node.addresses.grpc.clone();
        tokio::spawn(async move {
            let answer = send(&host, &running, &address, batch).await;
            let _ = sender.send((indexes, answer));
        });
    }
    let mut batches_stored = 0;
    let by_request = host.is_mutant(Mutant::QuorumPerRequest);
    while open > 0 && !votes.is_decided() && !(by_request && batches_stored >= 2) {
        let Some((indexes, answer)) = answers.recv().await else { break };
        open -= 1;
        let vote = match answer {
            Some(BatchAnswer::Stored) => Vote::Stored,
            Some(BatchAnswer::Refused(refusal)) => {
                if refusal == Refusal::Fenced(Verdict::DigestMismatch) {
                    host.oracle.fail(format!("host {} has another ring {}", host.index, view.epoch()));
                }
                Vote::Missed
            }
            None => Vote::Missed,
        };
        batches_stored += usize::from(vote == Vote::Stored);
        indexes.into_iter().for_each(|index| votes.vote(index, vote));
    }
    let own = running.node.uid();
    let ring = running.record();
    if ring.state.tombstone(own).is_some() {
        // Who is gone says nothing more.
        return samples;
    }
    let all_stored = by_request && batches_stored >= 2;
    let mut missed = Vec::new();
    for ((&sample, slot), decision) in samples.iter().zip(slots).zip(votes.decisions()) {
        if decision == Decision::Stored || all_stored {
            host.oracle.acked(host.index, own, &ring.state, view.epoch(), slot, sample);
        } else {
            missed.push(sample);
        }
    }
    missed
}

async fn send(host: &Arc<Host>, running: &Arc<Running>, address: &str, batch: Batch) -> Option<BatchAnswer> {
    if batch.header.target == running.node.uid() {
        return Some(take(host, running, batch).await);
    }
    let body = serde_json::to_vec(&batch).expect("a batch is text and numbers");
    let answer = running.network.ask(address, BATCH, body, BATCH_PATIENCE).await?;
    serde_json::from_slice(&answer).ok()
}

/// Judges a batch as the program does.
fn judge(fence: &Fence, own: Uid, cluster: Option<ClusterId>, batch: &BatchHeader) -> Result<(), Refusal> {
    if batch.target != own || Some(batch.cluster) != cluster {
        return Err(Refusal::NotForMe);
    }
    match fence.judge(batch.epoch, batch.digest) {
        // Of older rings it is only known that they were those of the sender.
        Verdict::Accept if batch.epoch == fence.epoch() && !fence.owns(batch.slot) => Err(Refusal::NotOwner),
        Verdict::Accept => Ok(()),
        verdict => Err(Refusal::Fenced(verdict)),
    }
}

/// Takes a batch, if the fence lets it through.
async fn take(host: &Arc<Host>, running: &Arc<Running>, batch: Batch) -> BatchAnswer {
    let own: Uid = running.node.uid();
    let mut waited = Duration::ZERO;
    loop {
        let cluster = running.node.cluster();
        let judged = running.fence(host, |fence| judge(fence, own, cluster, &batch.header));
        let (judged, ring) = match judged {
            Some((judged, ring)) => (judged, ring),
            None => (Err(Refusal::Fenced(Verdict::RingBehind)), running.record()),
        };
        let judged = if host.is_mutant(Mutant::EpochUnchecked) { Ok(()) } else { judged };
        match judged {
            Ok(()) => {
                host.oracle.stores(host.index, own, &batch.header, &ring.state, host.disk.is_closed());
                let synced = host.disk.append(batch.samples);
                return match synced.await {
                    Ok(()) => BatchAnswer::Stored,
                    Err(_) => BatchAnswer::Refused(Refusal::NotWritten),
                };
            }
            Err(Refusal::Fenced(Verdict::RingBehind)) if waited < CATCH_UP => {
                sleep(LOOK).await;
                waited += LOOK;
            }
            Err(refused) => {
                if refused == Refusal::NotOwner {
                    host.oracle.fail(format!(
                        "host {} does not own the slot of {:?} in its own epoch",
                        host.index, batch.header
                    ));
                }
                return BatchAnswer::Refused(refused);
            }
        }
    }
}
