//! Garbage on the stream of copies.

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use weir_hashring::ids::Uid;
use weir_proto::{
    replication::{BatchWriter, FRAME_VERSION, SeriesName},
    weir_replication::{
        Hello, Outcome, ReplicateRequest, ReplicateResponse, Verdict, replicate_request::Message as Incoming,
        replicate_response::Message as Outgoing, replication_client::ReplicationClient,
    },
};

use super::{
    super::{
        harness::{NodeSite, Process, wait_for},
        ring::RingCluster,
    },
    FEW_SLOTS, ONE_COPY, Witness, noise, sum,
};

/// The greeting that the node with this uid expects.
pub fn hello(cluster_id: Vec<u8>, target: Uid) -> Hello {
    Hello { version: FRAME_VERSION, cluster_id, sender: "stranger".to_owned(), target: target.to_string() }
}

/// The sending end of a replication stream, by hand.
pub struct Stream {
    requests: mpsc::Sender<ReplicateRequest>,
    answers: Streaming<ReplicateResponse>,
}

impl Stream {
    /// A stream that was not greeted; the call is only answered once it was.
    async fn silent(
        grpc_port: u16,
    ) -> (mpsc::Sender<ReplicateRequest>, impl Future<Output = Result<Streaming<ReplicateResponse>, Status>>)
    {
        let (requests, queue) = mpsc::channel(16);
        let url = format!("http://127.0.0.1:{grpc_port}");
        let mut client = ReplicationClient::connect(url).await.unwrap();
        let call = async move {
            client.replicate(ReceiverStream::new(queue)).await.map(tonic::Response::into_inner)
        };
        (requests, call)
    }

    /// A stream that begins with this message.
    async fn begin(site: &NodeSite, first: Incoming) -> Result<Self, Status> {
        let (requests, call) = Self::silent(site.grpc_port).await;
        requests.send(ReplicateRequest { message: Some(first) }).await.unwrap();
        Ok(Self { requests, answers: call.await? })
    }

    pub async fn open(site: &NodeSite, hello: Hello) -> Result<Self, Status> {
        let mut stream = Self::begin(site, Incoming::Hello(hello)).await?;
        let first = stream.answers.message().await?.unwrap();
        assert!(matches!(first.message, Some(Outgoing::Welcome(_))), "{first:?}");
        Ok(stream)
    }

    async fn send(&mut self, message: Incoming) -> Result<Vec<Verdict>, Status> {
        self.requests.send(ReplicateRequest { message: Some(message) }).await.unwrap();
        loop {
            match self.answers.message().await? {
                // Of the batches before the one that cannot be read.
                Some(ReplicateResponse { message: Some(Outgoing::Verdicts(verdicts)) })
                    if verdicts.verdicts.is_empty() => {}
                Some(ReplicateResponse { message: Some(Outgoing::Verdicts(verdicts)) }) => {
                    return Ok(verdicts.verdicts);
                }
                other => panic!("neither verdicts nor an error: {other:?}"),
            }
        }
    }
}

/// A frame with one batch of one series.
fn frame(tenant: (u32, Option<&str>), name: SeriesName<'_>, samples: &[(i64, u64)]) -> Vec<u8> {
    let mut frame = Vec::new();
    let mut batch = BatchWriter::begin(&mut frame, 0, (1, 2), tenant, 0);
    batch.series(name, samples.iter().copied());
    batch.finish();
    frame
}

/// Whoever knows cluster and node may still send anything on the stream of copies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_the_stream_of_copies_ends_that_stream() {
    let temp = tempfile::tempdir().unwrap();
    let cluster = RingCluster::new(temp.path(), 1, &[FEW_SLOTS, ONE_COPY]);
    let processes = cluster.start().await;
    let mut witness = Witness::new(&cluster, 1).await;
    let state = cluster.state(0).await;
    let greeting = hello(state.cluster().unwrap().id.0.to_vec(), state.nodes().next().unwrap().uid);
    let site = &cluster.sites[0];
    let count = async |what: &str| sum(site, &[&format!("weir_replication_streams_{what}_total")]).await;

    // Nobody greets: the first is waited for all the time that the rest takes.
    let (_requests, silent) = Stream::silent(site.grpc_port).await;
    let silent = tokio::spawn(silent);
    let refused = count("refused").await;
    let first = Incoming::Frame(Bytes::from(noise(1, 100)));
    let status = Stream::begin(site, first).await.err().expect("refused");
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "a stream begins with a greeting"));
    assert_eq!(count("refused").await, refused + 1.0);

    let mut broken = count("broken").await;
    let mut check = async |message: Incoming, text: &str| {
        let mut stream = Stream::open(site, greeting.clone()).await.unwrap();
        let status = stream.send(message.clone()).await.expect_err(text);
        assert_eq!(status.code(), Code::InvalidArgument, "{message:?}: {status}");
        assert!(status.message().contains(text), "{message:?}: {status}");
        broken += 1.0;
        wait_for("the count", async || (count("broken").await == broken).then_some(())).await;
    };
    check(Incoming::Hello(greeting.clone()), "only frames follow the greeting").await;
    let sample = [(1, 2)];
    let (named, sorted) = ((0, Some("strange")), [("a", "1"), ("b", "2")]);
    let good = frame(named, SeriesName::Define(3, &sorted), &sample);
    for seed in 1..40 {
        check(Incoming::Frame(noise(seed, 1 + 7 * seed as usize).into()), "replication frame: ").await;
    }
    for len in 1..good.len() {
        check(Incoming::Frame(good[..len].to_vec().into()), "replication frame: ").await;
    }
    let mut many_series = good.clone();
    many_series[4..8].copy_from_slice(&[0xff; 4]);
    check(Incoming::Frame(many_series.into()), "ends too early").await;
    let mut long = good.clone();
    long[..4].copy_from_slice(&[0xff; 4]);
    check(Incoming::Frame(long.into()), "ends too early").await;
    let unnamed: &[(&str, &str)] = &[];
    for (labels, text) in [
        (&[("b", "1"), ("a", "2")][..], "labels do not ascend"),
        (&[("a", "1"), ("a", "2")], "labels do not ascend"),
        (&[("a", "")], "labels do not ascend, or are empty"),
        (&[("", "1")], "labels do not ascend, or are empty"),
        (unnamed, "series without labels"),
    ] {
        check(Incoming::Frame(frame(named, SeriesName::Define(3, labels), &sample).into()), text).await;
    }
    for tenant in [(1, Some("strange")), (u32::MAX, Some("strange"))] {
        let frame = frame(tenant, SeriesName::Define(3, &sorted), &sample);
        check(Incoming::Frame(frame.into()), "tenants are not numbered one after the other").await;
    }

    // What can be read and makes no sense is answered, and stored nowhere.
    let mut stream = Stream::open(site, greeting).await.unwrap();
    let mut ask = async |frame: Vec<u8>| stream.send(Incoming::Frame(frame.into())).await.unwrap().remove(0);
    let unheard_of = ask(frame(named, SeriesName::Known(u32::MAX), &sample)).await;
    assert_ne!(unheard_of.outcome(), Outcome::Stored);
    for number in [3, (16 << 20) - 1, u32::MAX] {
        let verdict =
            ask(frame((0, None), SeriesName::Define(number, &sorted), &[(i64::MAX, 1), (i64::MIN, 2)])).await;
        assert_ne!(verdict.outcome(), Outcome::Stored, "of a ring that nobody has: {verdict:?}");
    }
    let nobody = ask(frame((7, None), SeriesName::Define(4, &sorted), &sample)).await;
    assert!(nobody.outcome() == Outcome::Unavailable && nobody.cause.contains("not named"), "{nobody:?}");
    let climbs = ask(frame((1, Some("../up")), SeriesName::Define(4, &sorted), &sample)).await;
    assert!(
        climbs.outcome() == Outcome::Unavailable && climbs.cause.contains("invalid tenant"),
        "{climbs:?}"
    );
    assert!(site.read("strange", i64::MIN, i64::MAX).await.is_empty());

    let status = silent.await.unwrap().expect_err("given up");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(status.message().contains("no greeting came"), "{status}");
    assert_eq!(count("refused").await, refused + 2.0);
    witness.check().await;
    processes.into_iter().for_each(Process::stop);
}
