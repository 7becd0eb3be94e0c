//! Clients, who write all the time: one for each host.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::sleep;

use crate::{
    chance::Chance,
    disk::Sample,
    host::PORT,
    network::{Network, Sky, plain_answer},
    operator::Hosts,
    options::HOSTS_MAX,
    writes::WRITE,
};

/// When each host last said that a write is stored.
pub type LastAcks = Arc<Mutex<BTreeMap<usize, Duration>>>;

/// Writes for ever.
pub async fn run(hosts: Hosts, acks: LastAcks, sky: Arc<Mutex<Sky>>, seed: u64) -> turmoil::Result {
    let network = Network::bind(PORT, turmoil::lookup("clients"), seed, sky).await?;
    let writers = (0..HOSTS_MAX).map(|host| {
        let chance = Chance::of(seed, &[host as u64]);
        write_to(host, Arc::clone(&hosts), Arc::clone(&acks), network.clone(), chance)
    });
    let writers: Vec<_> = writers.map(tokio::spawn).collect();
    network.run(Arc::new(|_, _| Box::pin(async { plain_answer(Vec::new()) }))).await;
    drop(writers);
    Ok(())
}

async fn write_to(host: usize, hosts: Hosts, acks: LastAcks, network: Network, mut chance: Chance) {
    let mut time = 0;
    loop {
        sleep(Duration::from_millis(chance.between(100, 900))).await;
        let address = hosts.lock().get(host).filter(|host| !host.is_gone()).map(|host| host.address());
        let Some(address) = address else { continue };
        time += 1;
        let count = chance.between(1, 4);
        // Each client has series of its own.
        let mut series = || host as u64 * 1000 + chance.between(0, 100);
        let samples: Vec<Sample> = (0..count).map(|_| (series(), time)).collect();
        let body = serde_json::to_vec(&samples).expect("samples are numbers");
        let answer = network.ask(&address, WRITE, body, Duration::from_secs(4)).await;
        if answer.as_deref() == Some(b"true") {
            let now = turmoil::sim_elapsed().unwrap_or_default();
            acks.lock().insert(host, now);
        }
    }
}
