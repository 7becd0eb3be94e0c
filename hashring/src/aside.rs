//! Work that would hold up other tasks.

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    task::{JoinError, spawn_blocking},
};

/// Does work that waits for a disk, or computes for long, on a thread that may wait.
///
/// On a runtime of one thread it is done in place. Programs do not run on such, only tests and
/// simulations, and those rely on the order in which things happen.
pub async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => Ok(work()),
        _ => spawn_blocking(work).await,
    }
}
