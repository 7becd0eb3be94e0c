//! A network of its own for a test: nothing outside sees it, and its packets can be dropped.

use std::{fs::File, future::Future, os::fd::AsFd as _, process::Command};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace with a loopback interface; it goes when this is dropped.
pub struct Network {
    name: String,
}

impl Network {
    /// Runs `test` on a thread of its own in a new network. What it starts is in that network, too.
    pub fn run<F: Future<Output = ()>>(test: impl FnOnce(Network) -> F + Send + 'static) {
        let thread = std::thread::spawn(|| {
            let network = Self { name: format!("weir-test-{}", std::process::id()) };
            network.command("ip", &["netns", "add", &network.name]);
            let file = File::open(format!("/run/netns/{}", network.name)).unwrap();
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("a test with a network of its own runs as root");
            network.command("ip", &["link", "set", "lo", "up"]);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(test(network));
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }

    fn command(&self, program: &str, args: &[&str]) {
        let output = Command::new(program).args(args).output();
        let output = output.unwrap_or_else(|error| {
            panic!("cannot start {program}: {error}; ./test.sh installs what is missing")
        });
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {args:?}, which takes root: {error}");
    }

    /// Drops all packets to this port, of whatever connection, from now on.
    pub fn block(&self, port: u16) {
        self.command("iptables", &["-A", "INPUT", "-p", "tcp", "--dport", &port.to_string(), "-j", "DROP"]);
    }

    /// Lets all packets through again.
    pub fn heal(&self) {
        self.command("iptables", &["-F", "INPUT"]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}
