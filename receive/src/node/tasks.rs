//! Long tasks with names. Each runs until it is told to end; one that ends by itself is a fault of
//! the process, whatever it returned.

use std::{collections::HashMap, future::Future, time::Duration};

use tokio::{
    task::{Id, JoinError, JoinSet},
    time::{Instant, timeout_at},
};

use crate::logging::panic_text;

/// A set of named tasks. Dropping it aborts those that still run.
#[derive(Debug, Default)]
pub struct TaskSet {
    tasks: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

/// The end of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its name.
    pub task: &'static str,
    /// How it ended: "ended unexpectedly", or "panicked: …".
    pub how: String,
}

impl TaskSet {
    /// Runs `task` under `name`; what it returns is dropped.
    pub fn spawn<F>(&mut self, name: &'static str, task: F)
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let handle = self.tasks.spawn(async {
            task.await;
        });
        self.names.insert(handle.id(), name);
    }

    /// Waits for the next task that ends; for ever if there is none. Safe to cancel.
    pub async fn next_end(&mut self) -> Ended {
        match self.tasks.join_next_with_id().await {
            Some(result) => self.ended(result),
            None => std::future::pending().await,
        }
    }

    /// Waits for all tasks, which have been told to end, and aborts those that are not done within
    /// `limit`. Panics are logged where they happen.
    pub async fn finish(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while !self.tasks.is_empty() {
            if timeout_at(deadline, self.next_end()).await.is_err() {
                let names: Vec<_> = self.names.values().collect();
                tracing::warn!(tasks = ?names, "tasks did not end in time and are broken off");
                self.tasks.abort_all();
                return;
            }
        }
    }

    /// Waits for the task called `name`, at most `limit`.
    pub async fn finish_named(&mut self, name: &str, limit: Duration) {
        let deadline = Instant::now() + limit;
        while self.names.values().any(|own| *own == name) {
            if timeout_at(deadline, self.next_end()).await.is_err() {
                return;
            }
        }
    }

    fn ended(&mut self, result: Result<(Id, ()), JoinError>) -> Ended {
        let (id, how) = match result {
            Ok((id, ())) => (id, "ended unexpectedly".to_owned()),
            Err(error) => {
                let id = error.id();
                let how = match error.try_into_panic() {
                    Ok(panic) => format!("panicked: {}", panic_text(&*panic)),
                    Err(_) => "was aborted".to_owned(),
                };
                (id, how)
            }
        };
        Ended { task: self.names.remove(&id).unwrap_or("unnamed"), how }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio_util::sync::CancellationToken;

    use super::*;

    fn ended(task: &'static str, how: &str) -> Ended {
        Ended { task, how: how.to_owned() }
    }

    #[tokio::test]
    async fn the_task_that_ends_is_named() {
        let mut tasks = TaskSet::default();
        tasks.spawn("for ever", pending::<()>());
        tasks.spawn("short", async { 7 });
        assert_eq!(tasks.next_end().await, ended("short", "ended unexpectedly"));
        tasks.spawn("faulty", async { panic!("on {}", "purpose") });
        assert_eq!(tasks.next_end().await, ended("faulty", "panicked: on purpose"));
    }

    #[tokio::test]
    async fn an_empty_set_never_ends() {
        let mut tasks = TaskSet::default();
        tokio::select! {
            biased;
            ended = tasks.next_end() => panic!("{ended:?}"),
            () = std::future::ready(()) => {}
        }
        tasks.finish(Duration::from_secs(600)).await;
    }

    #[tokio::test]
    async fn finishing_waits_for_those_that_end_and_breaks_off_others() {
        let stop = CancellationToken::new();
        let mut tasks = TaskSet::default();
        tasks.spawn("polite", stop.clone().cancelled_owned());
        stop.cancel();
        tasks.finish(Duration::from_secs(600)).await;
        tasks.spawn("deaf", pending::<()>());
        tasks.finish(Duration::from_millis(10)).await;
        assert_eq!(tasks.next_end().await, ended("deaf", "was aborted"));
        tasks.spawn("named", std::future::ready(()));
        tasks.spawn("other", pending::<()>());
        tasks.finish_named("named", Duration::from_secs(600)).await;
    }
}
