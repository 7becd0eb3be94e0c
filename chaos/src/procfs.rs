//! What a process used, as Linux tells it.

use std::fs;

use anyhow::{Context, anyhow};

/// Clock ticks per second in `/proc/<pid>/stat`: USER_HZ, 100 on every Linux that runs here.
const TICKS_PER_SECOND: f64 = 100.0;

/// A reading of one process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// CPU time of all its threads since it started, user and system, in seconds. Children that
    /// it did not wait for are not in it.
    pub cpu_seconds: f64,
    /// Resident memory in bytes.
    pub rss_bytes: u64,
    /// The greatest resident memory since it started, in bytes.
    pub rss_peak_bytes: u64,
}

impl Usage {
    /// Reads `/proc/<pid>/stat` and `/proc/<pid>/status`.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path).with_context(|| format!("read {path}"))
        };
        Self::parse(&read("stat")?, &read("status")?).with_context(|| format!("usage of process {pid}"))
    }

    fn parse(stat: &str, status: &str) -> anyhow::Result<Self> {
        // The command's name, in parentheses, may hold spaces and parentheses itself. The fields
        // after it start with the third; utime and stime are the 14th and 15th.
        let (_, after_name) = stat.rsplit_once(')').ok_or_else(|| anyhow!("stat has no name"))?;
        let mut fields = after_name.split_ascii_whitespace().skip(11);
        let mut ticks =
            || -> anyhow::Result<f64> { Ok(fields.next().ok_or_else(|| anyhow!("stat is short"))?.parse()?) };
        let cpu_seconds = (ticks()? + ticks()?) / TICKS_PER_SECOND;
        let bytes = |key: &str| -> anyhow::Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
            let kib: u64 = kib.ok_or_else(|| anyhow!("status lacks {key}"))?.trim().parse()?;
            Ok(kib * 1024)
        };
        Ok(Self { cpu_seconds, rss_bytes: bytes("VmRSS:")?, rss_peak_bytes: bytes("VmHWM:")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fields_after_an_odd_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194304 500 0 3 0 250 75 9 8 20 0 5 0 100 1 2 3";
        let status = "Name:\ta) b (c\nVmPeak:\t  900 kB\nVmHWM:\t  300 kB\nVmRSS:\t  200 kB\nThreads:\t5\n";
        let expected = Usage { cpu_seconds: 3.25, rss_bytes: 204_800, rss_peak_bytes: 307_200 };
        assert_eq!(Usage::parse(stat, status).unwrap(), expected);
        assert!(Usage::parse("42 (a) S 1", status).is_err());
        assert!(Usage::parse(stat, "VmRSS:\t1 kB\n").is_err());
    }

    #[test]
    fn reads_this_process() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.rss_bytes > 0 && usage.rss_peak_bytes >= usage.rss_bytes);
    }
}
