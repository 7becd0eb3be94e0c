//! Other nodes: where the ring comes from, and how they are treated.

use std::{fmt, net::IpAddr, path::PathBuf, time::Duration};

use weir_hashring::{
    cluster::{ClusterPolicies, ClusterTimers, JoinPolicy, ReplacePolicy, TokenText, resolve::Peer},
    ids::{ClusterId, PoolName, ReplicaCount, SlotCount, Weight},
    raft::RaftConfig,
    static_ring::{Algorithm, RingFile, StaticRing},
};

use super::{
    ListenAddress,
    judge::{Judge, same_value},
};
use crate::cli::flags;

/// Flags of the group `Cluster` that say something of a node without a cluster, too.
const ALONE_TOO: [&str; 4] = ["cluster.peers", "cluster.bootstrap-expect", "data.path", "node.name"];

/// Where the ring comes from, and how other nodes are treated.
#[derive(Clone, Debug)]
pub struct RingConfig {
    /// The ring.
    pub source: RingSource,
    /// How long a request waits for its copies.
    pub forward_timeout: Duration,
    /// Longest pause before a peer is connected to again.
    pub backoff_max: Duration,
    /// Bytes sent to a peer and not answered.
    pub window_bytes: usize,
    /// How long a peer may be silent.
    pub failure_timeout: Duration,
}

/// Where the ring comes from.
#[derive(Clone, Debug)]
pub enum RingSource {
    /// A ring file of Thanos.
    File(RingFileConfig),
    /// The nodes agree on it.
    Cluster(Box<ClusterSettings>),
}

/// A ring file of Thanos.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingFileConfig {
    /// Its content.
    pub text: RingText,
    /// Placement of rings that name none.
    pub algorithm: Algorithm,
    /// How often a file is looked at.
    pub refresh_interval: Duration,
    /// This node as the ring names it; `None` if it only routes.
    pub local_endpoint: Option<String>,
}

/// Where the content of a ring file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RingText {
    /// The JSON itself.
    Inline(String),
    /// A file, to be watched.
    File(PathBuf),
}

impl RingText {
    /// The flag that it was given by.
    pub fn flag(&self) -> &'static str {
        match self {
            Self::Inline(_) => "receive.hashrings",
            Self::File(_) => "receive.hashrings-file",
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// If the file cannot be read; the text names it.
    fn read(&self) -> Result<String, String> {
        match self {
            Self::Inline(text) => Ok(text.clone()),
            Self::File(path) => std::fs::read_to_string(path)
                .map_err(|error| format!("cannot read {}: {error}", path.display())),
        }
    }
}

/// Where it is, to be put before what is wrong in it: nothing, or the path of the file.
impl fmt::Display for RingText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(_) => Ok(()),
            Self::File(path) => write!(f, "{}: ", path.display()),
        }
    }
}

/// A node of a cluster.
#[derive(Clone, Debug)]
pub struct ClusterSettings {
    /// Where to serve Raft, the ring, joining and administration.
    pub address: ListenAddress,
    /// Where the node keeps who it is, and the ring.
    pub data_path: PathBuf,
    /// Where others may be.
    pub peers: Vec<String>,
    /// How many nodes without a cluster found one; 0 never does.
    pub bootstrap_expect: u32,
    /// The only cluster that the node may be in.
    pub id: Option<ClusterId>,
    /// Name of this node, which no other may have.
    pub name: String,
    /// What the node may fail with; empty if unknown.
    pub zone: String,
    /// Whether the node only routes.
    pub is_router: bool,
    /// Host at which others reach this node; ports are those of the listeners.
    pub advertise: String,
    /// Share of slots, compared with other nodes.
    pub weight: Weight,
    /// The pool it belongs to.
    pub pool: PoolName,
    /// Slots of the ring, if this node founds the cluster.
    pub slots: SlotCount,
    /// Owners of each slot, if this node founds the cluster.
    pub replicas: ReplicaCount,
    /// Name of the cluster, which no other one has that uses the same bucket.
    pub cluster_name: String,
    /// Found a cluster though another has its name, or had it.
    pub force_new: bool,
    /// Voters of Raft at most; `None` for as many as suit.
    pub max_voters: Option<u32>,
    /// The token it joins with.
    pub join_token: Option<TokenText>,
    /// What it decides by if it leads.
    pub policies: ClusterPolicies,
    /// Times of ring and life of a node.
    pub timers: ClusterTimers,
    /// Times of Raft.
    pub raft: RaftConfig,
}

impl RingConfig {
    /// True if this node stores nothing.
    pub fn is_router(&self) -> bool {
        match &self.source {
            RingSource::File(file) => file.local_endpoint.is_none(),
            RingSource::Cluster(cluster) => cluster.is_router,
        }
    }

    /// The ring file, if there is one.
    pub fn file(&self) -> Option<&RingFileConfig> {
        match &self.source {
            RingSource::File(file) => Some(file),
            RingSource::Cluster(_) => None,
        }
    }

    /// What a node of a cluster knows of it, if it is one.
    pub fn cluster(&self) -> Option<&ClusterSettings> {
        match &self.source {
            RingSource::File(_) => None,
            RingSource::Cluster(cluster) => Some(cluster),
        }
    }
}

impl Judge<'_> {
    /// True if the nodes agree on the ring.
    pub(super) fn is_cluster(&self) -> bool {
        !self.given("cluster.peers").is_empty()
            || !matches!(self.text("cluster.bootstrap-expect").parse(), Ok(0_u64) | Err(_))
    }

    /// Copies of each series.
    pub(super) fn replication_factor(&mut self) -> usize {
        // Of a cluster it has been judged with the rest.
        if self.is_cluster() { self.copies() } else { self.limit("receive.replication-factor") }
    }

    /// Copies of each series as they were asked for, which may be none.
    fn copies(&mut self) -> usize {
        let is_given = !self.given("receive.replication-factor").is_empty();
        let copies =
            if self.is_cluster() && !is_given { 3 } else { self.count("receive.replication-factor") };
        usize::try_from(copies).unwrap_or(usize::MAX)
    }

    /// Other nodes; `None` for a node on its own.
    pub(super) fn ring(&mut self) -> Option<RingConfig> {
        let source = if self.is_cluster() {
            RingSource::Cluster(Box::new(self.cluster()))
        } else {
            self.check_no_cluster_flags();
            RingSource::File(self.ring_file()?)
        };
        Some(RingConfig {
            source,
            forward_timeout: self.interval("receive-forward-timeout"),
            backoff_max: self.interval("receive-forward-max-backoff"),
            window_bytes: self.bytes_limit("replication.window-bytes"),
            failure_timeout: self.interval("replication.failure-timeout"),
        })
    }

    /// A node whose `--cluster.peers` were forgotten must not start on its own.
    fn check_no_cluster_flags(&mut self) {
        let groups = flags::GROUPS.iter().filter(|group| group.heading == "Cluster");
        for flag in groups.flat_map(|group| group.flags).filter(|flag| !ALONE_TOO.contains(&flag.name)) {
            if self.given(flag.name).iter().any(|value| !same_value(flag, value)) {
                self.invalid(
                    flag.name,
                    "needs --cluster.peers or --cluster.bootstrap-expect: this node is in no cluster",
                );
            }
        }
    }

    fn ring_file(&mut self) -> Option<RingFileConfig> {
        let (file, text) = (self.text("receive.hashrings-file"), self.text("receive.hashrings"));
        let local = self.text("receive.local-endpoint");
        let text = match (file, text) {
            ("", "") => {
                if self.copies() > 1 {
                    self.invalid(
                        "receive.replication-factor",
                        "needs a ring: see --cluster.peers and --receive.hashrings-file",
                    );
                }
                return None;
            }
            ("", text) => RingText::Inline(text.to_owned()),
            (file, _) => RingText::File(PathBuf::from(file)),
        };
        let file = RingFileConfig {
            text,
            algorithm: match self.text("receive.hashrings-algorithm") {
                "ketama" => Algorithm::Ketama,
                _ => Algorithm::Hashmod,
            },
            refresh_interval: self.interval("receive.hashrings-file-refresh-interval"),
            local_endpoint: (!local.is_empty()).then(|| local.to_owned()),
        };
        self.check_ring_file(&file);
        Some(file)
    }

    /// Looks whether the ring can be used as it is now. Later it is read again, and a bad one then
    /// changes nothing.
    fn check_ring_file(&mut self, file: &RingFileConfig) {
        let (flag, copies) = (file.text.flag(), self.copies());
        if copies == 0 {
            return;
        }
        let text = match file.text.read() {
            Ok(text) => text,
            Err(cause) => return self.invalid(flag, cause),
        };
        let built = RingFile::parse(text.as_bytes())
            .and_then(|ring| StaticRing::build(&ring, copies, file.algorithm));
        let rings = match built {
            Ok(rings) => rings,
            Err(error) => return self.invalid(flag, format!("{}{error}", file.text)),
        };
        let mut endpoints = rings.rings().iter().flat_map(|ring| ring.endpoints());
        if let Some(local) = &file.local_endpoint
            && !endpoints.any(|endpoint| endpoint.address() == local)
        {
            self.invalid("receive.local-endpoint", format!("no ring of --{flag} has the endpoint {local}"));
        }
    }

    fn cluster(&mut self) -> ClusterSettings {
        for name in ["receive.hashrings-file", "receive.hashrings", "receive.local-endpoint"] {
            if !self.text(name).is_empty() {
                self.invalid(name, "does not go with --cluster.peers and --cluster.bootstrap-expect: the nodes agree on the ring");
            }
        }
        let name = self.node_name();
        let replicas = self.copies();
        let replicas = u8::try_from(replicas).ok().and_then(ReplicaCount::new).unwrap_or_else(|| {
            let most = ReplicaCount::MAX.get();
            self.invalid("receive.replication-factor", format!("must be from 1 to {most} in a cluster"));
            ReplicaCount::MAX
        });
        let slots = u32::try_from(self.count("cluster.slots")).ok().and_then(SlotCount::new);
        let slots = slots.unwrap_or_else(|| {
            let (least, most) = (SlotCount::MIN.get(), SlotCount::MAX.get());
            self.invalid("cluster.slots", format!("must be from {least} to {most}"));
            SlotCount::DEFAULT
        });
        let weight = u32::try_from(self.count("node.weight")).ok().and_then(Weight::new);
        let weight = weight.unwrap_or_else(|| {
            self.invalid("node.weight", "must be more than 0");
            Weight::DEFAULT
        });
        let given = self.given("cluster.peers").iter().flat_map(|peers| peers.split(','));
        let peers: Vec<String> = given.map(str::to_owned).collect();
        for error in peers.iter().filter_map(|peer| peer.parse::<Peer>().err()) {
            self.invalid("cluster.peers", error.to_string());
        }
        let address = self.address("cluster.address");
        let policies = self.policies(&address, &peers, replicas);
        let bootstrap_expect = u32::try_from(self.size("cluster.bootstrap-expect")).unwrap_or(u32::MAX);
        if (1..u32::from(replicas.get())).contains(&bootstrap_expect) && !policies.rf_allow_degraded {
            self.notice(format!(
                "a cluster founded by --cluster.bootstrap-expect={bootstrap_expect} takes no writes until it has as many nodes as copies, --receive.replication-factor={}; with --cluster.rf-allow-degraded it does, with fewer copies",
                replicas.get()
            ));
        }
        ClusterSettings {
            address,
            data_path: self.data_path(),
            policies,
            peers,
            bootstrap_expect,
            id: self.cluster_id(),
            zone: self.text("node.zone").to_owned(),
            is_router: self.text("node.role") == "router",
            advertise: self.advertised(&name),
            weight,
            pool: PoolName::from(self.text("node.pool")),
            slots,
            replicas,
            cluster_name: self.cluster_name(),
            force_new: self.switch("cluster.force-new"),
            max_voters: self.max_voters(),
            join_token: self.join_token(),
            timers: self.cluster_timers(),
            raft: self.raft_timers(),
            name,
        }
    }

    /// What this node is called in its cluster, and as an external label.
    pub(super) fn node_name(&mut self) -> String {
        match self.text("node.name") {
            "" => rustix::system::uname().nodename().to_string_lossy().into_owned(),
            name => name.to_owned(),
        }
    }

    fn data_path(&mut self) -> PathBuf {
        let path = self.path("data.path");
        let absolute = |path: &std::path::Path| std::path::absolute(path).unwrap_or_default();
        if absolute(&path).starts_with(absolute(std::path::Path::new(self.text("tsdb.path")))) {
            self.invalid("data.path", "must not be --tsdb.path or in it: each directory there is a tenant");
        }
        path
    }

    /// It is part of the name of an object in the bucket.
    fn cluster_name(&mut self) -> String {
        let name = self.text("cluster.name");
        let is_fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.chars().all(is_fine) {
            let form = "1 to 64 letters, digits, '-', '_' and '.', not beginning with '.'";
            self.invalid("cluster.name", format!("{name:?} is not a name of a cluster: {form}"));
        }
        name.to_owned()
    }

    fn max_voters(&mut self) -> Option<u32> {
        let voters = self.count_unless_zero("raft.max-voters")?;
        if !matches!(voters, 1 | 3 | 5) {
            self.invalid("raft.max-voters", "must be 1, 3 or 5, or 0 for as many as suit");
        }
        u32::try_from(voters).ok().filter(|voters| voters % 2 == 1)
    }

    fn cluster_id(&mut self) -> Option<ClusterId> {
        let text = self.text("cluster.id");
        if text.is_empty() {
            return None;
        }
        let id = (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok()).flatten();
        if id.is_none() {
            self.invalid("cluster.id", format!("{text:?} is not the id of a cluster: 32 hexadecimal digits"));
        }
        id.map(|id| ClusterId(id.to_be_bytes()))
    }

    /// The host at which others reach this node: the one of its gRPC listener, if that is one.
    fn advertised(&mut self, name: &str) -> String {
        match self.text("node.advertise") {
            "" => {
                let host = self.address("grpc-address").host;
                let is_any = host.parse().is_ok_and(|address: IpAddr| address.is_unspecified());
                if host.is_empty() || is_any { name.to_owned() } else { host }
            }
            host => {
                let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
                if bare.contains(':') && bare.parse::<IpAddr>().is_err() {
                    self.invalid("node.advertise", format!("{host:?} is not a host without a port"));
                }
                bare.to_owned()
            }
        }
    }

    fn join_token(&mut self) -> Option<TokenText> {
        let path = self.text("cluster.join-token-file");
        if path.is_empty() {
            return None;
        }
        match std::fs::read_to_string(path) {
            Ok(token) => {
                let token = TokenText::parse(token.trim());
                if let Err(error) = &token {
                    self.invalid("cluster.join-token-file", format!("{path}: {error}"));
                }
                token.ok()
            }
            Err(error) => {
                self.invalid("cluster.join-token-file", format!("cannot read {path}: {error}"));
                None
            }
        }
    }

    fn policies(&mut self, own: &ListenAddress, peers: &[String], replicas: ReplicaCount) -> ClusterPolicies {
        let is_local = |address: &ListenAddress| {
            let host = address.host.as_str();
            host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
        };
        let is_local_peer = |peer: &String| ListenAddress::parse(peer).is_ok_and(|peer| is_local(&peer));
        ClusterPolicies {
            join: match self.text("cluster.join") {
                "open" => JoinPolicy::Open,
                "token" => JoinPolicy::Token,
                // Only this machine can reach this node, and the others, if there are any.
                _ if is_local(own) && peers.iter().all(is_local_peer) => JoinPolicy::Open,
                _ => JoinPolicy::Token,
            },
            replace: match self.text("cluster.replace-same-name") {
                "manual" => ReplacePolicy::Manual,
                _ => ReplacePolicy::Auto,
            },
            expected_replicas: Some(replicas),
            rf_allow_degraded: self.switch("cluster.rf-allow-degraded"),
        }
    }

    fn cluster_timers(&mut self) -> ClusterTimers {
        ClusterTimers {
            bootstrap_round: self.interval("cluster.bootstrap-round"),
            connect: self.interval("cluster.connect-timeout"),
            call: self.interval("cluster.call-timeout"),
            propose: self.interval("cluster.propose-timeout"),
            heartbeat: self.interval("cluster.heartbeat-interval"),
            retry: self.interval("cluster.retry-interval"),
            watch_idle: self.interval("cluster.watch-timeout"),
            join_read_grace: self.duration("ring.join-read-grace"),
            replace_grace: self.duration("ring.replace-grace"),
            drain_read_grace: self.duration("ring.drain-read-grace"),
            leave_grace: self.duration("ring.leave-grace"),
            voter_stabilization: self.duration("raft.voter-stabilization"),
            voter_dead: self.duration("raft.voter-dead"),
            step_interval: self.duration("ring.step-interval"),
            max_moves_per_step: self.count_unless_zero("ring.max-moves-per-step").map(|moves| moves as usize),
            ..ClusterTimers::default()
        }
    }

    fn raft_timers(&mut self) -> RaftConfig {
        let raft = RaftConfig {
            heartbeat: self.interval("raft.heartbeat-interval"),
            election_timeout_min: self.interval("raft.election-timeout-min"),
            election_timeout_max: self.interval("raft.election-timeout-max"),
            ..RaftConfig::default()
        };
        if raft.election_timeout_min >= raft.election_timeout_max {
            self.invalid("raft.election-timeout-min", "must be less than --raft.election-timeout-max");
        }
        if raft.heartbeat * 2 > raft.election_timeout_min {
            self.invalid("raft.heartbeat-interval", "must be at most half of --raft.election-timeout-min");
        }
        raft
    }
}
