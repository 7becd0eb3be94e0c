//! A node of a version that is not there yet.

use std::pin::Pin;

use futures::Stream;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status, Streaming, transport::Server};
use weir_proto::{
    weir_cluster::{
        AdministerRequest, Answer, HeartbeatRequest, InfoRequest, InfoResponse, JoinRequest, LastRingRequest,
        LastRingResponse, ProposeRequest, RingUpdate, StartRaftRequest, StartRaftResponse, StatusRequest,
        StatusResponse, WatchRequest,
        cluster_server::{Cluster, ClusterServer},
    },
    weir_replication::{
        PingRequest, PingResponse, ReplicateRequest, ReplicateResponse, Welcome,
        replicate_response::Message,
        replication_server::{Replication, ReplicationServer},
    },
};

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

struct Later;

/// Serves it, and tells where.
pub async fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server =
        Server::builder().add_service(ReplicationServer::new(Later)).add_service(ClusterServer::new(Later));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

fn not_asked<T>() -> Result<Response<T>, Status> {
    Err(Status::new(Code::Unimplemented, "not of interest here"))
}

#[tonic::async_trait]
impl Replication for Later {
    type ReplicateStream = Messages<ReplicateResponse>;

    async fn replicate(
        &self,
        _: Request<Streaming<ReplicateRequest>>,
    ) -> Result<Response<Self::ReplicateStream>, Status> {
        let welcome = Message::Welcome(Welcome { version: 2, dictionary_max: 7 });
        let welcome = ReplicateResponse { message: Some(welcome) };
        Ok(Response::new(Box::pin(futures::stream::iter([Ok(welcome)]))))
    }

    async fn ping(&self, _: Request<PingRequest>) -> Result<Response<PingResponse>, Status> {
        Ok(Response::new(PingResponse { ready: true }))
    }
}

#[tonic::async_trait]
impl Cluster for Later {
    type WatchRingStream = Messages<RingUpdate>;

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let uid = vec![7; 16];
        Ok(Response::new(InfoResponse { version: 2, uid, bootstrap_expect: 1, ..Default::default() }))
    }

    async fn join(&self, _: Request<JoinRequest>) -> Result<Response<Answer>, Status> {
        not_asked()
    }

    async fn propose(&self, _: Request<ProposeRequest>) -> Result<Response<Answer>, Status> {
        not_asked()
    }

    async fn watch_ring(&self, _: Request<WatchRequest>) -> Result<Response<Messages<RingUpdate>>, Status> {
        not_asked()
    }

    async fn last_ring(&self, _: Request<LastRingRequest>) -> Result<Response<LastRingResponse>, Status> {
        not_asked()
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        not_asked()
    }

    async fn heartbeat(&self, _: Request<HeartbeatRequest>) -> Result<Response<Answer>, Status> {
        not_asked()
    }

    async fn administer(&self, _: Request<AdministerRequest>) -> Result<Response<Answer>, Status> {
        not_asked()
    }

    async fn start_raft(&self, _: Request<StartRaftRequest>) -> Result<Response<StartRaftResponse>, Status> {
        not_asked()
    }
}
