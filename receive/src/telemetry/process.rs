//! Metrics of the process as Prometheus clients export them, and stand-ins for those of Go's
//! runtime that dashboards of Thanos show in their row on resources.
//!
//! Everything is read from `/proc` (proc(5)); what cannot be read is left out.

use std::fs;

use super::{Collect, Exposition};

/// Ticks per second in `/proc/*/stat`; 100 on every architecture of Linux we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Writes `process_*` and `go_*`.
#[derive(Clone, Debug)]
pub struct ProcessCollector {
    /// The runtime whose tasks stand in for goroutines.
    pub runtime: tokio::runtime::Handle,
}

impl Collect for ProcessCollector {
    fn collect(&self, out: &mut Exposition) {
        let read = |path: &str| fs::read_to_string(path).ok();
        if let Some(stat) = read("/proc/self/stat").as_deref().and_then(Stat::parse) {
            let cpu = stat.cpu_ticks as f64 / TICKS_PER_SECOND;
            out.counter("process_cpu_seconds_total", "CPU time spent, user and system.", cpu);
            if let Some(boot) = read("/proc/stat").as_deref().and_then(boot_time) {
                let start = boot as f64 + stat.start_ticks as f64 / TICKS_PER_SECOND;
                out.gauge("process_start_time_seconds", "Unix time of the start.", start);
            }
            out.gauge("process_threads", "Threads.", stat.threads as f64);
        }
        if let Some(status) = read("/proc/self/status") {
            let mut memory = |field: &str, names: &[(&str, &str)]| {
                if let Some(bytes) = kilobytes(&status, field) {
                    names.iter().for_each(|(name, help)| out.gauge(name, help, bytes));
                }
            };
            memory("VmRSS:", &[("process_resident_memory_bytes", "Resident memory.")]);
            memory("VmSize:", &[("process_virtual_memory_bytes", "Virtual memory.")]);
            memory(
                "RssAnon:",
                &[
                    ("go_memstats_alloc_bytes", "Resident memory that no file backs, in place of Go's heap."),
                    (
                        "go_memstats_heap_inuse_bytes",
                        "Resident memory that no file backs, in place of Go's heap.",
                    ),
                ],
            );
        }
        if let Ok(entries) = fs::read_dir("/proc/self/fd") {
            // The directory that is being read is open too.
            let open = entries.count().saturating_sub(1);
            out.gauge("process_open_fds", "Open file descriptors.", open as f64);
        }
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let limit = limit.map_or(f64::INFINITY, |limit| limit as f64);
        out.gauge("process_max_fds", "Limit of open file descriptors.", limit);
        let tasks = self.runtime.metrics().num_alive_tasks();
        out.gauge("go_goroutines", "Tasks alive, in place of goroutines.", tasks as f64);
    }
}

/// The fields of `/proc/self/stat` that are used.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    start_ticks: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second field is the name in parentheses, which may hold blanks and parentheses.
        let (_, after_name) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
        // Numbered from 1 in proc(5), and the third is the first here.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self { cpu_ticks: field(14)? + field(15)?, threads: field(20)?, start_ticks: field(22)? })
    }
}

fn boot_time(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// A field such as `VmRSS: 1024 kB`, in bytes.
fn kilobytes(status: &str, field: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| kilobytes as f64 * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_read() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 123456 1 2 3";
        assert_eq!(Stat::parse(stat), Some(Stat { cpu_ticks: 300, threads: 9, start_ticks: 123_456 }));
        assert_eq!(Stat::parse("7 (a) S 1"), None);
        assert_eq!(Stat::parse(""), None);
        assert_eq!(boot_time("cpu 1 2\nbtime 1700000000\nprocesses 3\n"), Some(1_700_000_000));
        let status = "Name:\tx\nVmSize:\t    2048 kB\nVmRSS:\t 12 kB\n";
        assert_eq!(kilobytes(status, "VmRSS:"), Some(12.0 * 1024.0));
        assert_eq!(kilobytes(status, "RssAnon:"), None);
    }

    #[tokio::test]
    async fn this_process_is_described() {
        let mut out = Exposition::default();
        ProcessCollector { runtime: tokio::runtime::Handle::current() }.collect(&mut out);
        let text = out.into_text();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
            line.unwrap_or_else(|| panic!("{name} is missing in {text}")).parse().expect("a number")
        };
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("go_memstats_alloc_bytes") <= value("process_resident_memory_bytes"));
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_cpu_seconds_total") >= 0.0);
        let now = jiff::Timestamp::now().as_second() as f64;
        let start = value("process_start_time_seconds");
        assert!(start > now - 86_400.0 && start < now + 2.0, "{start} {now}");
        assert_eq!(value("go_goroutines"), 0.0);
    }
}
