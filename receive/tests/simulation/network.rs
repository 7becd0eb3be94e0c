//! Requests between hosts, as datagrams of turmoil.
//!
//! What travels are the requests and answers of gRPC without HTTP/2 below, so that nothing but this file
//! decides when something arrives. Each link is first in, first out, as a connection is, and draws its
//! delays and losses from a generator of its own: what one task of a host sends does not depend on
//! what the others send. Turmoil delivers, knows the partitions, and drops what is for a host that
//! is down.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use parking_lot::Mutex;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::AbortHandle,
    time::{Instant, sleep_until},
};
use tonic::{Status, body::Body};
use tower::util::BoxCloneSyncService;
use turmoil::net::UdpSocket;
use weir_hashring::cluster::{BadAddress, Channel, Dialer};

use crate::chance::Chance;

/// More than the largest message.
const DATAGRAM_BYTES_MAX: usize = 4 << 20;

/// How messages fare.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// So many of a thousand are lost.
    pub lost: u64,
    /// Milliseconds that a message takes at most.
    pub delay_max: u64,
}

/// The weather everywhere.
#[derive(Debug, Default)]
pub struct Sky {
    pub everywhere: Weather,
    /// Other weather on single links.
    pub links: BTreeMap<(IpAddr, IpAddr), Weather>,
}

/// Answers requests that come to a host.
pub type Handler =
    Arc<dyn Fn(String, Bytes) -> Pin<Box<dyn Future<Output = http::Response<Body>> + Send>> + Send + Sync>;

/// The network as one start of a host sees it. Clones are the same.
#[derive(Clone)]
pub struct Network(Arc<Shared>);

struct Shared {
    socket: UdpSocket,
    own: IpAddr,
    sky: Arc<Mutex<Sky>>,
    seed: u64,
    links: Mutex<HashMap<SocketAddr, Link>>,
    calls: Mutex<Calls>,
    answering: Mutex<HashMap<(SocketAddr, u64), AbortHandle>>,
}

#[derive(Default)]
struct Calls {
    last_id: u64,
    waiting: HashMap<u64, UnboundedSender<Packet>>,
}

struct Link {
    queue: UnboundedSender<(Instant, Bytes)>,
    chance: Chance,
    last_arrival: Instant,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the network of {}", self.0.own)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Packet {
    Call { id: u64, path: String, body: Bytes },
    Cancel { id: u64 },
    Data { id: u64, number: u64, data: Bytes },
    End { id: u64, number: u64, trailers: Vec<(String, Bytes)> },
}

impl Network {
    /// Binds the port. `seed` is another one for each start.
    pub async fn bind(port: u16, own: IpAddr, seed: u64, sky: Arc<Mutex<Sky>>) -> std::io::Result<Network> {
        let socket = UdpSocket::bind(("0.0.0.0", port)).await?;
        // Answers to an earlier start are not taken for those of this one.
        let calls = Calls { last_id: seed, ..Calls::default() };
        Ok(Network(Arc::new(Shared {
            socket,
            own,
            sky,
            seed,
            links: Mutex::default(),
            calls: Mutex::new(calls),
            answering: Mutex::default(),
        })))
    }

    /// Takes what arrives, for ever.
    pub async fn run(&self, handler: Handler) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let Ok((bytes, from)) = self.0.socket.recv_from(&mut buffer).await else { return };
            let packet = Packet::decode(Bytes::copy_from_slice(&buffer[..bytes]));
            self.take(from, packet, &handler);
        }
    }

    fn take(&self, from: SocketAddr, packet: Packet, handler: &Handler) {
        match packet {
            Packet::Call { id, path, body } => {
                let (network, handler) = (self.clone(), Arc::clone(handler));
                let task = tokio::spawn(async move {
                    network.answer(from, id, handler(path, body).await).await;
                    network.0.answering.lock().remove(&(from, id));
                });
                self.0.answering.lock().insert((from, id), task.abort_handle());
            }
            Packet::Cancel { id } => {
                if let Some(task) = self.0.answering.lock().remove(&(from, id)) {
                    task.abort();
                }
            }
            Packet::Data { id, .. } | Packet::End { id, .. } => {
                let waiting = self.0.calls.lock().waiting.get(&id).cloned();
                match waiting {
                    Some(waiting) => drop(waiting.send(packet)),
                    None => self.send(from, &Packet::Cancel { id }),
                }
            }
        }
    }

    async fn answer(&self, to: SocketAddr, id: u64, response: http::Response<Body>) {
        let (head, mut body) = response.into_parts();
        let mut trailers = head.headers;
        let mut number = 0;
        if !trailers.contains_key("grpc-status") {
            while let Some(Ok(frame)) = body.frame().await {
                match frame.into_data() {
                    Ok(data) => {
                        self.send(to, &Packet::Data { id, number, data });
                        number += 1;
                    }
                    Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
                }
            }
        }
        let trailers = trailers
            .iter()
            .map(|(name, value)| (name.to_string(), Bytes::copy_from_slice(value.as_bytes())))
            .collect();
        self.send(to, &Packet::End { id, number, trailers });
    }

    fn send(&self, to: SocketAddr, packet: &Packet) {
        let shared = &self.0;
        let weather = {
            let sky = shared.sky.lock();
            sky.links.get(&(shared.own, to.ip())).copied().unwrap_or(sky.everywhere)
        };
        let mut links = shared.links.lock();
        let link = links.entry(to).or_insert_with(|| self.link(to));
        let is_lost = link.chance.between(0, 1000) < weather.lost;
        // Most messages are quick.
        let share = link.chance.between(0, 1000);
        let delay = weather.delay_max * share * share / 1_000_000;
        if !is_lost {
            link.last_arrival = link.last_arrival.max(Instant::now() + Duration::from_millis(delay));
            let _ = link.queue.send((link.last_arrival, packet.encode()));
        }
    }

    fn link(&self, to: SocketAddr) -> Link {
        let (queue, mut packets) = unbounded_channel::<(Instant, Bytes)>();
        let network = self.clone();
        tokio::spawn(async move {
            while let Some((at, packet)) = packets.recv().await {
                sleep_until(at).await;
                let _ = network.0.socket.try_send_to(&packet, to);
            }
        });
        let IpAddr::V4(address) = to.ip() else { panic!("{to}") };
        let chance = Chance::of(self.0.seed, &[u64::from(address.to_bits()), u64::from(to.port())]);
        Link { queue, chance, last_arrival: Instant::now() }
    }

    fn call(&self, address: &str, path: &str, body: Bytes) -> Result<Call, BadAddress> {
        let bad = || BadAddress(address.to_owned());
        let (name, port) = address.rsplit_once(':').ok_or_else(bad)?;
        let to = SocketAddr::new(turmoil::lookup(name), port.parse().map_err(|_| bad())?);
        let (sender, packets) = unbounded_channel();
        let id = {
            let mut calls = self.0.calls.lock();
            calls.last_id = calls.last_id.wrapping_add(1);
            let id = calls.last_id;
            calls.waiting.insert(id, sender);
            id
        };
        self.send(to, &Packet::Call { id, path: path.to_owned(), body });
        Ok(Call { network: self.clone(), to, id, packets, next: 0, has_ended: false })
    }

    /// Asks a host something of the simulation itself; none if there is no whole answer.
    pub async fn ask(&self, address: &str, path: &str, body: Vec<u8>, patience: Duration) -> Option<Bytes> {
        let mut call = self.call(address, path, body.into()).ok()?;
        let answer = tokio::time::timeout(patience, call.next_packet()).await.ok()??;
        match answer {
            Packet::Data { data, .. } => Some(data),
            _ => None,
        }
    }
}

/// The answer of [`Network::ask`].
pub fn plain_answer(body: Vec<u8>) -> http::Response<Body> {
    http::Response::new(Body::new(Full::new(Bytes::from(body))))
}

impl Dialer for Network {
    fn dial(&self, address: &str, _: Duration) -> Result<Channel, BadAddress> {
        let (network, address) = (self.clone(), address.to_owned());
        Ok(BoxCloneSyncService::new(tower::service_fn(move |request: http::Request<Body>| {
            let (network, address) = (network.clone(), address.clone());
            async move { network.request(&address, request).await }
        })))
    }
}

impl Network {
    async fn request(
        &self,
        address: &str,
        request: http::Request<Body>,
    ) -> Result<http::Response<Body>, Status> {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await?.to_bytes();
        let call = self.call(address, &path, body).map_err(|error| Status::unavailable(error.to_string()))?;
        let frames = futures::stream::unfold(call, |mut call| async move {
            let frame = match call.next_packet().await {
                _ if call.has_failed() => Err(Status::unavailable("a part of the answer is lost")),
                Some(Packet::Data { data, .. }) => Ok(Frame::data(data)),
                Some(Packet::End { trailers, .. }) => Ok(Frame::trailers(headers(trailers))),
                _ => return None,
            };
            Some((frame, call))
        });
        let mut frames = Box::pin(futures::StreamExt::peekable(frames));
        // The head of an answer comes with its first part.
        let _ = frames.as_mut().peek().await;
        let mut response = http::Response::new(Body::new(StreamBody::new(frames)));
        let kind = http::HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
        Ok(response)
    }
}

fn headers(trailers: Vec<(String, Bytes)>) -> http::HeaderMap {
    let parse = |(name, value): (String, Bytes)| {
        Some((name.parse::<http::HeaderName>().ok()?, http::HeaderValue::from_bytes(&value).ok()?))
    };
    trailers.into_iter().filter_map(parse).collect()
}

/// A call under way; ends at the other side when it is dropped.
struct Call {
    network: Network,
    to: SocketAddr,
    id: u64,
    packets: UnboundedReceiver<Packet>,
    next: u64,
    has_ended: bool,
}

impl Call {
    /// The next part of the answer; none after the last, or if one was lost.
    async fn next_packet(&mut self) -> Option<Packet> {
        if self.has_ended || self.next == u64::MAX {
            return None;
        }
        let packet = self.packets.recv().await?;
        let number = match &packet {
            Packet::Data { number, .. } => *number,
            Packet::End { number, .. } => {
                self.has_ended = true;
                *number
            }
            _ => return None,
        };
        if number != self.next {
            self.next = u64::MAX;
            return None;
        }
        self.next += 1;
        Some(packet)
    }

    /// True once, when a part was lost.
    fn has_failed(&mut self) -> bool {
        let has_failed = self.next == u64::MAX && !self.packets.is_closed();
        if has_failed {
            self.packets.close();
        }
        has_failed
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.network.0.calls.lock().waiting.remove(&self.id);
        if !self.has_ended {
            self.network.send(self.to, &Packet::Cancel { id: self.id });
        }
    }
}

impl Packet {
    fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        let put = |bytes: &mut BytesMut, part: &[u8]| {
            bytes.put_u64(part.len() as u64);
            bytes.put_slice(part);
        };
        match self {
            Packet::Call { id, path, body } => {
                bytes.put_u8(0);
                bytes.put_u64(*id);
                put(&mut bytes, path.as_bytes());
                put(&mut bytes, body);
            }
            Packet::Cancel { id } => {
                bytes.put_u8(1);
                bytes.put_u64(*id);
            }
            Packet::Data { id, number, data } => {
                bytes.put_u8(2);
                bytes.put_u64(*id);
                bytes.put_u64(*number);
                put(&mut bytes, data);
            }
            Packet::End { id, number, trailers } => {
                bytes.put_u8(3);
                bytes.put_u64(*id);
                bytes.put_u64(*number);
                for (name, value) in trailers {
                    put(&mut bytes, name.as_bytes());
                    put(&mut bytes, value);
                }
            }
        }
        bytes.freeze()
    }

    fn decode(mut bytes: Bytes) -> Packet {
        let take = |bytes: &mut Bytes| {
            let length = bytes.get_u64() as usize;
            bytes.split_to(length)
        };
        let text = |part: Bytes| String::from_utf8(part.to_vec()).expect("a path or a name");
        let (kind, id) = (bytes.get_u8(), bytes.get_u64());
        match kind {
            0 => Packet::Call { id, path: text(take(&mut bytes)), body: take(&mut bytes) },
            1 => Packet::Cancel { id },
            2 => Packet::Data { id, number: bytes.get_u64(), data: take(&mut bytes) },
            3 => {
                let number = bytes.get_u64();
                let mut trailers = Vec::new();
                while bytes.has_remaining() {
                    let name = text(take(&mut bytes));
                    trailers.push((name, take(&mut bytes)));
                }
                Packet::End { id, number, trailers }
            }
            other => panic!("a packet of kind {other}"),
        }
    }
}
