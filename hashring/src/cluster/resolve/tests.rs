use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
};

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, Record,
        rdata::{A, AAAA, SRV},
    },
};
use tokio::net::UdpSocket;

use super::*;

#[test]
fn peers_are_understood_or_not() {
    let check = |text: &str, expected: Result<Peer, &str>| {
        let found = text.parse::<Peer>();
        match expected {
            Ok(peer) => assert_eq!(found, Ok(peer), "{text}"),
            Err(what) => {
                let error = found.map(drop).expect_err(text).to_string();
                assert!(error.contains(what) && error.contains(text), "{error}");
            }
        }
    };
    let address = |text: &str| Ok(Peer::Address(text.to_owned()));
    let dns = |host: &str, port| Ok(Peer::Dns { host: host.to_owned(), port });
    let srv = |name: &str, is_resolved| Ok(Peer::Srv { name: name.to_owned(), is_resolved });
    check("a.example:10903", address("a.example:10903"));
    check("10.0.0.1:1", address("10.0.0.1:1"));
    check("[::1]:65535", address("[::1]:65535"));
    check("dns+a_b-c.d:80", dns("a_b-c.d", 80));
    check("dns+[fd00::1]:80", dns("fd00::1", 80));
    check("dnssrv+_peer._tcp.a", srv("_peer._tcp.a", true));
    check("dnssrvnoa+_peer._tcp.a", srv("_peer._tcp.a", false));
    check("file+/etc/peers", Ok(Peer::File(PathBuf::from("/etc/peers"))));
    check("file+a+b", Ok(Peer::File(PathBuf::from("a+b"))));
    check("a.example", Err("the port is missing"));
    check("a.example:", Err("the port is no number"));
    check("a.example:0", Err("the port is no number"));
    check("a.example:65536", Err("the port is no number"));
    check(":80", Err("no name and no address"));
    check("a b:80", Err("no name and no address"));
    check("::1:80", Err("belongs into brackets"));
    check("[::1:80", Err("not closed"));
    check("[10.0.0.1]:80", Err("no address of version 6"));
    check("dns+a.example", Err("the port is missing"));
    check("dnssrv+", Err("the name is missing"));
    check("file+", Err("the name is missing"));
    check("http+a:80", Err("dns, dnssrv, dnssrvnoa or file"));
}

/// A name server on the loopback that knows these records and no others.
struct NameServer {
    address: SocketAddr,
    records: Arc<Mutex<Vec<Record>>>,
    task: tokio::task::JoinHandle<()>,
}

impl NameServer {
    async fn start() -> NameServer {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let records = Arc::new(Mutex::new(Vec::new()));
        let known = Arc::clone(&records);
        let task = tokio::spawn(async move {
            let mut buffer = vec![0; 4096];
            loop {
                let (bytes, from) = socket.recv_from(&mut buffer).await.unwrap();
                let answer = answer(&known.lock(), &Message::from_vec(&buffer[..bytes]).unwrap());
                socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        NameServer { address, records, task }
    }

    fn add(&self, name: &str, data: RData) {
        self.records.lock().push(Record::from_rdata(Name::from_ascii(name).unwrap(), 3600, data));
    }
}

fn answer(known: &[Record], request: &Message) -> Message {
    let query = &request.queries[0];
    let of_name = known.iter().filter(|record| record.name == *query.name());
    let of_type = of_name.clone().filter(|record| record.record_type() == query.query_type());
    let mut response = Message::response(request.metadata.id, request.metadata.op_code);
    response.metadata.recursion_available = true;
    response.add_query(query.clone());
    response.add_answers(of_type.cloned().collect::<Vec<_>>());
    if of_name.count() == 0 {
        response.metadata.response_code = ResponseCode::NXDomain;
    }
    response
}

fn a(last: u8) -> RData {
    RData::A(A(Ipv4Addr::new(10, 0, 0, last)))
}

fn srv(port: u16, target: &str) -> RData {
    RData::SRV(SRV::new(0, 0, port, Name::from_ascii(target).unwrap()))
}

async fn check(resolver: &PeerResolver, peer: &str, expected: &[&str]) {
    let found: BTreeSet<String> = resolver.resolve(peer).await.into_iter().collect();
    assert_eq!(found, expected.iter().map(|address| (*address).to_owned()).collect(), "{peer}");
}

#[tokio::test]
async fn names_are_looked_up_anew_each_time() {
    let server = NameServer::start().await;
    server.add("a.test.", a(1));
    server.add("a.test.", a(2));
    server.add("a.test.", RData::AAAA(AAAA(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 7))));
    server.add("b.test.", a(3));
    server.add("_peer._tcp.test.", srv(1001, "a.test."));
    server.add("_peer._tcp.test.", srv(1002, "b.test."));
    server.add("_peer._tcp.test.", srv(1003, "gone.test."));
    server.add("_gone._tcp.test.", srv(1003, "gone.test."));
    let resolver = PeerResolver::new(Some(vec![server.address]));
    check(&resolver, "c.test:9", &["c.test:9"]).await;
    check(&resolver, "dns+a.test:80", &["10.0.0.1:80", "10.0.0.2:80", "[fd00::7]:80"]).await;
    check(&resolver, "dns+10.9.9.9:80", &["10.9.9.9:80"]).await;
    check(&resolver, "dns+c.test:80", &[]).await;
    let all = ["10.0.0.1:1001", "10.0.0.2:1001", "[fd00::7]:1001", "10.0.0.3:1002"];
    check(&resolver, "dnssrv+_peer._tcp.test", &all).await;
    check(&resolver, "dnssrvnoa+_peer._tcp.test", &["a.test:1001", "b.test:1002", "gone.test:1003"]).await;
    check(&resolver, "dnssrv+_gone._tcp.test", &[]).await;
    check(&resolver, "dnssrv+_none._tcp.test", &[]).await;
    check(&resolver, "nonsense", &[]).await;

    // However long the answer may be kept.
    server.records.lock().retain(|record| record.data != a(1));
    server.add("c.test.", a(4));
    check(&resolver, "dns+a.test:80", &["10.0.0.2:80", "[fd00::7]:80"]).await;
    check(&resolver, "dns+c.test:80", &["10.0.0.4:80"]).await;
    assert_eq!(resolver.shared.known.lock()["dns+c.test:80"].trouble, None);

    // What is not known any more stays known here.
    server.records.lock().clear();
    check(&resolver, "dns+a.test:80", &["10.0.0.2:80", "[fd00::7]:80"]).await;
    assert!(resolver.shared.known.lock()["dns+a.test:80"].trouble.is_some());
    server.task.abort();
}

#[tokio::test]
async fn files_are_read_anew_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("peers");
    let peer = format!("file+{}", path.display());
    let resolver = PeerResolver::default();
    check(&resolver, &peer, &[]).await;
    std::fs::write(&path, "# ours\n\n a.test:1 # the first\n[::1]:2\r\na.test:1\n").unwrap();
    check(&resolver, &peer, &["a.test:1", "[::1]:2"]).await;
    std::fs::write(&path, "b.test:1").unwrap();
    check(&resolver, &peer, &["b.test:1"]).await;
    // One that is half written changes nothing, and says where.
    std::fs::write(&path, "b.test:1\nc.te").unwrap();
    check(&resolver, &peer, &["b.test:1"]).await;
    let trouble = resolver.shared.known.lock()[&peer].trouble.clone().unwrap();
    assert!(trouble.contains("peers line 2: \"c.te\": the port is missing"), "{trouble}");
    std::fs::write(&path, "x".repeat((1 << 20) + 1)).unwrap();
    check(&resolver, &peer, &["b.test:1"]).await;
    std::fs::remove_file(&path).unwrap();
    check(&resolver, &peer, &["b.test:1"]).await;
    std::fs::write(&path, "").unwrap();
    check(&resolver, &peer, &[]).await;
}
