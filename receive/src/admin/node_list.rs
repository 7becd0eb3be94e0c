//! `weir node list`, and what is told of a node wherever it is.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;
use weir_hashring::{cluster::NodeStatus, ring::NodeState};

use super::{
    client::Picture,
    show::{ago, share},
    table::Table,
};

/// All nodes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeList {
    /// The nodes, in the order in which they joined.
    pub nodes: Vec<NodeRow>,
    /// What is not known, and why.
    pub warnings: Vec<String>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeRow {
    /// Its name.
    pub name: String,
    /// Its identity, as 32 hexadecimal digits.
    pub uid: String,
    /// What it may fail with; empty if unknown.
    pub zone: String,
    /// Its pool.
    pub pool: String,
    /// Its share in proportion to others.
    pub weight: u32,
    /// `joining`, `active`, `draining`, `drained`, `left` or `lost`.
    pub state: &'static str,
    /// In how many slots it is a replica.
    pub slots: u32,
    /// The part of its pool's placements that it has, 0 to 1.
    pub share: f64,
    /// Whether it takes writes, as it said last.
    pub ready: Option<bool>,
    /// Series in its head, as it said last.
    pub head_series: Option<u64>,
    /// How many it may have; 0 for any number.
    pub head_series_max: Option<u64>,
    /// Milliseconds since the leader last heard of it.
    pub heard_ms_ago: Option<u64>,
    /// What it waits for, in the words of the leader.
    pub waiting: Option<String>,
    /// Version of its program.
    pub version: String,
    /// Its address for the cluster.
    pub address: String,
}

/// A state as it is written for programs.
pub fn state_text(state: NodeState) -> &'static str {
    match state {
        NodeState::Joining => "joining",
        NodeState::Active => "active",
        NodeState::Draining => "draining",
        NodeState::Drained => "drained",
        NodeState::Left => "left",
        NodeState::Lost => "lost",
    }
}

/// The nodes of a picture.
pub fn rows(picture: &Picture) -> Vec<NodeRow> {
    let mut of_pools: BTreeMap<&str, u64> = BTreeMap::new();
    for node in picture.nodes() {
        *of_pools.entry(&node.pool).or_default() += u64::from(node.slots);
    }
    let row = |node: &NodeStatus| {
        let of_pool = of_pools.get(node.pool.as_str()).copied().unwrap_or_default().max(1);
        let report = node.report.as_ref();
        NodeRow {
            name: node.name.clone(),
            uid: node.uid.to_string(),
            zone: node.zone.clone(),
            pool: node.pool.clone(),
            weight: node.weight,
            state: state_text(node.state),
            slots: node.slots,
            share: f64::from(node.slots) / of_pool as f64,
            ready: report.map(|report| report.ready),
            head_series: report.map(|report| report.head_series),
            head_series_max: report.map(|report| report.head_series_max),
            heard_ms_ago: report.map(|report| report.ms_ago),
            waiting: node.waiting.clone(),
            version: node.version.clone(),
            address: node.addresses.cluster.clone(),
        }
    };
    picture.nodes().iter().map(row).collect()
}

/// `weir node list`
pub fn node_list(picture: &Picture) -> NodeList {
    let no_leader =
        |what: &String| format!("how nodes are doing is not known: the leader is not reached ({what})");
    NodeList {
        nodes: rows(picture),
        warnings: picture.leader.as_ref().err().map(no_leader).into_iter().collect(),
    }
}

impl fmt::Display for NodeList {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&[
            "NAME", "UID", "ZONE", "POOL", "STATE", ">SLOTS", ">SHARE", "READY", ">SERIES", ">HEARD",
            "VERSION", "ADDRESS",
        ]);
        for node in &self.nodes {
            let ready = node.ready.map_or("", |ready| if ready { "yes" } else { "no" });
            table.row([
                node.name.clone(),
                node.uid.clone(),
                node.zone.clone(),
                node.pool.clone(),
                node.state.to_owned(),
                node.slots.to_string(),
                share(node.share),
                ready.to_owned(),
                node.head_series.map(|series| series.to_string()).unwrap_or_default(),
                node.heard_ms_ago.map(ago).unwrap_or_default(),
                node.version.clone(),
                node.address.clone(),
            ]);
        }
        write!(out, "{table}")?;
        self.warnings.iter().try_for_each(|warning| write!(out, "\nwarning: {warning}"))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::samples::{leader_of_three, node},
        *,
    };

    #[test]
    fn nodes_are_listed() {
        let mut leader = leader_of_three();
        leader.nodes[1].report = None;
        leader.nodes[2].state = NodeState::Draining;
        leader.nodes[2].slots = 2048;
        leader.nodes.push(node(4, "d"));
        leader.nodes[3].pool = "big".to_owned();
        let list = node_list(&Picture { asked: leader.clone(), leader: Ok(leader) });
        assert_eq!(list.nodes.iter().map(|node| node.share).collect::<Vec<_>>(), [0.4, 0.4, 0.2, 1.0]);
        let text = list.to_string();
        let expected = "\
NAME  UID                               ZONE    POOL     STATE     SLOTS   SHARE  READY  SERIES     HEARD  VERSION  ADDRESS
a     00000000000000000000000000000001  zone-a  default  active     4096   40.0%  yes      1000  1.2s ago  1.0.0    a:10903
b     00000000000000000000000000000002  zone-b  default  active     4096   40.0%  -           -         -  1.0.0    b:10903
c     00000000000000000000000000000003  zone-c  default  draining   2048   20.0%  yes      1000  1.2s ago  1.0.0    c:10903
d     00000000000000000000000000000004  zone-d  big      active     4096  100.0%  yes      1000  1.2s ago  1.0.0    d:10903
";
        assert_eq!(text, expected);
    }

    #[test]
    fn without_a_leader_it_says_so() {
        let picture = Picture { asked: leader_of_three(), leader: Err("b is down".to_owned()) };
        let text = node_list(&picture).to_string();
        assert!(text.contains("\nwarning: how nodes are doing is not known"), "{text}");
        assert!(text.ends_with("(b is down)"), "{text}");
    }

    #[test]
    fn fields_are_frozen() {
        let picture = Picture { asked: leader_of_three(), leader: Ok(leader_of_three()) };
        let json = serde_json::to_value(node_list(&picture)).expect("it is text and numbers");
        let expected = serde_json::json!({
            "name": "a", "uid": "00000000000000000000000000000001", "zone": "zone-a", "pool": "default",
            "weight": 1, "state": "active", "slots": 4096, "share": 1.0 / 3.0, "ready": true,
            "head_series": 1000, "head_series_max": 0, "heard_ms_ago": 1200, "waiting": null,
            "version": "1.0.0", "address": "a:10903",
        });
        assert_eq!(json["nodes"][0], expected);
        assert_eq!(json["warnings"], serde_json::json!([]));
    }
}
