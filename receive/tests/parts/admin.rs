//! The commands of administrators against nodes in this process, over loopback.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use weir::{
    admin::{self, AdminError, console::Console},
    cli::{self, Invocation},
};
use weir_hashring::{
    cluster::ClusterConfig,
    ids::{Digest, PoolName, ReplicaCount, RingEpoch, SlotCount, TokenId},
    ring::{Command, NodeState, RingState},
    series_hash,
    view::RingView,
};

use crate::cluster::{Place, TestNode, check_table, config, found, soon, start_founders, state_of, table};

/// Somebody who answers all questions the same, if any.
#[derive(Default)]
struct Recorder {
    answer: Option<bool>,
    printed: String,
    told: String,
    asked: usize,
}

impl Console for Recorder {
    fn print(&mut self, text: &str) {
        self.printed.push_str(text);
    }

    fn tell(&mut self, text: &str) {
        self.told.push_str(text);
        self.told.push('\n');
    }

    fn ask(&mut self, _question: &str) -> Option<bool> {
        self.asked += 1;
        self.answer
    }
}

async fn run_at(address: &str, arguments: &str, console: &mut Recorder) -> Result<(), AdminError> {
    let arguments = format!("weir {arguments} --address={address}");
    let invocation = cli::parse(arguments.split(' ')).unwrap_or_else(|error| panic!("{arguments}: {error}"));
    let Invocation::Admin(args) = invocation else { panic!("{arguments}") };
    soon(&arguments, admin::run(args, console)).await
}

/// What is printed.
async fn text(node: &TestNode, arguments: &str) -> String {
    let mut console = Recorder::default();
    let result = run_at(&node.config.addresses.cluster, arguments, &mut console).await;
    result.unwrap_or_else(|error| panic!("{arguments}: {error}"));
    console.printed
}

/// What is printed for programs.
async fn json(node: &TestNode, arguments: &str) -> Value {
    let printed = text(node, &format!("{arguments} --json")).await;
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{arguments}: {error} in {printed}"))
}

async fn fails(node: &TestNode, arguments: &str) -> AdminError {
    let result = run_at(&node.config.addresses.cluster, arguments, &mut Recorder::default()).await;
    result.expect_err(arguments)
}

/// Asks until the answer is as wanted.
async fn until(node: &TestNode, arguments: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
    soon(arguments, async {
        loop {
            let answer = json(node, arguments).await;
            if is_wanted(&answer) {
                return answer;
            }
        }
    })
    .await
}

fn field<'a>(list: &'a Value, name: &str, field: &str) -> &'a Value {
    let item = list.as_array().unwrap().iter().find(|item| item["name"] == name);
    &item.unwrap_or_else(|| panic!("{name} is not in {list}"))[field]
}

async fn join(dir: &std::path::Path, number: u32, zone: &str, peer: &TestNode) -> TestNode {
    let (place, name) = (Place::bind().await, format!("node-{number}"));
    let mut config = config(dir.join(&name), &name, zone, &place.name());
    config.peers = vec![peer.config.addresses.cluster.clone()];
    TestNode::start(config, place).await
}

async fn stop_all(nodes: &mut [TestNode]) {
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_shows_the_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = found(dir.path(), 3, |_| ()).await;
    // One that does not vote shows it too.
    nodes.push(join(dir.path(), 3, "zone-3", &nodes[0]).await);
    let balanced = |state: &RingState| {
        let slots = table(state).slots_of_nodes();
        slots.len() == 4 && slots.values().all(|slots| *slots == 3072)
    };
    let ring = nodes[3].ring("the slots are balanced", balanced).await;
    let (epoch, digest) = (ring.state.epoch(), ring.state.digest());
    for node in &nodes {
        node.publishes((epoch, digest)).await;
        let status = until(node, "ring status", |status| status["warnings"] == serde_json::json!([])).await;
        assert_eq!(status["cluster"], node.node().cluster().unwrap().to_string());
        assert_eq!((&status["epoch"], &status["digest"]), (&epoch.0.into(), &digest.to_string().into()));
        assert_eq!((&status["generation"], &status["quorum"]), (&0.into(), &2.into()));
        let mut voters: Vec<&str> =
            status["voters"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        voters.sort_unstable();
        assert_eq!(voters, ["node-0", "node-1", "node-2"]);
        assert!(voters.contains(&status["leader"].as_str().unwrap()), "{status}");
        assert!(status["quorum_acked_ms_ago"].is_u64(), "{status}");

        let list = json(node, "node list").await;
        for (at, own) in nodes.iter().enumerate() {
            let of = |name| field(&list["nodes"], &own.config.name, name);
            assert_eq!(of("uid"), &own.node().uid().to_string());
            assert_eq!((of("state"), of("zone")), (&"active".into(), &format!("zone-{at}").into()));
            assert_eq!((of("slots"), of("share")), (&3072.into(), &0.25.into()));
            assert_eq!((of("ready"), of("head_series")), (&true.into(), &1.into()));
            assert_eq!(of("address"), &own.config.addresses.cluster);
        }

        let raft = json(node, "ring raft status").await;
        assert_eq!((&raft["leader"], &raft["quorum"]), (&status["leader"], &2.into()));
        let roles: Vec<&str> =
            raft["voters"].as_array().unwrap().iter().map(|voter| voter["role"].as_str().unwrap()).collect();
        assert_eq!(roles.iter().filter(|role| **role == "leader").count(), 1, "{raft}");
        assert_eq!(roles.iter().filter(|role| **role == "follower").count(), 2, "{raft}");
        assert_eq!(json(node, "ring raft voters").await["voters"].as_array().unwrap().len(), 3);
    }
    where_agrees_with_the_view(&nodes[3]).await;
    for arguments in ["ring status", "node list", "ring raft status", "ring raft voters"] {
        let shown = text(&nodes[3], arguments).await;
        for name in ["node-0", "node-1", "node-2"] {
            assert!(shown.contains(name), "{arguments}: {shown}");
        }
    }
    stop_all(&mut nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_any_node_tells_the_last_ring() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = four(dir.path()).await;
    let ring = nodes[0].ring_name();
    for node in &nodes {
        node.publishes(ring).await;
        for (arguments, field) in [("ring where up", "warnings"), ("ring plan", "notes")] {
            until(node, arguments, |answer| answer[field] == serde_json::json!([])).await;
        }
    }
    for number in [0, 1] {
        nodes[number].stop().await;
    }
    // A voter, and a node that only watches, even when it is alone and was just started.
    last_ring_is_told(&nodes[2], ring).await;
    last_ring_is_told(&nodes[3], ring).await;
    nodes[2].stop().await;
    nodes[3].stop().await;
    nodes[3].start_again().await;
    last_ring_is_told(&nodes[3], ring).await;
    nodes[3].stop().await;
}

async fn last_ring_is_told(node: &TestNode, (epoch, digest): (RingEpoch, Digest)) {
    let is_doubted = |list: &Value| {
        let told = list.as_array().unwrap().iter().filter_map(Value::as_str);
        let known = format!("the last that {} knows", node.config.addresses.cluster);
        told.filter(|text| text.contains(&known) && text.contains("has no contact to a leader")).count() == 1
    };
    let place = until(node, "ring where up", |found| is_doubted(&found["warnings"])).await;
    assert_eq!((&place["epoch"], &place["digest"]), (&epoch.0.into(), &digest.to_string().into()));
    assert_eq!(place["owners"].as_array().unwrap().len(), 3);
    where_agrees_with_the_view(node).await;
    assert!(text(node, "ring where up").await.contains("\nwarning: this is by the ring of epoch "));
    let plan = until(node, "ring plan --remove=node-0", |plan| is_doubted(&plan["notes"])).await;
    assert_eq!((&plan["epoch"], &plan["placements_moved_min"]), (&epoch.0.into(), &3072.into()));
    assert_eq!(field(&plan["nodes"], "node-0", "slots_after"), 0);
    let status = json(node, "ring status").await;
    assert_eq!((&status["epoch"], &status["digest"]), (&epoch.0.into(), &digest.to_string().into()));
    let warnings = status["warnings"].as_array().unwrap().iter().filter_map(Value::as_str);
    let lost: Vec<&str> = warnings.filter(|warning| warning.contains("nothing can be changed")).collect();
    assert!(matches!(lost[..], [warning] if warning.contains(&node.config.name)), "{status}");
}

async fn where_agrees_with_the_view(node: &TestNode) {
    let view: Arc<RingView> = node.view();
    for n in 0..20 {
        let n = n.to_string();
        let hash = series_hash(view.hash_seed().0, "team", [("__name__", "up"), ("n", n.as_str())]);
        let placement = view.tenant("team").unwrap();
        let found = json(node, &format!("ring where --tenant=team up{{n=\"{n}\"}}")).await;
        assert_eq!(found["slot"], placement.slot(hash).0);
        assert_eq!(found["hash"], format!("{hash:016x}"));
        assert_eq!((&found["epoch"], &found["tenant_slots"]), (&view.epoch().0.into(), &2.into()));
        let owners = placement.owners(hash).iter().map(|&index| view.node(index).unwrap());
        let expected: Vec<Value> = owners
            .map(|node| {
                serde_json::json!({
                    "name": node.name, "uid": node.uid.to_string(), "zone": node.zone, "state": "active",
                    "address": node.addresses.grpc,
                })
            })
            .collect();
        assert_eq!(found["owners"], Value::Array(expected));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_is_what_comes_and_a_drain_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = found(dir.path(), 3, |_| ()).await;
    let before = nodes[0].node().ring_state();
    let plan = json(&nodes[1], "ring plan --add=node-3:zone-3 --max-moves-per-step=512").await;
    assert_eq!((&plan["placements"], &plan["placements_moved_min"]), (&12_288.into(), &3072.into()));
    assert_eq!(field(&plan["nodes"], "node-3", "slots_after"), 3072);
    assert_eq!(field(&plan["nodes"], "node-3", "uid"), &Value::Null);
    assert_eq!(nodes[0].node().ring_state(), before, "a plan changes nothing");

    nodes.push(join(dir.path(), 3, "zone-3", &nodes[0]).await);
    let balanced = |state: &RingState| {
        let slots = table(state).slots_of_nodes();
        slots.len() == 4 && slots.values().all(|slots| *slots == 3072)
    };
    let after = nodes[3].ring("the slots are balanced", balanced).await.state.clone();
    let cells = table(&before).cells().iter().zip(table(&after).cells());
    let moved = cells.filter(|(before, after)| before != after).count();
    assert_eq!(plan["placements_moved"], moved);
    let waves = after.deltas().filter(|delta| delta.epoch > before.epoch()).count();
    assert_eq!(plan["waves"], waves);
    let forecast = plan["nodes"].as_array().unwrap().iter();
    let forecast: BTreeMap<String, u64> = forecast
        .map(|node| (node["name"].as_str().unwrap().to_owned(), node["slots_after"].as_u64().unwrap()))
        .collect();
    let came = check_table(&after).into_iter().map(|(name, slots)| (name, u64::from(slots)));
    assert_eq!(forecast, came.collect());
    let nothing = json(&nodes[1], "ring plan").await;
    assert_eq!((&nothing["placements_moved"], &nothing["waves"]), (&0.into(), &0.into()));

    // Nobody drains by looking, by saying no, or by not being there to say yes.
    for node in &nodes {
        node.publishes((after.epoch(), after.digest())).await;
    }
    let plan = json(&nodes[3], "node drain node-1 --dry-run").await;
    assert_eq!(field(&plan["forecast"]["nodes"], "node-1", "slots_after"), 0);
    assert_eq!(plan["forecast"]["placements_moved_min"], 3072);
    assert!(matches!(fails(&nodes[3], "node drain node-1").await, AdminError::NobodyToAsk));
    let mut no = Recorder { answer: Some(false), ..Recorder::default() };
    let declined = run_at(&nodes[3].config.addresses.cluster, "node drain node-1 --wait", &mut no).await;
    assert!(matches!(declined, Err(AdminError::Declined)), "{declined:?}");
    assert!(no.told.contains("node-1") && no.told.contains("3072 of 12288 placements move"), "{}", no.told);
    let unknown = fails(&nodes[3], "node drain node-9").await;
    assert_eq!(unknown.exit_code(), AdminError::Declined.exit_code());
    assert_eq!(nodes[0].ring_name(), (after.epoch(), after.digest()));
    assert_eq!(state_of(&nodes[0].node().ring_state(), "node-1"), Some(NodeState::Active));

    drained(&nodes).await;
    stop_all(&mut nodes).await;
}

/// Drains node-1 of four by way of its own address, and takes the part of the node that has uploaded.
async fn drained(nodes: &[TestNode]) {
    let mut yes = Recorder { answer: Some(true), ..Recorder::default() };
    let own = &nodes[1].config.addresses.cluster;
    let uid = nodes[1].node().uid();
    let uploads = async {
        let number = nodes[0].node().ring_state().node(uid).unwrap().number;
        let is_empty = |state: &RingState| {
            state_of(state, "node-1") == Some(NodeState::Draining) && !state.holds_slots(number)
        };
        nodes[0].ring("the slots are moved away", is_empty).await;
        let uploaded = Command::SetNodeState {
            uid,
            from: NodeState::Draining,
            to: NodeState::Drained,
            reason: "test".to_owned(),
        };
        soon("it is drained", nodes[0].node().propose(uploaded)).await.unwrap();
    };
    let (result, ()) = tokio::join!(run_at(own, "node drain node-1 --wait --json", &mut yes), uploads);
    result.unwrap();
    assert_eq!(yes.asked, 1);
    let report: Value = serde_json::from_str(&yes.printed).unwrap();
    assert_eq!((&report["state"], &report["safe_to_delete"]), (&"drained".into(), &true.into()));
    assert!(yes.told.ends_with("node-1 is drained: safe to delete\n"), "{}", yes.told);
    let undrain = fails(&nodes[0], "node undrain node-1 --yes").await.to_string();
    assert_eq!(undrain, "node-1 is Drained: only a draining node goes back");
    // Three nodes are needed.
    let too_few = fails(&nodes[0], "node drain node-2 --dry-run").await.to_string();
    assert!(too_few.ends_with("its slots would stay: 2 nodes may own slots, 3 are needed"), "{too_few}");
    let done = json(&nodes[0], "node forget node-1 --yes").await;
    assert_eq!(done["changed"], true);
    let is_gone = |state: &RingState| state.tombstone(uid).map(|tombstone| tombstone.state);
    nodes[0].ring("it has left", |state| is_gone(state) == Some(NodeState::Left)).await;
}

fn warns(status: &Value, text: &str) -> bool {
    status["warnings"].as_array().unwrap().iter().any(|warning| *warning == text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_needs_a_person_is_told_of_too_few_nodes() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = start_founders(dir.path(), 2, |config| {
        config.policies.expected_replicas = ReplicaCount::new(3);
        config.timers.replace_grace = Duration::from_secs(1);
    })
    .await;
    let are_active =
        |state: &RingState| state.nodes().filter(|node| node.state == NodeState::Active).count() == 2;
    for node in &nodes {
        node.ring("both are active", are_active).await;
    }
    let refused =
        "pool default: 2 nodes may own slots, 3 are needed: there is no table, and writes are refused";
    until(&nodes[1], "ring status", |status| warns(status, refused)).await;
    let shown = text(&nodes[0], "ring status").await;
    assert!(shown.contains(&format!("\nwarning: {refused}")), "{shown}");

    // What a node says of its own part.
    nodes[1].stop().await;
    nodes[1].config.policies.expected_replicas = ReplicaCount::new(2);
    nodes[1].start_again().await;
    let differs = |status: &Value| {
        let warnings = status["warnings"].as_array().unwrap().iter();
        warnings
            .filter_map(Value::as_str)
            .any(|warning| warning.starts_with("node-1: ") && warning.contains("the node expects 2 copies"))
    };
    for node in &nodes {
        until(node, "ring status", differs).await;
    }

    // What the leader waits for: two founders that vote go on with a third.
    nodes.push(join(dir.path(), 2, "zone-2", &nodes[0]).await);
    nodes[0].ring("there is a table", |state| !table(state).is_empty()).await;
    until(&nodes[0], "ring status", |status| !warns(status, refused)).await;
    until(&nodes[0], "ring raft voters", |report| report["voters"].as_array().unwrap().len() == 3).await;
    nodes[2].stop().await;
    let silent = |text: Option<&str>| text.is_some_and(|text| text.contains("nothing was heard of it for"));
    let status = until(&nodes[0], "ring status", |status| {
        let warnings = status["warnings"].as_array().unwrap().iter().filter_map(Value::as_str);
        warnings.into_iter().any(|warning| warning.starts_with("node-2: ") && silent(Some(warning)))
    })
    .await;
    assert!(silent(field(&status["nodes"], "node-2", "waiting").as_str()), "{status}");
    stop_all(&mut nodes).await;
}

/// Three founders and one that came later, with as many slots each.
async fn four(dir: &std::path::Path) -> Vec<TestNode> {
    let mut nodes = found(dir, 3, |_| ()).await;
    nodes.push(join(dir, 3, "zone-3", &nodes[0]).await);
    let balanced =
        |state: &RingState| table(state).slots_of_nodes().into_values().collect::<Vec<_>>() == [3072; 4];
    nodes[0].ring("the slots are balanced", balanced).await;
    nodes
}

/// Gives a stopped node up as soon as the leader lets it be, which is when it is silent.
async fn forget(node: &TestNode, name: &str) -> Result<Value, AdminError> {
    let arguments = format!("node forget {name} --yes --json");
    soon(&arguments, async {
        loop {
            let mut console = Recorder::default();
            match run_at(&node.config.addresses.cluster, &arguments, &mut console).await {
                Ok(()) => return Ok(serde_json::from_str(&console.printed).unwrap()),
                Err(error) if error.to_string().contains(" was heard of ") => {}
                Err(error) if error.to_string().contains(" may live, ") => {}
                Err(error) => return Err(error),
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_slots_of_a_node_that_is_given_up_go_to_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = four(dir.path()).await;
    until(&nodes[0], "node list", |list| field(&list["nodes"], "node-3", "ready") == true).await;
    let alive = fails(&nodes[1], "node forget node-3 --yes").await.to_string();
    assert!(alive.starts_with("node-3 was heard of ") && alive.contains("weir node drain"), "{alive}");
    let before = nodes[0].node().ring_state();
    assert_eq!(state_of(&before, "node-3"), Some(NodeState::Active));
    let uid = nodes[3].node().uid();
    nodes[3].stop().await;
    assert_eq!(forget(&nodes[1], "node-3").await.unwrap()["changed"], true);
    let after = nodes[0].ring("its slots are moved", |state| state.node(uid).is_none()).await;
    assert_eq!(check_table(&after.state).into_values().collect::<Vec<_>>(), [4096; 3]);
    assert_eq!(after.state.tombstone(uid).map(|tombstone| tombstone.state), Some(NodeState::Lost));
    until(&nodes[0], "ring status", |status| status["warnings"] == serde_json::json!([])).await;

    // Nobody uploads here: what only the next one has would be lost, as the leader knows, unless it is forced.
    let uid = nodes[2].node().uid();
    nodes[2].stop().await;
    let refused = forget(&nodes[1], "node-2").await.unwrap_err().to_string();
    let why = "node node-2 shared slots with node-3, which is gone and whose data is not uploaded yet";
    assert!(refused.contains(why), "{refused}");
    assert_eq!(state_of(&nodes[0].node().ring_state(), "node-2"), Some(NodeState::Active));
    let forced = json(&nodes[1], "node forget node-2 --yes --force").await;
    assert_eq!(forced["changed"], true);
    let is_given_up = |state: &RingState| state.node(uid).is_some_and(|node| node.forgotten);
    let kept = nodes[1].ring("it is given up", is_given_up).await;
    assert_eq!(check_table(&kept.state).get("node-2"), Some(&4096), "nobody else can have its slots");
    let is_known = |list: &Value| field(&list["nodes"], "node-2", "state") == "lost";
    until(&nodes[1], "node list", is_known).await;
    assert_eq!(json(&nodes[1], "node forget node-2 --yes").await["changed"], false);
    let stays = "pool default: 2 nodes may own slots, 3 are needed: no slot can be moved";
    until(&nodes[1], "ring status", |status| warns(status, stays)).await;
    nodes.push(join(dir.path(), 4, "zone-4", &nodes[0]).await);
    let after = nodes[0].ring("its slots are moved", |state| state.node(uid).is_none()).await;
    assert_eq!(check_table(&after.state).into_values().collect::<Vec<_>>(), [4096; 3]);
    stop_all(&mut nodes).await;
}

/// Marks a node as lost that may still be replaced, as other programs may do.
async fn lose(by: &TestNode, name: &str) -> RingState {
    let state = by.node().ring_state();
    let uid = state.nodes().find(|node| node.name == name).unwrap().uid;
    let (from, to) = (NodeState::Active, NodeState::Lost);
    let command = Command::SetNodeState { uid, from, to, reason: "test".to_owned() };
    soon("it is lost", by.node().propose_forced(command)).await.unwrap();
    by.ring("it is lost", |state| state_of(state, name) == Some(to)).await.state.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_nodes_are_replaced_or_their_slots_moved() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = four(dir.path()).await;
    nodes[3].stop().await;
    let lost = lose(&nodes[0], "node-3").await;
    let told = "pool default: node node-3 is lost and holds 3072 slots: nothing is moved until it is replaced or given up";
    until(&nodes[0], "ring status", |status| warns(status, told)).await;

    // The leader moves nothing, so the next node has no slots, and takes over all at once.
    nodes.push(join(dir.path(), 4, "zone-3", &nodes[0]).await);
    let is_there = |state: &RingState| state_of(state, "node-4") == Some(NodeState::Active);
    nodes[0].ring("there is another node", is_there).await;
    let far = fails(&nodes[1], "node replace node-3 node-0 --yes").await.to_string();
    assert!(far.starts_with("node-0 has 3072 slots"), "{far}");
    let done = json(&nodes[1], "node replace node-3 node-4 --yes").await;
    assert_eq!((&done["changed"], &done["epoch"]), (&true.into(), &(lost.epoch().0 + 1).into()));
    let epoch = RingEpoch(lost.epoch().0 + 1);
    let replaced = nodes[1].ring("it is replaced", |state| state.epoch() >= epoch).await.state.clone();
    let slots = check_table(&replaced);
    assert_eq!((slots.get("node-3"), slots.get("node-4")), (None, Some(&3072)));
    let cells = table(&lost).cells().iter().zip(table(&replaced).cells());
    assert_eq!(cells.filter(|(before, after)| before != after).count(), 3072, "nothing else moves");

    // Or the others take the slots.
    nodes[4].stop().await;
    lose(&nodes[0], "node-4").await;
    let rebalance = "ring rebalance --yes --step-interval=0 --max-moves-per-step=512";
    let dry = json(&nodes[2], &format!("{rebalance} --dry-run")).await;
    assert_eq!(dry["placements_moved"], 3072);
    let done = json(&nodes[2], rebalance).await;
    assert_eq!((&done["placements_moved"], &done["waves"]), (&3072.into(), &6.into()));
    let epoch = RingEpoch(done["epoch"].as_u64().unwrap());
    let state = nodes[2].ring("it is rebalanced", |state| state.epoch() >= epoch).await.state.clone();
    assert_eq!(check_table(&state).into_values().collect::<Vec<_>>(), [4096; 3]);
    assert_eq!(state_of(&state, "node-4"), None);
    let again = json(&nodes[2], rebalance).await;
    assert_eq!((&again["placements_moved"], &again["epoch"]), (&0.into(), &epoch.0.into()));
    stop_all(&mut nodes).await;
}

fn small(config: &mut ClusterConfig) {
    config.replicas = ReplicaCount::new(1).unwrap();
    config.slots = SlotCount::MIN;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_and_weights_are_changed() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = found(dir.path(), 1, small).await;
    let node = &nodes[0];
    let token = json(node, "node token create --ttl=1h --uses=2").await;
    let (id, secret) = token["token"].as_str().unwrap().split_once('.').unwrap();
    assert_eq!(token["id"], id);
    let state =
        node.ring("the token is known", |state| state.tokens().contains_key(&TokenId::from(id))).await;
    let known = &state.state.tokens()[&TokenId::from(id)];
    assert_eq!(known.sha256.as_slice(), Sha256::digest(secret).as_slice());
    assert_eq!((known.uses, known.used, known.expires.0), (2, 0, token["expires_unix_ms"].as_i64().unwrap()));
    let list = json(node, "node token list").await;
    let expected = serde_json::json!({"tokens": [{
        "id": id, "state": "valid", "uses": 2, "used": 0, "expires_unix_ms": token["expires_unix_ms"],
    }]});
    assert_eq!(list, expected);
    assert!(!text(node, "node token list").await.contains(secret));
    let mut told = Recorder::default();
    let revoke = format!("node token revoke {id}.{secret}");
    let unasked = run_at(&node.config.addresses.cluster, &revoke, &mut told).await;
    assert!(matches!(unasked, Err(AdminError::NobodyToAsk)) && !told.told.contains(secret), "{}", told.told);
    assert_eq!(json(node, &format!("{revoke} --yes")).await["changed"], true);
    assert_eq!(json(node, "node token list").await, serde_json::json!({"tokens": []}));
    let unknown = fails(node, &format!("{revoke} --yes")).await.to_string();
    assert_eq!(unknown, format!("there is no token \"{id}\"; there are: none"));

    assert_eq!(json(node, "node weight node-0 7 --yes").await["changed"], true);
    node.ring("it has a weight", |state| state.nodes().all(|node| node.weight.get() == 7)).await;
    assert_eq!(json(node, "node weight node-0 7").await["changed"], false);
    let pool = fails(node, "ring plan --pool=x").await.to_string();
    assert_eq!(pool, format!("there is no pool \"x\"; there are: {}", PoolName::DEFAULT));
    stop_all(&mut nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = found(dir.path(), 1, small).await;
    for arguments in [
        "node drain nobody",
        "node undrain nobody",
        "node forget nobody",
        "node weight nobody 2",
        "node replace nobody node-0",
        "node replace node-0 nobody",
        "ring plan --remove=nobody",
    ] {
        let error = fails(&nodes[0], arguments).await.to_string();
        assert_eq!(error, "there is no node \"nobody\"; there are: node-0", "{arguments}");
    }
    // Nobody listens where a listener was.
    let gone = Place::bind().await.name();
    let everything =
        ["ring status", "ring where up", "node list", "ring plan", "node token create", "node token list"];
    for arguments in everything {
        let error = run_at(&gone, arguments, &mut Recorder::default()).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("no connection to {gone}: ")), "{error}");
        for bad in ["nowhere", "http://a:1", "a:1/x", "a:99999"] {
            let error = run_at(bad, arguments, &mut Recorder::default()).await.unwrap_err();
            assert_eq!(error.exit_code(), AdminError::NobodyToAsk.exit_code());
            assert!(error.to_string().contains(&format!("{bad:?} is no address")), "{error}");
        }
    }
    let place = Place::bind().await;
    let mut alone = config(dir.path().join("alone"), "alone", "", &place.name());
    alone.peers = vec![gone];
    nodes.push(TestNode::start(alone, place).await);
    let at = &nodes[1].config.addresses.cluster;
    for arguments in everything {
        let error = fails(&nodes[1], arguments).await.to_string();
        assert_eq!(error, format!("the node at {at} is not in a cluster yet"), "{arguments}");
    }
    stop_all(&mut nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn voters_are_chosen_by_hand_and_a_cluster_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = found(dir.path(), 3, |_| ()).await;
    let snapshot = json(&nodes[1], "ring raft snapshot").await;
    assert_eq!(snapshot["changed"], true);
    let refused = fails(&nodes[1], "ring raft demote node-2 --yes").await.to_string();
    assert!(refused.contains("the leader chooses the voters"), "{refused}");
    json(&nodes[1], "ring raft autopilot off --yes").await;
    json(&nodes[1], "ring raft demote node-2 --yes").await;
    let voters = |voters: &Value| voters["voters"].as_array().unwrap().len();
    until(&nodes[0], "ring raft voters", |report| voters(report) == 2).await;
    json(&nodes[0], "ring raft promote node-2 --yes").await;
    until(&nodes[0], "ring raft voters", |report| voters(report) == 3).await;

    // Two voters are gone for good.
    let ring = (nodes[2].node().ring_state().epoch(), nodes[2].node().ring_state().digest());
    let data_path = nodes[2].config.data_path.display().to_string();
    let command = format!("ring raft force-new --data-path={data_path} --yes");
    let runs = fails(&nodes[2], &command).await.to_string();
    assert!(runs.contains(&data_path), "{runs}");
    stop_all(&mut nodes).await;
    let forced = json(&nodes[2], &command).await;
    assert_eq!((&forced["generation"], &forced["epoch"]), (&1.into(), &ring.0.0.into()));
    nodes[2].start_again().await;
    until(&nodes[2], "ring raft voters", |report| voters(report) == 1 && report["leader"] == "node-2").await;
    let state = nodes[2].node().ring_state();
    assert_eq!((state.epoch(), state.digest()), ring, "the ring is the one of before");
    nodes[2].stop().await;
}
