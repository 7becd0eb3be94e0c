//! Known series cost no allocation. Counts every allocation of the process, hence alone in its
//! binary.

mod common;

use std::alloc::System;

use common::{Message, Node, START_MS, request};
use http::StatusCode;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Allocations of a whole request of `series` series with two samples each, all known, at steady
/// distances.
async fn allocations(node: &Node, series: usize, t: i64) -> usize {
    let message = (0..series).fold(Message::default(), |message, number| {
        let value = format!("{number:0100}");
        message.series(&[(b"__name__", b"m"), (b"s", value.as_bytes())], &[(t, 1.0), (t + 500, 1.0)])
    });
    let request = request(message.compress());
    let region = Region::new(ALLOCATOR);
    let reply = node.call(request).await;
    let change = region.change();
    assert_eq!((reply.status, reply.text.as_str()), (StatusCode::OK, ""));
    change.allocations + change.reallocations
}

#[tokio::test]
async fn known_series_cost_no_allocation() {
    let node = Node::start().await;
    let mut t = START_MS;
    let mut next = || {
        t += 1000;
        t
    };
    for _ in 0..4 {
        allocations(&node, 10_000, next()).await;
    }
    // The least of several: now and then an open chunk has to grow, and chunks that had the same
    // samples grow in the same request.
    let (mut few, mut many) = (usize::MAX, usize::MAX);
    for _ in 0..6 {
        few = few.min(allocations(&node, 100, next()).await);
    }
    for _ in 0..6 {
        many = many.min(allocations(&node, 10_000, next()).await);
    }
    println!("allocations of a request: {few} with 100 series, {many} with 10,000");
    // The regular comparisons of known series with the database take a few, one series in 1,024.
    assert!(many.abs_diff(few) < 100, "{few} with 100 series, {many} with 10,000");
}
