//! A store in memory that writes down what is asked of it and fails on demand.

use std::{
    fmt,
    ops::Range,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart, memory::InMemory, path::Path,
};
use weir::objstore::{Bucket, BucketOptions};

/// What happens to one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It works.
    None,
    /// It fails and does nothing.
    Before,
    /// It is done, and then the answer is lost.
    After,
    /// It never ends.
    Hang,
    /// The store answers well, but keeps less than it was given (puts) or tells a wrong size (heads).
    Lie,
}

/// One operation that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// put, multipart, part, complete, abort, get, head, delete or list.
    pub kind: &'static str,
    pub path: String,
}

type Plan = Box<dyn Fn(usize, &Op) -> Fault + Send + Sync>;

struct State {
    ops: Vec<Op>,
    plan: Plan,
}

/// The store. Clones are the same one.
#[derive(Clone)]
pub struct FaultStore {
    inner: Arc<InMemory>,
    state: Arc<Mutex<State>>,
}

impl FaultStore {
    pub fn new() -> Self {
        let state = State { ops: Vec::new(), plan: Box::new(|_, _| Fault::None) };
        Self { inner: Arc::new(InMemory::new()), state: Arc::new(Mutex::new(state)) }
    }

    /// What lies in the store.
    pub fn inner(&self) -> &InMemory {
        &self.inner
    }

    pub fn bucket(&self, options: &BucketOptions) -> Bucket {
        Bucket::from_store(Arc::new(self.clone()), "test", "", options)
    }

    /// Forgets what was asked, and does to further operations, counted from 0, what `plan` says.
    pub fn plan(&self, plan: impl Fn(usize, &Op) -> Fault + Send + Sync + 'static) {
        let mut state = self.state.lock().unwrap();
        state.ops.clear();
        state.plan = Box::new(plan);
    }

    /// As [`FaultStore::plan`], with a plan that does nothing.
    pub fn heal(&self) {
        self.plan(|_, _| Fault::None);
    }

    /// What was asked since the plan was made.
    pub fn ops(&self) -> Vec<Op> {
        self.state.lock().unwrap().ops.clone()
    }

    /// Names of the objects that were put, in one piece or in parts, since the plan was made.
    pub fn sent(&self) -> Vec<String> {
        let ops = self.ops().into_iter();
        ops.filter(|op| op.kind == "put" || op.kind == "complete").map(|op| op.path).collect()
    }

    fn ask(&self, kind: &'static str, path: &Path) -> Fault {
        let mut state = self.state.lock().unwrap();
        let op = Op { kind, path: path.to_string() };
        let fault = (state.plan)(state.ops.len(), &op);
        state.ops.push(op);
        fault
    }
}

/// Does `operation` with what happens to it.
async fn run<T>(fault: Fault, operation: impl Future<Output = Result<T>>) -> Result<T> {
    match fault {
        Fault::None | Fault::Lie => operation.await,
        Fault::Before => Err(broken()),
        Fault::After => {
            // Its own answer is lost, too.
            let _ = operation.await;
            Err(broken())
        }
        Fault::Hang => std::future::pending().await,
    }
}

fn broken() -> Error {
    Error::Generic { store: "test", source: "planned fault".into() }
}

fn half(payload: PutPayload) -> PutPayload {
    let whole = Bytes::from(payload);
    whole.slice(..whole.len() / 2).into()
}

impl fmt::Debug for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultStore")
    }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultStore")
    }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let fault = self.ask("put", path);
        let payload = if fault == Fault::Lie { half(payload) } else { payload };
        run(fault, self.inner.put_opts(path, payload, opts)).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let fault = self.ask("multipart", path);
        let inner = run(fault, self.inner.put_multipart_opts(path, opts)).await?;
        Ok(Box::new(FaultUpload { store: self.clone(), path: path.clone(), inner }))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let fault = self.ask(if options.head { "head" } else { "get" }, path);
        let mut result = run(fault, self.inner.get_opts(path, options)).await?;
        if fault == Fault::Lie {
            result.meta.size += 1;
        }
        Ok(result)
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        run(self.ask("get", path), self.inner.get_ranges(path, ranges)).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        paths
            .then(move |path| {
                let store = store.clone();
                async move {
                    let path = path?;
                    let fault = store.ask("delete", &path);
                    let one = futures::stream::iter([Ok(path)]).boxed();
                    run(fault, async { store.inner.delete_stream(one).next().await.unwrap() }).await
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.ask("list", prefix.unwrap_or(&Path::default())) {
            Fault::None => self.inner.list(prefix),
            _ => futures::stream::iter([Err(broken())]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct FaultUpload {
    store: FaultStore,
    path: Path,
    inner: Box<dyn MultipartUpload>,
}

#[async_trait]
impl MultipartUpload for FaultUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let fault = self.store.ask("part", &self.path);
        let data = if fault == Fault::Lie { half(data) } else { data };
        if fault == Fault::Before {
            return Box::pin(async { Err(broken()) });
        }
        let part = self.inner.put_part(data);
        Box::pin(run(fault, part))
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let fault = self.store.ask("complete", &self.path);
        run(fault, self.inner.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        let fault = self.store.ask("abort", &self.path);
        run(fault, self.inner.abort()).await
    }
}
