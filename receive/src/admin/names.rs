//! Finds what people name.

use weir_hashring::{
    cluster::NodeStatus,
    ids::{PoolName, Uid},
    ring::{Node, NodeState, Pool, RingState},
};

use super::error::AdminError;

/// A node, as it is shown or as the ring has it.
pub trait Named {
    /// What people may name it by.
    fn names(&self) -> (Uid, &str, NodeState);
}

impl Named for NodeStatus {
    fn names(&self) -> (Uid, &str, NodeState) {
        (self.uid, &self.name, self.state)
    }
}

impl Named for Node {
    fn names(&self) -> (Uid, &str, NodeState) {
        (self.uid, &self.name, self.state)
    }
}

/// The node of that name or uid.
///
/// # Errors
/// If there is none, or there are several of that name.
pub fn find_node<'a, N: Named>(
    nodes: impl IntoIterator<Item = &'a N>,
    name: &str,
) -> Result<&'a N, AdminError> {
    let nodes: Vec<&N> = nodes.into_iter().collect();
    if let Some(node) = nodes.iter().find(|node| node.names().0.to_string().eq_ignore_ascii_case(name)) {
        return Ok(node);
    }
    let named: Vec<&N> = nodes.iter().copied().filter(|node| node.names().1 == name).collect();
    match named[..] {
        [node] => Ok(node),
        [] => Err(AdminError::UnknownNode {
            name: name.to_owned(),
            known: listed(nodes.iter().map(|node| node.names().1.to_owned())),
        }),
        _ => Err(AdminError::AmbiguousNode {
            name: name.to_owned(),
            uids: listed(named.iter().map(|node| {
                let (uid, _, state) = node.names();
                format!("{uid} ({state:?})")
            })),
        }),
    }
}

/// The pool of that name.
///
/// # Errors
/// If there is none.
pub fn find_pool<'a>(state: &'a RingState, name: &str) -> Result<(PoolName, &'a Pool), AdminError> {
    let pools = &state.mapping().pools;
    let found = pools.get(&PoolName::from(name)).map(|pool| (PoolName::from(name), pool));
    found.ok_or_else(|| AdminError::UnknownPool {
        name: name.to_owned(),
        known: listed(pools.keys().map(ToString::to_string)),
    })
}

/// A long list helps nobody.
pub fn listed(names: impl ExactSizeIterator<Item = String>) -> String {
    const SHOWN_MAX: usize = 32;
    let more = names.len().saturating_sub(SHOWN_MAX);
    let mut shown: Vec<String> = names.take(SHOWN_MAX).collect();
    if more > 0 {
        shown.push(format!("and {more} more"));
    }
    if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::{super::samples::node, *};

    #[test]
    fn nodes_are_found_by_name_and_uid() {
        let nodes = [node(1, "a"), node(2, "b"), node(3, "b"), node(0xabc, "c")];
        let check = |name: &str, expected: u128| {
            assert_eq!(find_node(&nodes, name).expect("it is there").uid.0, expected, "{name}");
        };
        check("a", 1);
        check("c", 0xabc);
        check("00000000000000000000000000000003", 3);
        check("00000000000000000000000000000ABC", 0xabc);
        let fails = |name: &str| find_node(&nodes, name).expect_err("it is not there").to_string();
        assert_eq!(fails("d"), "there is no node \"d\"; there are: a, b, b, c");
        assert_eq!(
            fails("b"),
            "several nodes are named \"b\"; take a uid: 00000000000000000000000000000002 (Active), \
             00000000000000000000000000000003 (Active)"
        );
        assert!(fails("0000000000000000000000000000000").starts_with("there is no node"));
        let many: Vec<_> = (0..40).map(|n| node(n, &n.to_string())).collect();
        let error = find_node(&many, "x").expect_err("it is not there").to_string();
        assert!(error.ends_with("30, 31, and 8 more"), "{error}");
    }
}
