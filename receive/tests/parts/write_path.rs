//! Requests of remote write 1.0 through the router into real databases.

use std::{collections::BTreeMap, time::Duration};

use crate::common::{Message, Node, Reply, START_MS, request, request_with, series_fields, wait_for};
use axum::body::Body;
use bytes::Bytes;
use http::{Request, StatusCode};
use proptest::prelude::*;
use tokio::sync::mpsc;
use weir::write::{LabelLimits, WriteConfig};

const TENANT: &str = "default-tenant";

fn one(t: i64, value: f64) -> Message {
    Message::default().sample("x", t, value)
}

#[tokio::test]
async fn paths_and_methods() {
    let node = Node::start().await;
    let cases = [
        ("POST", "/api/v1/receive", 200),
        ("POST", "/api/v1/push", 200),
        ("POST", "/api/v1/write", 204),
        ("GET", "/api/v1/receive", 405),
        ("PUT", "/api/v1/push", 405),
        ("POST", "/api/v1/other", 404),
        ("POST", "/", 404),
    ];
    for (index, (method, path, status)) in cases.into_iter().enumerate() {
        let body = one(START_MS + index as i64, 1.0).compress();
        let request = Request::builder().method(method).uri(path).body(Body::from(body)).unwrap();
        let reply = node.call(request).await;
        assert_eq!(reply.status.as_u16(), status, "{method} {path}: {}", reply.text);
        let id = match status {
            404 => "path-unknown",
            405 => "method-not-allowed",
            _ => "",
        };
        assert_eq!(reply.error_id(), id);
    }
    assert_eq!(node.stored(TENANT), 3);
    node.state.drain().await;
    for (method, path, _) in cases {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let reply = node.call(request).await;
        assert_eq!((reply.status.as_u16(), reply.error_id()), (503, "not-ready"), "{method} {path}");
        assert_eq!(reply.header("retry-after"), "1");
    }
}

#[tokio::test]
async fn a_node_whose_clock_is_off_takes_nothing() {
    let node = Node::start().await;
    let body = one(START_MS, 1.0).compress();
    node.state.set_clock_is_off(true);
    let reply = node.call(request_with(body.clone(), &[])).await;
    assert_eq!((reply.status.as_u16(), reply.error_id()), (503, "clock-off"));
    assert_eq!(reply.header("retry-after"), "1");
    node.state.set_clock_is_off(false);
    assert_eq!(node.call(request_with(body, &[])).await.status.as_u16(), 200);
    assert_eq!(node.stored(TENANT), 1);
}

#[tokio::test]
async fn tenants_come_to_be_by_what_they_store() {
    let node = Node::start().await;
    let stored = one(START_MS, 1.0).compress();
    let write = async |tenant: &str, body: &[u8]| {
        node.call(request_with(body.to_vec(), &[("x-scope-orgid", tenant)])).await
    };
    let check = |reply: Reply, status: u16, id: &str| {
        assert_eq!((reply.status.as_u16(), reply.error_id()), (status, id), "{}", reply.text);
    };
    check(write("empty", &Message::default().compress()).await, 200, "");
    check(write("metadata", &Message::default().metadata().compress()).await, 200, "");
    check(write("none", &Message::default().series(&[(b"a", b"1")], &[]).compress()).await, 200, "");
    check(write("garbage", b"\x03abc").await, 400, "snappy-invalid");
    check(write("nobody", b"").await, 400, "snappy-invalid");
    let cut = snap::raw::Encoder::new().compress_vec(&[0x0a, 0x05, 0x01]).unwrap();
    check(write("cut", &cut).await, 400, "protobuf-invalid");
    check(write("future", &one(i64::MAX, 1.0).compress()).await, 400, "sample-too-far-in-future");
    for bad in [".", "..", "a/b", "lost+found", "a\\b"] {
        check(write(bad, &stored).await, 400, "tenant-invalid");
    }
    assert_eq!(node.directories(), [""; 0]);
    check(write("good", &stored).await, 200, "");
    assert_eq!(node.directories(), ["good"]);
    // All that holds for a tenant that is there, too.
    check(write("good", &Message::default().metadata().compress()).await, 200, "");
    check(write("good", &cut).await, 400, "protobuf-invalid");
    check(write("good", b"\x03abc").await, 400, "snappy-invalid");
    assert_eq!(node.stored("good"), 1);
}

#[tokio::test]
async fn heads_are_judged() {
    let node = Node::start().await;
    let body = one(START_MS, 1.0).compress();
    let cases = [
        (("content-encoding", "zstd"), 415, "encoding-unsupported"),
        (("content-type", "application/json"), 415, "content-type-unsupported"),
        (
            ("content-type", "application/x-protobuf;proto=io.prometheus.write.v2.Request"),
            415,
            "remote-write-2-unsupported",
        ),
        (("thanos-replica", "x"), 400, "replica-invalid"),
        (("thanos-tenant", ".."), 400, "tenant-invalid"),
        (("thanos-replica", "2"), 200, ""),
        (("content-type", "Application/X-Protobuf; proto=prometheus.WriteRequest"), 200, ""),
    ];
    for (header, status, id) in cases {
        let reply = node.call(request_with(body.clone(), &[header])).await;
        assert_eq!((reply.status.as_u16(), reply.error_id()), (status, id), "{header:?}: {}", reply.text);
    }
    let reply = node.call(request_with(body, &[("thanos-replica", "x")])).await;
    assert!(reply.text.starts_with("could not parse replica header"), "{}", reply.text);
}

#[tokio::test]
async fn the_good_are_stored_and_the_bad_are_told() {
    let node = Node::start().await;
    node.store(&one(START_MS + 10, 1.0)).await;
    // An exact repeat is silent.
    node.store(&one(START_MS + 10, 1.0)).await;

    let message = Message::default().sample("x", START_MS + 5, 1.0).sample("x", START_MS + 10, 2.0).sample(
        "y",
        START_MS + 5,
        3.0,
    );
    let reply = node.write(&message).await;
    assert_eq!((reply.status.as_u16(), reply.error_id()), (409, "sample-out-of-order"));
    assert!(reply.text.starts_with("conflict: 2 of 3 samples refused"), "{}", reply.text);
    let first = format!("{{__name__=\"m\", s=\"x\"}} at {}: out of order sample", START_MS + 5);
    assert!(reply.text.contains(&first), "{}", reply.text);
    assert_eq!(node.stored(TENANT), 2);

    // With a fault that is no conflict it is 400, and the good are stored all the same.
    let histogram =
        [series_fields(&[(b"h", b"1")], &[(START_MS, 1.0)]), vec![0x22, 0x02, 0x08, 0x01]].concat();
    let message = Message::default()
        .sample("y", START_MS + 4, 3.0)
        .series(&[(b"a", b"1"), (b"a", b"2")], &[(START_MS, 1.0)])
        .raw_series(&histogram);
    let reply = node.write(&message).await;
    assert_eq!((reply.status.as_u16(), reply.error_id()), (400, "label-name-duplicate"));
    assert!(reply.text.starts_with("3 of 4 samples refused"), "{}", reply.text);
    assert_eq!(node.stored(TENANT), 3);
}

#[tokio::test]
async fn known_series_are_found_and_judged_alike() {
    let node = Node::start().await;
    let series = 3000u64;
    let message = |t: i64| {
        (0..series).fold(Message::default(), |message, number| message.sample(&number.to_string(), t, 1.0))
    };
    let conflicting = (0..series)
        .fold(Message::default(), |message, number| message.sample(&number.to_string(), START_MS, 2.0));
    // Beyond 1,024 hits some are compared in full.
    for round in 0..3 {
        node.store(&message(START_MS + round * 15_000)).await;
    }
    let tenant = node.tenants.get(TENANT).unwrap();
    let stats = tenant.db.stats();
    assert_eq!((stats.head_series, stats.samples_appended), (series, 3 * series));
    assert_eq!(tenant.series.len(), series as usize);
    // What is repeated is stored already.
    node.store(&message(START_MS)).await;
    assert_eq!(tenant.db.stats().samples_appended, 3 * series);
    let reply = node.write(&conflicting).await;
    assert!(reply.text.starts_with("conflict: 3000 of 3000 samples refused"), "{}", reply.text);
    // The same labels in another order are another key and the same series.
    let swapped =
        Message::default().series(&[(b"s", b"7"), (b"__name__", b"m")], &[(START_MS + 60_000, 1.0)]);
    node.store(&swapped).await;
    assert_eq!(tenant.db.stats().head_series, series);
    assert_eq!(tenant.series.len(), series as usize + 1);
    // A change of what labels are judged by forgets all.
    node.state.forget_series();
    node.store(&message(START_MS + 90_000)).await;
    assert_eq!(tenant.db.stats().head_series, series);
    assert_eq!(tenant.series.len(), series as usize);
}

#[tokio::test]
async fn outdated_handles_are_sent_again_by_labels() {
    const HOUR_MS: i64 = 3_600_000;
    let node = Node::start().await;
    node.store(&Message::default().sample("old", START_MS, 1.0).sample("steady", START_MS, 1.0)).await;
    // Move the head on until the old series leaves it.
    for hour in 1..=8 {
        node.store(&Message::default().sample("steady", START_MS + hour * HOUR_MS, 1.0)).await;
    }
    let tenant = node.tenants.get(TENANT).unwrap();
    tokio::task::spawn_blocking({
        let tenant = tenant.clone();
        move || tenant.db.compact_head().unwrap()
    })
    .await
    .unwrap();
    assert_eq!(tenant.db.stats().head_series, 1, "only one series is left in the head");
    assert_eq!(tenant.series.len(), 2, "the table does not know yet");

    let stored = node.stored(TENANT);
    let t = START_MS + 9 * HOUR_MS;
    let message = Message::default()
        .sample("steady", t, 1.0)
        .series(
            &[(b"__name__", b"m"), (b"s", b"old")],
            &[(t, 1.0), (t + 1, 2.0), (t - 1, 1.0), (i64::MAX, 1.0)],
        )
        .sample("steady", t - 1, 1.0);
    let reply = node.write(&message).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    assert!(reply.text.starts_with("3 of 6 samples refused"), "{}", reply.text);
    assert!(
        reply.text.contains("2 samples: out of order sample; 1 samples: too far in the future"),
        "{}",
        reply.text
    );
    assert_eq!(node.stored(TENANT), stored + 3);
    assert_eq!(tenant.db.stats().head_series, 2);
    // Its new handle was learnt.
    node.store(&Message::default().sample("old", t + 2, 1.0)).await;
    assert_eq!(tenant.series.len(), 2);
}

#[tokio::test]
async fn sizes_hold_exactly() {
    let message = one(START_MS, 1.0);
    let (decoded, body) = (message.encode(), message.compress());
    let check = async |body_bytes_max, decoded_bytes_max, status: u16| {
        let node =
            Node::with(WriteConfig { body_bytes_max, decoded_bytes_max, ..WriteConfig::default() }).await;
        let reply = node.call(request(body.clone())).await;
        assert_eq!(reply.status.as_u16(), status, "{}", reply.text);
        if status == 400 {
            assert_eq!(reply.error_id(), "request-too-large");
            assert!(reply.text.starts_with("write request too large"), "{}", reply.text);
        }
        assert_eq!(node.state.bytes_in_flight(), 0);
    };
    check(body.len(), decoded.len(), 200).await;
    check(body.len() - 1, decoded.len(), 400).await;
    check(body.len(), decoded.len() - 1, 400).await;

    let node = Node::start().await;
    let reply = node.call(request(vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0x00])).await;
    assert_eq!((reply.status.as_u16(), reply.error_id()), (400, "request-too-large"));
    assert!(reply.text.contains("4294967295"), "{}", reply.text);

    let labels = LabelLimits { value_bytes_max: 1, ..LabelLimits::default() };
    let node =
        Node::with(WriteConfig { labels, series_max: 2, samples_max: 2, ..WriteConfig::default() }).await;
    let two = Message::default().sample("a", START_MS, 1.0).sample("b", START_MS, 1.0);
    node.store(&two).await;
    let reply = node.write(&two.sample("c", START_MS, 1.0)).await;
    assert_eq!((reply.status.as_u16(), reply.error_id()), (400, "request-series-limit"));
    assert!(reply.text.starts_with("too many timeseries"), "{}", reply.text);
    let samples = [(START_MS + 1, 1.0), (START_MS + 2, 1.0), (START_MS + 3, 1.0)];
    let reply = node.write(&Message::default().series(&[(b"s", b"a")], &samples)).await;
    assert_eq!((reply.status.as_u16(), reply.error_id()), (400, "request-samples-limit"));
    assert!(reply.text.starts_with("too many samples"), "{}", reply.text);
    let reply = node.write(&Message::default().sample("long", START_MS, 1.0)).await;
    assert_eq!((reply.status.as_u16(), reply.error_id()), (400, "label-value-length-limit"));
    assert_eq!(node.stored(TENANT), 2, "of a request over its limits nothing is stored");
}

/// A body that arrives as it is sent into the channel.
fn slow_body() -> (mpsc::Sender<Bytes>, Body) {
    let (sender, receiver) = mpsc::channel::<Bytes>(4);
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let stream = tokio_stream::StreamExt::map(stream, Ok::<_, std::io::Error>);
    (sender, Body::from_stream(stream))
}

#[tokio::test]
async fn bytes_in_flight_are_bounded() {
    let body = one(START_MS, 1.0).compress();
    let decoded = one(START_MS, 1.0).encode().len();
    let limit = body.len() + decoded;
    let config = WriteConfig {
        body_bytes_max: body.len(),
        decoded_bytes_max: decoded,
        bytes_in_flight_max: 0,
        retry_after: Duration::from_secs(7),
        ..WriteConfig::default()
    };
    let node = Node::with(config).await;
    let (sender, slow) = slow_body();
    let slow_request = Request::post("/api/v1/receive").body(slow).unwrap();
    let first = tokio::spawn(crate::common::send(node.router.clone(), slow_request));
    sender.send(Bytes::copy_from_slice(&body[..5])).await.unwrap();
    wait_for("the first request holds bytes", || node.state.bytes_in_flight() == 5).await;

    // Nothing but the whole room will do for the second one.
    let reply = node.call(request(body.clone())).await;
    assert_eq!((reply.status.as_u16(), reply.error_id()), (503, "overloaded"));
    assert_eq!(reply.header("retry-after"), "7");
    assert_eq!(node.state.bytes_in_flight(), 5);
    assert!(reply.text.contains(&limit.to_string()), "{}", reply.text);

    sender.send(Bytes::copy_from_slice(&body[5..])).await.unwrap();
    drop(sender);
    assert_eq!(first.await.unwrap().status, StatusCode::OK);
    wait_for("all is given back", || node.state.bytes_in_flight() == 0).await;
    assert_eq!(node.call(request(body)).await.status, StatusCode::OK);
}

#[tokio::test]
async fn bodies_are_read_to_their_end_or_not_stored() {
    let node =
        Node::with(WriteConfig { body_timeout: Duration::from_millis(20), ..WriteConfig::default() }).await;
    // One that stalls.
    let (sender, body) = slow_body();
    sender.send(Bytes::from_static(b"abc")).await.unwrap();
    let reply = node.call(Request::post("/api/v1/receive").body(body).unwrap()).await;
    assert_eq!((reply.status.as_u16(), reply.error_id()), (503, "deadline"));
    // One that breaks off.
    let broken = tokio_stream::iter([Ok(Bytes::from_static(b"abc")), Err(std::io::Error::other("reset"))]);
    let reply = node.call(Request::post("/api/v1/receive").body(Body::from_stream(broken)).unwrap()).await;
    assert_eq!((reply.status.as_u16(), reply.error_id()), (400, "body-incomplete"));
    // One without a length that grows beyond the limit.
    let node = Node::with(WriteConfig { body_bytes_max: 5, ..WriteConfig::default() }).await;
    let long = tokio_stream::iter(["abc", "def"].map(Ok::<_, std::io::Error>));
    let reply = node.call(Request::post("/api/v1/receive").body(Body::from_stream(long)).unwrap()).await;
    assert_eq!((reply.status.as_u16(), reply.error_id()), (400, "request-too-large"));
    assert_eq!(node.state.bytes_in_flight(), 0);
}

/// Whenever a client goes away, its request is stored whole or not at all, and gives back what it
/// held.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_connection_stops_nothing_half_way() {
    let node = Node::start().await;
    let series = 500u64;
    node.store(&Message::default().sample("first", START_MS, 1.0)).await;
    let mut before = node.stored(TENANT);
    for round in 1..40i64 {
        let t = START_MS + round;
        let message =
            (0..series).fold(Message::default(), |message, n| message.sample(&n.to_string(), t, 1.0));
        let call = tokio::spawn(crate::common::send(node.router.clone(), request(message.compress())));
        for _ in 0..round % 8 {
            tokio::task::yield_now().await;
        }
        call.abort();
        drop(call.await);
        wait_for("the request has ended", || node.state.bytes_in_flight() == 0).await;
        let after = node.stored(TENANT);
        assert!(after == before || after == before + series, "{before} then {after}");
        before = after;
    }
    node.stop().await;
}

/// What was acknowledged is read back bit by bit: stale markers, other NaNs, zeros with a sign.
#[tokio::test]
async fn acknowledged_samples_read_back_unaltered() {
    let node = Node::start().await;
    let bits = [
        0,
        1 << 63,
        f64::NAN.to_bits(),
        0x7ff0_0000_0000_0002,
        0xfff8_0000_dead_beef,
        f64::INFINITY.to_bits(),
        1.5f64.to_bits(),
        1,
        u64::MAX,
    ];
    let mut expected: BTreeMap<String, Vec<(i64, u64)>> = BTreeMap::new();
    // Enough samples for several chunks, at odd distances; each request is of known series but for
    // the first.
    for step in 0..300i64 {
        let t = START_MS + step * 15_000 + step * step % 13;
        let mut message = Message::default();
        for series in 0..20usize {
            let value = f64::from_bits(bits[(step as usize * 7 + series) % bits.len()]);
            let name = format!("s{series:02}");
            message = message.sample(&name, t, value);
            expected.entry(name).or_default().push((t, value.to_bits()));
        }
        node.store(&message).await;
    }
    let tenant = node.tenants.get(TENANT).unwrap();
    let stored = tokio::task::spawn_blocking(move || crate::read_back::all(&tenant.db)).await.unwrap();
    let expected: BTreeMap<_, _> = expected
        .into_iter()
        .map(|(series, samples)| (format!("{{__name__=\"m\", s=\"{series}\"}}"), samples))
        .collect();
    assert_eq!(stored, expected);
}

/// A naive head: the samples of each series, by its labels.
#[derive(Default)]
struct Model {
    samples: BTreeMap<String, BTreeMap<i64, u64>>,
    stored: u64,
}

impl Model {
    /// Whether a sample is stored, a repeat, or a conflict.
    fn take(&mut self, series: &str, t: i64, bits: u64) -> Result<(), &'static str> {
        let samples = self.samples.entry(series.to_owned()).or_default();
        match samples.get(&t) {
            Some(stored) if *stored == bits => return Ok(()),
            Some(_) => return Err("duplicate sample for timestamp"),
            None => {}
        }
        if samples.last_key_value().is_some_and(|(newest, _)| t < *newest) {
            return Err("out of order sample");
        }
        samples.insert(t, bits);
        self.stored += 1;
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Requests in a row, of series new and known, are judged as a naive head would.
    #[test]
    fn verdicts_equal_a_naive_head(
        requests in prop::collection::vec(
            prop::collection::vec(
                (0..12u8, any::<bool>(), prop::collection::vec((0..20i64, 0..3u8), 1..4)),
                0..12,
            ),
            1..8,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let node = Node::start().await;
            let mut model = Model::default();
            for series in requests {
                let mut message = Message::default();
                let mut refused = BTreeMap::new();
                let mut received = 0;
                for (number, swapped, samples) in series {
                    let value = number.to_string();
                    let mut labels: Vec<(&[u8], &[u8])> = vec![(b"__name__", b"m"), (b"s", value.as_bytes())];
                    if swapped {
                        labels.reverse();
                    }
                    let samples: Vec<(i64, f64)> =
                        samples.into_iter().map(|(t, value)| (START_MS + t, f64::from(value))).collect();
                    for (t, float) in &samples {
                        received += 1;
                        if let Err(reason) = model.take(&value, *t, float.to_bits()) {
                            *refused.entry(reason).or_insert(0) += 1;
                        }
                    }
                    message = message.series(&labels, &samples);
                }
                let reply = node.write(&message).await;
                let total: i32 = refused.values().sum();
                if total == 0 {
                    assert_eq!((reply.status, reply.text.as_str()), (StatusCode::OK, ""));
                } else {
                    assert_eq!(reply.status, StatusCode::CONFLICT);
                    let start = format!("conflict: {total} of {received} samples refused");
                    assert!(reply.text.starts_with(&start), "{}", reply.text);
                    for (reason, count) in refused {
                        let part = format!("{count} samples: {reason}");
                        assert!(reply.text.contains(&part), "{part} in {}", reply.text);
                    }
                }
                assert_eq!(node.stored(TENANT), model.stored);
            }
            if let Some(tenant) = node.tenants.get(TENANT) {
                assert_eq!(tenant.db.stats().head_series, model.samples.len() as u64);
            }
        });
    }
}
