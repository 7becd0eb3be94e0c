//! What people write for a peer, and the addresses that come of it.
//!
//! ```text
//! host:port             this address, looked up when it is connected to
//! dns+host:port         all addresses of the host, by A and AAAA
//! dnssrv+name           all SRV records of the name, and all addresses of their hosts
//! dnssrvnoa+name        the hosts and ports of all SRV records of the name
//! file+path             each line of the file a host:port; empty lines and what follows a # do not count
//! ```
//!
//! Everything is looked up anew whenever it is asked for, as nodes that come and go show there first. When a
//! lookup fails, what it gave last still counts: a name server that is away takes no peer away.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
    proto::rr::RData,
};
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tracing::{info, warn};

use super::discovery::{Resolved, Resolver};

/// A larger file is no list of peers.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// More addresses of one peer are not taken.
const ADDRESSES_MAX: usize = 4096;

/// What stands for one or more nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// An address as it is, `host:port`.
    Address(String),
    /// All addresses of a host.
    Dns {
        /// A name or an address.
        host: String,
        /// The port of all.
        port: u16,
    },
    /// The SRV records of a name.
    Srv {
        /// The name.
        name: String,
        /// Whether their hosts are turned into addresses too.
        is_resolved: bool,
    },
    /// The lines of a file.
    File(PathBuf),
}

/// A peer that is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no peer: {what}")]
pub struct BadPeer {
    text: String,
    what: &'static str,
}

impl FromStr for Peer {
    type Err = BadPeer;

    fn from_str(text: &str) -> Result<Peer, BadPeer> {
        let bad = |what| BadPeer { text: text.to_owned(), what };
        let name =
            |name: &str| if name.is_empty() { Err(bad("the name is missing")) } else { Ok(name.to_owned()) };
        match text.split_once('+') {
            None => host_and_port(text).map(|_| Peer::Address(text.to_owned())).map_err(bad),
            Some(("dns", rest)) => {
                let (host, port) = host_and_port(rest).map_err(bad)?;
                Ok(Peer::Dns { host: host.to_owned(), port })
            }
            Some(("dnssrv", rest)) => Ok(Peer::Srv { name: name(rest)?, is_resolved: true }),
            Some(("dnssrvnoa", rest)) => Ok(Peer::Srv { name: name(rest)?, is_resolved: false }),
            Some(("file", rest)) => Ok(Peer::File(PathBuf::from(name(rest)?))),
            Some(_) => Err(bad("before the + there may be dns, dnssrv, dnssrvnoa or file")),
        }
    }
}

/// Splits `host:port`; an address of version 6 stands in brackets, which are taken off.
fn host_and_port(text: &str) -> Result<(&str, u16), &'static str> {
    let (host, port) = text.rsplit_once(':').ok_or("the port is missing")?;
    let port = port.parse().ok().filter(|&port| port != 0).ok_or("the port is no number from 1 to 65535")?;
    if let Some(inner) = host.strip_prefix('[') {
        let address = inner.strip_suffix(']').ok_or("a bracket is not closed")?;
        return match address.parse() {
            Ok(IpAddr::V6(_)) => Ok((address, port)),
            _ => Err("in the brackets there is no address of version 6"),
        };
    }
    if host.contains(':') {
        return Err("an address of version 6 belongs into brackets");
    }
    let is_name =
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    if is_name { Ok((host, port)) } else { Err("the host is no name and no address") }
}

/// Looks peers up, see [`Peer`]. Clones are handles of the same.
#[derive(Clone)]
pub struct PeerResolver {
    shared: Arc<Shared>,
}

struct Shared {
    /// None for those that the system is set up with.
    name_servers: Option<Vec<SocketAddr>>,
    dns: OnceCell<TokioResolver>,
    /// What came of each peer last.
    known: Mutex<BTreeMap<String, Known>>,
}

/// What came of a peer last.
#[derive(Clone, Debug, Default)]
struct Known {
    addresses: Vec<String>,
    /// What has been told about the last lookup, if it failed.
    trouble: Option<String>,
}

impl fmt::Debug for PeerResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerResolver").field("name_servers", &self.shared.name_servers).finish()
    }
}

impl Default for PeerResolver {
    fn default() -> PeerResolver {
        PeerResolver::new(None)
    }
}

impl PeerResolver {
    /// Asks these name servers, or those that the system is set up with.
    pub fn new(name_servers: Option<Vec<SocketAddr>>) -> PeerResolver {
        let (dns, known) = (OnceCell::new(), Mutex::default());
        PeerResolver { shared: Arc::new(Shared { name_servers, dns, known }) }
    }
}

impl Resolver for PeerResolver {
    fn resolve(&self, peer: &str) -> Resolved {
        let (shared, peer) = (Arc::clone(&self.shared), peer.to_owned());
        Box::pin(async move {
            let found = shared.look_up(&peer).await;
            shared.remember(&peer, found)
        })
    }
}

impl Shared {
    /// The addresses that count now. What went wrong is told once, until it changes.
    fn remember(&self, peer: &str, found: Result<Vec<String>, String>) -> Vec<String> {
        let mut known = self.known.lock();
        let known = known.entry(peer.to_owned()).or_default();
        match found {
            Ok(mut addresses) => {
                addresses.sort();
                addresses.dedup();
                addresses.truncate(ADDRESSES_MAX);
                if known.trouble.take().is_some() {
                    info!(peer, addresses = addresses.len(), "the peer is found again");
                }
                known.addresses = addresses;
            }
            Err(what) => {
                if known.trouble.as_ref() != Some(&what) {
                    warn!(
                        peer,
                        what,
                        addresses = known.addresses.len(),
                        "a peer is not found; what was known stays"
                    );
                }
                known.trouble = Some(what);
            }
        }
        known.addresses.clone()
    }

    async fn look_up(&self, peer: &str) -> Result<Vec<String>, String> {
        match peer.parse::<Peer>().map_err(|error| error.to_string())? {
            Peer::Address(address) => Ok(vec![address]),
            Peer::Dns { host, port } => self.addresses_of(&host, port).await,
            Peer::Srv { name, is_resolved } => self.services_of(&name, is_resolved).await,
            Peer::File(path) => {
                let read = tokio::task::spawn_blocking(move || lines_of(&path)).await;
                read.map_err(|error| error.to_string())?
            }
        }
    }

    async fn addresses_of(&self, host: &str, port: u16) -> Result<Vec<String>, String> {
        let found = self.dns().await?.lookup_ip(host).await.map_err(|error| error.to_string())?;
        Ok(found.iter().map(|ip| SocketAddr::new(ip, port).to_string()).collect())
    }

    async fn services_of(&self, name: &str, is_resolved: bool) -> Result<Vec<String>, String> {
        let found = self.dns().await?.srv_lookup(name).await.map_err(|error| error.to_string())?;
        let mut addresses = Vec::new();
        let mut trouble = None;
        for record in found.answers().iter().take(ADDRESSES_MAX) {
            let RData::SRV(service) = &record.data else { continue };
            let host = service.target.to_ascii();
            if !is_resolved {
                addresses.push(format!("{}:{}", host.trim_end_matches('.'), service.port));
                continue;
            }
            match self.addresses_of(&host, service.port).await {
                Ok(found) => addresses.extend(found),
                // One that has just gone does not hide the others.
                Err(what) => trouble = Some(format!("{host}: {what}")),
            }
        }
        match trouble {
            Some(what) if addresses.is_empty() => Err(what),
            _ => Ok(addresses),
        }
    }

    async fn dns(&self) -> Result<&TokioResolver, String> {
        let make = async || {
            let mut builder = match &self.name_servers {
                None => TokioResolver::builder_tokio()?,
                Some(servers) => {
                    let servers = servers.iter().map(|server| name_server(*server)).collect();
                    let config = ResolverConfig::from_name_servers(servers);
                    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
                }
            };
            let options = builder.options_mut();
            options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
            // Who asks again wants to know what is so now, and asks seldom.
            options.cache_size = 0;
            builder.build()
        };
        self.dns.get_or_try_init(make).await.map_err(|error| error.to_string())
    }
}

fn name_server(server: SocketAddr) -> NameServerConfig {
    let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
    (udp.port, tcp.port) = (server.port(), server.port());
    NameServerConfig::new(server.ip(), true, vec![udp, tcp])
}

/// The addresses in a file. Blocks while the disk works.
fn lines_of(path: &Path) -> Result<Vec<String>, String> {
    let at = |error: io::Error| format!("{}: {error}", path.display());
    let bytes = std::fs::metadata(path).map_err(at)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(format!("{}: {bytes} bytes, at most {FILE_BYTES_MAX} are read", path.display()));
    }
    let text = std::fs::read_to_string(path).map_err(at)?;
    let lines = text
        .lines()
        .enumerate()
        .map(|(number, line)| (number + 1, line.split('#').next().unwrap_or("").trim()));
    let address = |(number, line): (usize, &str)| match host_and_port(line) {
        Ok(_) => Ok(line.to_owned()),
        Err(what) => Err(format!("{} line {number}: {line:?}: {what}", path.display())),
    };
    lines.filter(|(_, line)| !line.is_empty()).map(address).collect()
}

#[cfg(test)]
mod tests;
