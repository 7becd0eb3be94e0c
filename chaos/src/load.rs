//! The load generator: `weir-chaos load`.
//!
//! One scrape is one sample of every series at one time. Each connection owns a share of the
//! series and sends that share, scrape after scrape, one request at a time, so the samples of a
//! series arrive in order whatever happens to other connections. A request that failed for a
//! reason that may pass is sent again, the same bytes, before the next one.
//!
//! The generator shares the machine with what it measures, so it must be cheap: the labels of a
//! series are encoded once, before the clock starts. A request is these bytes and each sample's
//! value and time put together, then Snappy. Memory depends on the number of series and of
//! connections, not on how long it runs.

mod args;
mod client;
pub mod encode;
mod plan;
mod report;
mod run;
mod worker;

pub use args::Args;
pub use report::{Latency, Process, Report};
pub use run::run;

/// Runs the load and writes the report where the arguments say.
///
/// # Errors
/// If an argument is wrong, a file cannot be written or a process cannot be read. That requests
/// fail is no error but a result.
pub fn main(args: Args) -> anyhow::Result<()> {
    let json = args.json.clone();
    let report = run(args)?;
    match json {
        Some(path) if path.as_os_str() == "-" => println!("{}", serde_json::to_string_pretty(&report)?),
        Some(path) => {
            std::fs::write(path, serde_json::to_string_pretty(&report)? + "\n")?;
            println!("{report}");
        }
        None => println!("{report}"),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
