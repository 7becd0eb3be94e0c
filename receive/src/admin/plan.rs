//! `weir ring plan`

use std::collections::BTreeSet;

use weir_hashring::{
    ids::{NodeNumber, Weight},
    planner::{Goal, Member},
    ring::{Node, NodeState, RingState},
};

use super::{
    args::PlanArgs,
    client::Client,
    error::AdminError,
    forecast::{Forecast, Wish},
    names::find_node,
};

/// `weir ring plan`
pub async fn plan(client: &Client, args: &PlanArgs) -> Result<Forecast, AdminError> {
    let ring = client.known_ring().await?;
    let mut forecast = wish(&ring.state, args)?.forecast(&ring.state, args.pace)?;
    forecast.notes.extend(ring.doubt);
    Ok(forecast)
}

fn wish(state: &RingState, args: &PlanArgs) -> Result<Wish, AdminError> {
    let goal = if args.regroup { Goal::Regroup } else { Goal::Settle };
    let mut wish = Wish::as_it_is(state, &args.pool, goal)?;
    let of_pool: Vec<&Node> = state.nodes().filter(|node| node.pool == wish.pool).collect();
    for name in &args.remove {
        let node = find_node(of_pool.iter().copied(), name)?;
        let count = wish.members.len();
        wish.members.retain(|member| member.number != node.number);
        if wish.members.len() == count {
            return Err(AdminError::NotPossible(format!("{name} gets no slots anyway")));
        }
    }
    let mut names: BTreeSet<&str> =
        state.nodes().filter(|node| node.state != NodeState::Lost).map(|node| node.name.as_str()).collect();
    // The number that the next node gets, unless those that came last are gone.
    let mut number = state.nodes().map(|node| node.number.0).max().unwrap_or_default();
    for new in &args.add {
        if !names.insert(&new.name) {
            return Err(AdminError::NotPossible(format!("there is a node {:?} already", new.name)));
        }
        number = number.saturating_add(1);
        wish.members.push(Member {
            number: NodeNumber(number),
            zone: new.zone.clone(),
            weight: Weight::new(new.weight).unwrap_or(Weight::DEFAULT),
        });
        wish.new_names.insert(NodeNumber(number), new.name.clone());
    }
    Ok(wish)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::{
            args::Pace,
            samples::{ring, set_state},
        },
        *,
    };

    fn args(add: &[&str], remove: &[&str]) -> PlanArgs {
        PlanArgs {
            pool: "default".to_owned(),
            add: add.iter().map(|new| new.parse().expect("it is a node")).collect(),
            remove: remove.iter().map(|&name| name.to_owned()).collect(),
            regroup: false,
            pace: Pace { step_interval: Duration::from_secs(30), max_moves_per_step: Some(100) },
        }
    }

    #[test]
    fn who_comes_and_goes() {
        let state = ring(6);
        let wish = wish(&state, &args(&["x:a", "y:b:3"], &["n2", "00000000000000000000000000000004"]));
        let wish = wish.expect("all of them are known");
        let members: Vec<(u32, &str, u32)> = wish
            .members
            .iter()
            .map(|member| (member.number.0, member.zone.as_str(), member.weight.get()))
            .collect();
        let expected = [(1, "b", 1), (3, "a", 1), (5, "c", 1), (6, "a", 1), (7, "a", 1), (8, "b", 3)];
        assert_eq!(members, expected);
        assert_eq!(wish.new_names[&NodeNumber(8)], "y");
    }

    #[test]
    fn who_cannot_come_or_go() {
        let mut state = ring(6);
        set_state(&mut state, 5, NodeState::Active, NodeState::Draining);
        let check = |add: &[&str], remove: &[&str], expected: &str| {
            let error = wish(&state, &args(add, remove)).expect_err("it is wrong").to_string();
            assert!(error.starts_with(expected), "{error}");
        };
        check(&["n1:a"], &[], "there is a node \"n1\" already");
        check(&["x:a", "x:b"], &[], "there is a node \"x\" already");
        check(&[], &["n9"], "there is no node \"n9\"; there are: n1, n2, n3, n4, n5, n6");
        check(&[], &["n5"], "n5 gets no slots anyway");
        check(&[], &["n1", "n1"], "n1 gets no slots anyway");
    }
}
