//! Every flag of `weir receive`: name, kind, default, what it does, and whether it is built.
//!
//! Names and defaults follow `thanos receive` (0.43), where an unknown flag stops the start; so
//! each of its flags must be known here even while nothing stands behind it. What is known but not
//! built is accepted with its default and refused with any other value: a node that silently
//! ignored its ring file or its TLS key would be worse than one that does not start.

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A listen address, `host:port` or `:port`.
    Address,
    /// A duration as in [`crate::duration::parse_duration`].
    Duration,
    /// A size as in [`crate::duration::parse_bytes`].
    Bytes,
    /// A whole number that is not negative.
    Count,
    /// A decimal number.
    Number,
    /// On or off: `--x`, `--no-x`, `--x=true`, `--x=false`.
    Switch,
    /// One of a few words.
    Choice(&'static [&'static str]),
}

/// What stands behind a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It does what its help says.
    Built,
    /// Known, but any value other than the default stops the start.
    NotBuilt,
    /// Accepted with any value and without effect, for the reason given. Logged once if set.
    NoEffect(&'static str),
}

/// One flag.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Name without the dashes.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Value if it is not given; empty for none.
    pub default: &'static str,
    /// Whether it may be given several times.
    pub repeat: bool,
    /// Whether it is left out of the help.
    pub hidden: bool,
    /// What stands behind it.
    pub standing: Standing,
    /// One sentence for the help.
    pub help: &'static str,
}

/// Flags under one heading of the help.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// The heading.
    pub heading: &'static str,
    /// Its flags.
    pub flags: &'static [Flag],
}

const fn flag(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Flag {
    Flag { name, kind, default, repeat: false, hidden: false, standing: Standing::Built, help }
}

impl Flag {
    const fn repeat(mut self) -> Self {
        self.repeat = true;
        self
    }

    const fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }

    const fn not_built(mut self) -> Self {
        self.standing = Standing::NotBuilt;
        self
    }

    const fn no_effect(mut self, why: &'static str) -> Self {
        self.standing = Standing::NoEffect(why);
        self
    }
}

use Kind::{Address, Bytes, Choice, Count, Duration, Number, Switch, Text};

const ONE_STREAM: &str = "copies travel over one stream per peer, in a protocol of our own";
const GO_RUNTIME: &str = "it tunes the Go runtime; see --write.max-bytes-in-flight";
const LONG_GONE: &str = "it was removed upstream";
const NO_CACHE: &str = "there is no such cache";
const TLS_VERSIONS: Kind = Choice(&["1.0", "1.1", "1.2", "1.3"]);

const SERVERS: &[Flag] = &[
    flag("http-address", Address, "0.0.0.0:10902", "Where to serve metrics and probes."),
    flag(
        "http-grace-period",
        Duration,
        "2m",
        "How long HTTP requests may go on after a stop was asked for; see --stop.drain-max.",
    ),
    flag("http.config", Text, "", "Web configuration file with TLS and basic authentication.").not_built(),
    flag("grpc-address", Address, "0.0.0.0:10901", "Where to serve the StoreAPI."),
    flag(
        "grpc-grace-period",
        Duration,
        "2m",
        "How long gRPC calls may go on after a stop was asked for; see --stop.drain-max.",
    ),
    flag(
        "grpc-server-max-connection-age",
        Duration,
        "60m",
        "Age at which a gRPC connection is asked to reconnect.",
    ),
    flag("remote-write.address", Address, "0.0.0.0:19291", "Where to take remote write."),
];

const TLS: &[Flag] = &[
    flag("grpc-server-tls-cert", Text, "", "Certificate of the gRPC server.").not_built(),
    flag("grpc-server-tls-key", Text, "", "Key of the gRPC server.").not_built(),
    flag("grpc-server-tls-client-ca", Text, "", "CA that signs certificates of gRPC clients.").not_built(),
    flag("grpc-server-tls-min-version", TLS_VERSIONS, "1.3", "Lowest TLS version of the gRPC server.")
        .not_built(),
    flag("grpc-server-tls-ciphers", Text, "", "Ciphers of the gRPC server.").repeat().not_built(),
    flag("grpc-server-tls-curves", Text, "", "Curves of the gRPC server.").repeat().not_built(),
    flag("remote-write.server-tls-cert", Text, "", "Certificate of the write port.").not_built(),
    flag("remote-write.server-tls-key", Text, "", "Key of the write port.").not_built(),
    flag("remote-write.server-tls-client-ca", Text, "", "CA that signs certificates of writers.").not_built(),
    flag("remote-write.server-tls-min-version", TLS_VERSIONS, "1.3", "Lowest TLS version of the write port.")
        .not_built(),
    flag("remote-write.server-tls-ciphers", Text, "", "Ciphers of the write port.").repeat().not_built(),
    flag("remote-write.server-tls-curves", Text, "", "Curves of the write port.").repeat().not_built(),
    flag("remote-write.client-tls-secure", Switch, "false", "Use TLS towards peers.").not_built(),
    flag("remote-write.client-tls-skip-verify", Switch, "false", "Do not verify certificates of peers.")
        .not_built(),
    flag("remote-write.client-tls-cert", Text, "", "Certificate shown to peers.").not_built(),
    flag("remote-write.client-tls-key", Text, "", "Key of the certificate shown to peers.").not_built(),
    flag("remote-write.client-tls-ca", Text, "", "CA that signs certificates of peers.").not_built(),
    flag("remote-write.client-tls-min-version", TLS_VERSIONS, "1.3", "Lowest TLS version towards peers.")
        .not_built(),
    flag("remote-write.client-server-name", Text, "", "Name expected in certificates of peers.").not_built(),
];

const ROUTING: &[Flag] = &[
    flag(
        "receive.hashrings-file",
        Text,
        "",
        "Ring file (JSON), watched for changes; one that cannot be used changes nothing.",
    ),
    flag("receive.hashrings", Text, "", "Content of a ring file; --receive.hashrings-file goes first."),
    flag(
        "receive.hashrings-algorithm",
        Choice(&["hashmod", "ketama"]),
        "hashmod",
        "Placement of rings that name none.",
    ),
    flag(
        "receive.hashrings-file-refresh-interval",
        Duration,
        "5m",
        "How often the ring file is looked at, at least every 10 seconds.",
    ),
    flag(
        "receive.local-endpoint",
        Text,
        "",
        "This node's gRPC address as the ring names it; a node with a ring and without it only routes.",
    ),
    flag("receive.replication-factor", Count, "1", "Copies of each series; 3 in a cluster unless given."),
    flag(
        "receive.replica-header",
        Text,
        "THANOS-REPLICA",
        "Header with the number of a copy; must be a number if present.",
    ),
    flag("receive.forward.async-workers", Count, "5", "Parallel forwards per peer.").no_effect(ONE_STREAM),
    flag("receive.grpc-compression", Choice(&["snappy", "none"]), "snappy", "Compression towards peers.")
        .no_effect(ONE_STREAM),
    flag("receive.grpc-service-config", Text, "", "gRPC service config towards peers.").no_effect(ONE_STREAM),
    flag(
        "receive.replication-protocol",
        Choice(&["protobuf", "capnproto"]),
        "protobuf",
        "Protocol towards peers.",
    )
    .not_built(),
    flag(
        "receive.capnproto-address",
        Address,
        "0.0.0.0:19391",
        "Where to take Cap'n Proto replication; nothing is opened.",
    )
    .not_built(),
    flag(
        "receive-forward-timeout",
        Duration,
        "5s",
        "How long a request waits for its copies; then it is answered 503.",
    ),
    flag("receive-forward-max-backoff", Duration, "5s", "Longest pause before a peer is connected to again."),
    flag(
        "replication.window-bytes",
        Bytes,
        "32MiB",
        "Bytes sent to a peer and not answered; beyond it, copies for that peer are missed.",
    ),
    flag(
        "replication.failure-timeout",
        Duration,
        "700ms",
        "How long a peer may be silent before its copies count as missed at once.",
    ),
    flag("receive.artificial-max-delay", Duration, "0s", "Test aid: delays writes.").hidden().not_built(),
    flag("receive.relabel-config", Text, "", "Relabel rules for all tenants.").not_built(),
    flag("receive.relabel-config-file", Text, "", "File with relabel rules for all tenants.").not_built(),
];

const CLUSTER: &[Flag] = &[
    flag(
        "cluster.peers",
        Text,
        "",
        "Nodes of the cluster: host:port of their --cluster.address, or dns+host:port, dnssrv+name, dnssrvnoa+name, file+path. This one may be among them. Several flags or separated by commas.",
    )
    .repeat(),
    flag(
        "cluster.bootstrap-expect",
        Count,
        "0",
        "So many nodes without a cluster found one together; 0 = only join one that exists.",
    ),
    flag("cluster.address", Address, "0.0.0.0:10903", "Where to serve Raft, the ring, joining and administration."),
    flag("cluster.name", Text, "weir", "Name of the cluster; with a bucket, a name is used for one cluster only."),
    flag(
        "cluster.force-new",
        Switch,
        "false",
        "Found a cluster though the bucket says that one of this name exists or existed.",
    ),
    flag("cluster.id", Text, "", "The only cluster that this node may be in."),
    flag("cluster.join-token-file", Text, "", "File with the token that this node joins with."),
    flag(
        "cluster.join",
        Choice(&["", "open", "token"]),
        "",
        "Who may join: whoever reaches this node, or whoever has a token. Default: open if --cluster.address and all peers are of this machine only, else token.",
    ),
    flag(
        "cluster.replace-same-name",
        Choice(&["auto", "manual"]),
        "auto",
        "Whether a node with an empty disk takes the place of the dead one of its name by itself.",
    ),
    flag(
        "cluster.rf-allow-degraded",
        Switch,
        "false",
        "Make a ring with fewer owners of a slot while there are fewer nodes than --receive.replication-factor.",
    ),
    flag("cluster.slots", Count, "4096", "Slots of the ring, for ever; only when a cluster is founded."),
    flag("data.path", Text, "", "Directory for who the node is and for the ring; a node of a cluster needs one, not in --tsdb.path."),
    flag("node.name", Text, "", "Name of this node, which no other has. Default: the host name."),
    flag("node.zone", Text, "", "What this node may fail with; owners of a series are in different zones."),
    flag(
        "node.role",
        Choice(&["all", "router"]),
        "all",
        "all = stores and routes, router = only routes.",
    ),
    flag(
        "node.advertise",
        Text,
        "",
        "Host at which others reach this node. Default: that of --grpc-address, or the node's name.",
    ),
    flag("node.weight", Count, "1", "Share of slots, compared with other nodes."),
    flag("node.pool", Text, "default", "The pool this node belongs to."),
    flag("ring.join-read-grace", Duration, "90s", "How long a new node is read from before it is written to."),
    flag("ring.replace-grace", Duration, "60s", "How long a node must be silent before it may be replaced."),
    flag(
        "ring.drain-read-grace",
        Duration,
        "30m",
        "How long a node that is drained is still read from, until readers find its data in the bucket.",
    ),
    flag("ring.leave-grace", Duration, "60s", "How long a drained node must be silent before it has left."),
    flag("ring.step-interval", Duration, "30s", "Pause between two waves of moved slots."),
    flag("ring.max-moves-per-step", Count, "0", "Owners that change in a wave; 0 = one of sixteen slots."),
    flag("cluster.heartbeat-interval", Duration, "5s", "How often a node tells the leader how it is doing."),
    flag("cluster.bootstrap-round", Duration, "3s", "Pause between two looks at who is there, without a cluster.").hidden(),
    flag("cluster.connect-timeout", Duration, "2s", "How long connecting to a node may take.").hidden(),
    flag("cluster.call-timeout", Duration, "5s", "How long a small answer of a node may take.").hidden(),
    flag("cluster.propose-timeout", Duration, "20s", "How long a change is tried on one leader after another.").hidden(),
    flag("cluster.retry-interval", Duration, "500ms", "Pause before a leader is looked for again.").hidden(),
    flag("cluster.watch-timeout", Duration, "30s", "How long whoever tells of the ring may be silent.").hidden(),
    flag("raft.heartbeat-interval", Duration, "250ms", "How often the leader of Raft is heard of."),
    flag("raft.election-timeout-min", Duration, "1500ms", "Least time without a leader before an election."),
    flag("raft.election-timeout-max", Duration, "3s", "Most time without a leader before an election."),
    flag("raft.max-voters", Count, "0", "Voters at most, 1, 3 or 5; 0 = 5 with as many nodes in three zones, else 3."),
    flag("raft.voter-stabilization", Duration, "30s", "How long a node must be well before it becomes a voter."),
    flag("raft.voter-dead", Duration, "5m", "How long a voter must be silent before another takes its place."),
];

const TENANCY: &[Flag] = &[
    flag(
        "receive.tenant-header",
        Text,
        "THANOS-TENANT",
        "Header that names the tenant; THANOS-TENANT is looked at too.",
    ),
    flag("receive.default-tenant-id", Text, "default-tenant", "Tenant of requests that name none."),
    flag(
        "receive.tenant-label-name",
        Text,
        "tenant_id",
        "Label that carries the tenant in reads and blocks.",
    ),
    flag(
        "receive.tenant-certificate-field",
        Choice(&["", "organization", "organizationalUnit", "commonName"]),
        "",
        "Field of the client certificate that names the tenant.",
    )
    .not_built(),
    flag("receive.split-tenant-label-name", Text, "", "Label whose value is the tenant of a series.")
        .not_built(),
    flag(
        "tenant.max-count",
        Count,
        "10000",
        "Tenants this node takes; a write of one more is refused. 0 = no limit.",
    ),
];

const STORAGE: &[Flag] = &[
    flag("tsdb.path", Text, "./data", "Data directory; each directory in it is a tenant."),
    flag("label", Text, "", "External label as name=\"value\"; at least one, another on each node. A node of a cluster gets receive_replica by itself.").repeat(),
    flag("tsdb.retention", Duration, "15d", "How long data is kept here; 0d = for ever."),
    flag("tsdb.max-retention-bytes", Bytes, "0", "Bytes of blocks, logs and chunks that a tenant may have here before its oldest blocks are deleted; 0 = no limit."),
    flag("tsdb.min-block-duration", Duration, "2h", "Length of a block.").hidden(),
    flag(
        "tsdb.max-block-duration",
        Duration,
        "2h",
        "Length of a block; must equal --tsdb.min-block-duration.",
    )
    .hidden(),
    flag(
        "tsdb.out-of-order.time-window",
        Duration,
        "30m",
        "How much older than a tenant's newest sample a late sample may be; 0s = none is taken.",
    ),
    flag("tsdb.out-of-order.cap-max", Count, "0", "Samples in a chunk of late samples, up to 255; 0 = 32."),
    flag(
        "tsdb.too-far-in-future.time-window",
        Duration,
        "10m",
        "How far ahead of this node's clock a sample may be; 0s = no check.",
    ),
    flag("tsdb.max-exemplars", Count, "0", "Exemplars kept per tenant.").not_built(),
    flag("tsdb.wal-compression", Switch, "true", "Compress log records with snappy."),
    flag(
        "tsdb.wal-sync",
        Choice(&["os", "group", "always"]),
        "os",
        "When a write is acknowledged: os = once the operating system has it.",
    )
    .not_built(),
    flag(
        "tsdb.maintenance-interval",
        Duration,
        "1m",
        "Time between looks whether a block is to be cut or deleted.",
    )
    .hidden(),
    flag("tsdb.no-lockfile", Switch, "false", "Do not take the lock file of a tenant's directory."),
    flag("tsdb.head.expanded-postings-cache-size", Bytes, "0", "Cache of postings of the head.")
        .no_effect(NO_CACHE),
    flag("tsdb.block.expanded-postings-cache-size", Bytes, "0", "Cache of postings of blocks.")
        .no_effect(NO_CACHE),
    flag("tsdb.write-queue-size", Count, "0", "Queue of chunks to write.")
        .hidden()
        .no_effect("chunks are written without a queue"),
    flag("tsdb.memory-snapshot-on-shutdown", Switch, "false", "Snapshot of the head on stop.")
        .hidden()
        .no_effect("the log is replayed"),
    flag("tsdb.allow-overlapping-blocks", Switch, "false", "Overlapping blocks.")
        .hidden()
        .no_effect("they are always allowed"),
    flag("tsdb.enable-native-histograms", Switch, "false", "Native histograms.")
        .hidden()
        .no_effect("upstream ignores it too"),
];

const UPLOAD: &[Flag] = &[
    flag(
        "objstore.config",
        Text,
        "",
        "Bucket configuration (YAML); $(NAME) is taken from the environment. Without one nothing is uploaded.",
    ),
    flag("objstore.config-file", Text, "", "File with the bucket configuration."),
    flag("hash-func", Choice(&["", "SHA256"]), "", "Hash of files noted in the block's meta.json."),
    flag("shipper.upload-concurrency", Count, "0", "Files of a block uploaded at once; 0 = one."),
    flag("shipper.interval", Duration, "30s", "Time between looks for blocks to upload.").hidden(),
    flag("shipper.allow-out-of-order-uploads", Switch, "false", "Do not stop at a block that fails.")
        .hidden()
        .no_effect("a bad block never holds back others"),
    flag("shipper.skip-corrupted-blocks", Switch, "false", "Pass over damaged blocks.")
        .hidden()
        .no_effect("a bad block never holds back others"),
    flag("shipper.ignore-unequal-block-size", Switch, "false", "Removed upstream.")
        .hidden()
        .no_effect(LONG_GONE),
];

const READING: &[Flag] = &[
    flag("receive.limits-config", Text, "", "Limits (YAML).").hidden().not_built(),
    flag("receive.limits-config-file", Text, "", "File with limits.").hidden().not_built(),
    flag("receive.limits-config-reload-timer", Duration, "1s", "How often the limits file is read again.")
        .hidden()
        .no_effect("there is no limits file yet"),
    flag("store.limits.request-series", Count, "0", "Series one read may touch; 0 = no limit."),
    flag("store.limits.request-samples", Count, "0", "Samples one read may touch; 0 = no limit."),
    flag("matcher-cache-size", Count, "0", "Cache of matchers.").no_effect(NO_CACHE),
    flag("receive.lazy-retrieval-max-buffered-responses", Count, "20", "Frames buffered per read.")
        .no_effect("frames are made when the reader takes them"),
    flag("receive.otlp-enable-target-info", Switch, "true", "Make target_info of OTLP resources.")
        .not_built(),
    flag("receive.otlp-promote-resource-attributes", Text, "", "Resource attributes that become labels.")
        .repeat()
        .not_built(),
    flag("enable-feature", Text, "", "Experimental features.").repeat().not_built(),
];

const TELEMETRY: &[Flag] = &[
    flag(
        "log.level",
        Choice(&["debug", "info", "warn", "error"]),
        "info",
        "Least important level that is logged.",
    ),
    flag(
        "log.format",
        Choice(&["logfmt", "json", "journald"]),
        "logfmt",
        "Form of log lines; journald is not built.",
    ),
    flag("request.logging-config", Text, "", "Request logging (YAML).")
        .no_effect("requests are not logged one by one"),
    flag("request.logging-config-file", Text, "", "File with request logging.")
        .no_effect("requests are not logged one by one"),
    flag("tracing.config", Text, "", "Tracing (YAML).").not_built(),
    flag("tracing.config-file", Text, "", "File with tracing.").not_built(),
    flag("enable-auto-gomemlimit", Switch, "false", "Memory limit of the Go runtime.").no_effect(GO_RUNTIME),
    flag("auto-gomemlimit.ratio", Number, "0.9", "Share of memory for the Go runtime.").no_effect(GO_RUNTIME),
    flag("debug.name", Text, "", "Name added to each log line.").hidden(),
    flag("writer.intern", Switch, "false", "Removed upstream.").hidden().no_effect(LONG_GONE),
];

const WEIR: &[Flag] = &[
    flag(
        "write.max-bytes-in-flight",
        Bytes,
        "",
        "Bytes of requests held at once, decoded; more are answered 503. Default: an eighth of the memory limit, at least 64MiB.",
    ),
    flag("write.max-request-bytes", Bytes, "32MiB", "Largest decoded request; a larger one is answered 400."),
    flag("write.max-request-series", Count, "1000000", "Most series of a request; more are answered 400."),
    flag(
        "write.max-request-samples",
        Count,
        "2000000",
        "Most samples of a request, histograms included; more are answered 400.",
    ),
    flag(
        "write.max-label-names-per-series",
        Count,
        "1024",
        "Most labels of a series; a series with more is refused, the rest of its request is stored.",
    ),
    flag(
        "write.max-label-name-length",
        Bytes,
        "4KiB",
        "Most bytes of a label name; a longer one is refused.",
    ),
    flag(
        "write.max-label-value-length",
        Bytes,
        "64KiB",
        "Most bytes of a label value; a longer one is refused.",
    ),
    flag(
        "write.body-timeout",
        Duration,
        "30s",
        "Longest time for reading a request's body; a slower one is answered 503.",
    ),
    flag(
        "write.queue-timeout",
        Duration,
        "5s",
        "Longest time a request waits for its turn; then it is answered 503.",
    ),
    flag(
        "write.concurrency",
        Count,
        "0",
        "Requests decoded and appended at once; 0 = as many as there are cores.",
    ),
    flag(
        "write.retry-after",
        Duration,
        "1s",
        "What a sender that was answered 503 is told to wait, in whole seconds.",
    ),
    flag(
        "write.series-table-size",
        Count,
        "4000000",
        "Series of a tenant whose labels need no second look; more are only slower.",
    ),
    flag(
        "write.max-connections",
        Count,
        "8192",
        "Connections to the write port; more are answered 503 and closed.",
    ),
    flag(
        "write.max-connection-age",
        Duration,
        "10m",
        "Age at which a connection to the write port is asked to reconnect, spread by a tenth; 0s = never.",
    ),
    flag(
        "stop.drain-max",
        Duration,
        "3s",
        "Upper bound of both grace periods: what is in flight then is cut off. Writers send it again.",
    ),
    flag(
        "debug.stop-on-stdin-eof",
        Switch,
        "false",
        "Stop when standard input ends, as when the parent dies.",
    )
    .hidden(),
];

/// All flags, in the order of the help.
pub const GROUPS: &[Group] = &[
    Group { heading: "Servers", flags: SERVERS },
    Group { heading: "Tenancy", flags: TENANCY },
    Group { heading: "Storage", flags: STORAGE },
    Group { heading: "Upload", flags: UPLOAD },
    Group { heading: "Limits and reading", flags: READING },
    Group { heading: "Writing and stopping", flags: WEIR },
    Group { heading: "Logs and traces", flags: TELEMETRY },
    Group { heading: "Routing and replication", flags: ROUTING },
    Group { heading: "Cluster", flags: CLUSTER },
    Group { heading: "TLS", flags: TLS },
];

/// All flags.
pub fn all() -> impl Iterator<Item = &'static Flag> {
    GROUPS.iter().flat_map(|group| group.flags)
}

/// The flag called `name`.
///
/// # Panics
/// If there is none: names are literals of this crate.
pub fn find(name: &str) -> &'static Flag {
    all().find(|flag| flag.name == name).unwrap_or_else(|| panic!("no flag is called {name}"))
}
