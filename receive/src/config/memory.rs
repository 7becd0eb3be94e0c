//! How much memory this process may use, to size what is held in flight.

use std::fs;

/// What a request may count on when nothing is known of the machine.
const BYTES_IN_FLIGHT_FALLBACK: u64 = 256 << 20;
/// Below this a single large request would fill the budget.
const BYTES_IN_FLIGHT_MIN: u64 = 64 << 20;
/// cgroup v1 says "no limit" by a number near 2^63.
const NO_LIMIT: u64 = 1 << 60;

/// What is known of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Bytes of memory this process may use, if that is known.
    pub memory_limit: Option<u64>,
}

impl Machine {
    /// Asks the control group (v2, then v1) and the kernel; the least of their answers counts.
    pub fn read() -> Self {
        let cgroup = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
        let limits = cgroup.iter().filter_map(|path| parse_limit(&fs::read_to_string(path).ok()?));
        let total = fs::read_to_string("/proc/meminfo").ok().and_then(|text| parse_total(&text));
        Self { memory_limit: limits.chain(total).min() }
    }

    /// An eighth of the memory limit, at least 64 MiB; 256 MiB if the limit is not known.
    pub fn default_bytes_in_flight(self) -> u64 {
        self.memory_limit.map_or(BYTES_IN_FLIGHT_FALLBACK, |limit| (limit / 8).max(BYTES_IN_FLIGHT_MIN))
    }
}

/// Content of a cgroup's limit file: `max`, or bytes.
fn parse_limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|limit| *limit < NO_LIMIT)
}

/// The line `MemTotal:  24611000 kB` of meminfo.
fn parse_total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read() {
        assert_eq!(parse_limit("max\n"), None);
        assert_eq!(parse_limit("536870912\n"), Some(512 << 20));
        assert_eq!(parse_limit("9223372036854771712\n"), None);
        assert_eq!(parse_total("MemTotal:       24611000 kB\nMemFree: 1 kB\n"), Some(24_611_000 * 1024));
        assert_eq!(parse_total("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn an_eighth_is_in_flight() {
        let check = |memory_limit: Option<u64>, bytes: u64| {
            assert_eq!(Machine { memory_limit }.default_bytes_in_flight(), bytes);
        };
        check(None, 256 << 20);
        check(Some(1 << 30), 128 << 20);
        check(Some(512 << 20), 64 << 20);
        check(Some(100 << 20), 64 << 20);
        check(Some(24 << 30), 3 << 30);
    }
}
