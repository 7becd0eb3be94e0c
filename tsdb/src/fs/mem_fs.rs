//! A file system in memory that can lose power.
//!
//! It keeps, beside what was written, what a power cut may leave of it:
//! - Of a file, the bytes up to the last `sync` survive. Of those after it a prefix of any length
//!   survives, cut at any byte, sometimes with zeros behind it, as when the length reached the disk
//!   before the data.
//! - Of a directory, the entries at the last `sync_dir` survive, changed by any number of the first
//!   creations, renames and deletions since then. Directories are independent of each other and of
//!   the files in them: a rename may survive while the renamed file's bytes do not.
//! - A file that was cut to length 0 by `create` may have its old synced content again until the
//!   next `sync`.
//!
//! A rename from one directory to another counts as two changes, so a power cut may leave both names
//! or none. That is worse than real file systems are; nothing here should move files across.
//! Locks end with the process, so no copy has any.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use super::{DirEntry, DirLock, Fs, ReadFile, WriteFile};

type NodeId = u64;
type Entries = BTreeMap<String, NodeId>;

const ROOT: NodeId = 0;

/// A file system in memory. Clones share their content; [`clone_now`](Self::clone_now) and
/// [`crash`](Self::crash) make copies.
#[derive(Clone, Debug)]
pub struct MemFs {
    tree: Arc<Mutex<Tree>>,
}

#[derive(Clone, Debug)]
struct Tree {
    /// Files stay here after they lost their last name: open handles and power cuts may need them.
    nodes: BTreeMap<NodeId, Node>,
    next_id: NodeId,
    locked: BTreeSet<PathBuf>,
}

#[derive(Clone, Debug)]
enum Node {
    File(FileNode),
    Dir(DirNode),
}

#[derive(Clone, Debug, Default)]
struct FileNode {
    data: Vec<u8>,
    /// How much of `data` survives for sure.
    synced_len: usize,
    /// Synced content from before the file was cut to length 0, if that is not synced yet.
    before_cut: Option<Vec<u8>>,
}

#[derive(Clone, Debug, Default)]
struct DirNode {
    entries: Entries,
    /// The entries as they were at the last sync, then after each change since, up to before the
    /// last one.
    unsynced: Vec<Entries>,
}

impl DirNode {
    fn change(&mut self, change: impl FnOnce(&mut Entries)) {
        self.unsynced.push(self.entries.clone());
        change(&mut self.entries);
    }
}

impl Default for MemFs {
    fn default() -> Self {
        Self::new()
    }
}

impl MemFs {
    /// An empty file system.
    pub fn new() -> Self {
        let nodes = BTreeMap::from([(ROOT, Node::Dir(DirNode::default()))]);
        Self::from_tree(Tree { nodes, next_id: ROOT + 1, locked: BTreeSet::new() })
    }

    /// A copy that holds everything written so far: what is left after kill -9. What is not synced
    /// is not synced in the copy either.
    pub fn clone_now(&self) -> Self {
        let mut tree = self.tree.lock().clone();
        tree.locked.clear();
        Self::from_tree(tree)
    }

    /// A copy that holds what is left after a power cut. `seed` decides what of the unsynced is.
    pub fn crash(&self, seed: u64) -> Self {
        let mut tree = self.tree.lock().clone();
        tree.locked.clear();
        let mut random = Random(seed);
        for node in tree.nodes.values_mut() {
            match node {
                Node::File(file) => crash_file(file, &mut random),
                Node::Dir(dir) => {
                    let versions = dir.unsynced.len();
                    let kept = random.below(versions + 1);
                    if kept < versions {
                        dir.entries = dir.unsynced.swap_remove(kept);
                    }
                    dir.unsynced.clear();
                }
            }
        }
        tree.forget_unreachable();
        Self::from_tree(tree)
    }

    fn from_tree(tree: Tree) -> Self {
        Self { tree: Arc::new(Mutex::new(tree)) }
    }
}

fn crash_file(file: &mut FileNode, random: &mut Random) {
    if let Some(before_cut) = file.before_cut.take()
        && random.below(2) == 0
    {
        file.data = before_cut;
    } else {
        let unsynced = file.data.len() - file.synced_len;
        let written = file.synced_len + random.below(unsynced + 1);
        let len = if random.below(4) == 0 {
            written + random.below(file.data.len() - written + 1)
        } else {
            written
        };
        file.data.truncate(written);
        file.data.resize(len, 0);
    }
    file.synced_len = file.data.len();
}

/// SplitMix64: enough to choose, and the same everywhere.
struct Random(u64);

impl Random {
    /// A number below `bound`, which is above 0.
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

fn parts(path: &Path) -> Vec<&str> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect()
}

impl Tree {
    fn find(&self, path: &Path) -> io::Result<NodeId> {
        parts(path).into_iter().try_fold(ROOT, |dir, name| {
            self.dir(dir)?.entries.get(name).copied().ok_or(io::ErrorKind::NotFound.into())
        })
    }

    /// The directory that holds `path`, and its name there.
    fn find_parent<'p>(&self, path: &'p Path) -> io::Result<(NodeId, &'p str)> {
        let name = parts(path).pop().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = self.find(path.parent().unwrap_or(Path::new("")))?;
        self.dir(parent)?;
        Ok((parent, name))
    }

    fn dir(&self, id: NodeId) -> io::Result<&DirNode> {
        match self.nodes.get(&id) {
            Some(Node::Dir(dir)) => Ok(dir),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn dir_mut(&mut self, id: NodeId) -> io::Result<&mut DirNode> {
        match self.nodes.get_mut(&id) {
            Some(Node::Dir(dir)) => Ok(dir),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn file(&self, id: NodeId) -> io::Result<&FileNode> {
        match self.nodes.get(&id) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn file_mut(&mut self, id: NodeId) -> io::Result<&mut FileNode> {
        match self.nodes.get_mut(&id) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn add(&mut self, parent: NodeId, name: &str, node: Node) -> io::Result<NodeId> {
        let id = self.next_id;
        self.next_id += 1;
        self.nodes.insert(id, node);
        self.dir_mut(parent)?.change(|entries| {
            entries.insert(name.to_owned(), id);
        });
        Ok(id)
    }

    /// Drops nodes that no name leads to, as at the start of a machine.
    fn forget_unreachable(&mut self) {
        let mut reachable = HashSet::new();
        let mut open = vec![ROOT];
        while let Some(id) = open.pop() {
            if reachable.insert(id)
                && let Some(Node::Dir(dir)) = self.nodes.get(&id)
            {
                open.extend(dir.entries.values());
            }
        }
        self.nodes.retain(|id, _| reachable.contains(id));
    }
}

impl Fs for MemFs {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut tree = self.tree.lock();
        let mut dir = ROOT;
        for name in parts(path) {
            let known = tree.dir(dir)?.entries.get(name).copied();
            dir = match known {
                Some(id) => id,
                None => tree.add(dir, name, Node::Dir(DirNode::default()))?,
            };
        }
        tree.dir(dir).map(|_| ())
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let tree = self.tree.lock();
        let dir = tree.dir(tree.find(path)?)?;
        let entry = |(name, id): (&String, &NodeId)| {
            let (is_dir, len) = match tree.nodes.get(id) {
                Some(Node::File(file)) => (false, file.data.len() as u64),
                _ => (true, 0),
            };
            DirEntry { name: name.clone(), is_dir, len }
        };
        Ok(dir.entries.iter().map(entry).collect())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadFile>> {
        let tree = self.tree.lock();
        let node = tree.find(path)?;
        tree.file(node)?;
        Ok(Arc::new(MemReadFile { fs: self.clone(), node }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let mut tree = self.tree.lock();
        let (parent, name) = tree.find_parent(path)?;
        let known = tree.dir(parent)?.entries.get(name).copied();
        let node = match known {
            Some(id) => {
                let file = tree.file_mut(id)?;
                let mut synced = std::mem::take(&mut file.data);
                synced.truncate(file.synced_len);
                file.before_cut.get_or_insert(synced);
                file.synced_len = 0;
                id
            }
            None => tree.add(parent, name, Node::File(FileNode::default()))?,
        };
        Ok(Box::new(MemWriteFile { fs: self.clone(), node, len: 0 }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut tree = self.tree.lock();
        let node = tree.find(from)?;
        let (from_dir, from_name) = tree.find_parent(from)?;
        let (to_dir, to_name) = tree.find_parent(to)?;
        match tree.dir(to_dir)?.entries.get(to_name).and_then(|id| tree.nodes.get(id)) {
            Some(Node::Dir(dir)) if !dir.entries.is_empty() => {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            _ => {}
        }
        if from_dir == to_dir {
            tree.dir_mut(from_dir)?.change(|entries| {
                entries.remove(from_name);
                entries.insert(to_name.to_owned(), node);
            });
        } else {
            tree.dir_mut(from_dir)?.change(|entries| {
                entries.remove(from_name);
            });
            tree.dir_mut(to_dir)?.change(|entries| {
                entries.insert(to_name.to_owned(), node);
            });
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut tree = self.tree.lock();
        let node = tree.find(path)?;
        tree.file(node)?;
        let (parent, name) = tree.find_parent(path)?;
        tree.dir_mut(parent)?.change(|entries| {
            entries.remove(name);
        });
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut tree = self.tree.lock();
        let node = tree.find(path)?;
        tree.dir(node)?;
        let (parent, name) = tree.find_parent(path)?;
        // The files go one by one, so a power cut may leave some of them.
        let mut open = vec![node];
        while let Some(id) = open.pop() {
            let Ok(dir) = tree.dir_mut(id) else { continue };
            let entries: Vec<_> = dir.entries.iter().map(|(name, &id)| (name.clone(), id)).collect();
            for (name, id) in entries {
                dir.change(|entries| {
                    entries.remove(&name);
                });
                open.push(id);
            }
        }
        tree.dir_mut(parent)?.change(|entries| {
            entries.remove(name);
        });
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut tree = self.tree.lock();
        let node = tree.find(path)?;
        tree.dir_mut(node)?.unsynced.clear();
        Ok(())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.tree.lock().find(path).is_ok())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        if !self.exists(path)? {
            self.create(path)?;
        }
        if !self.tree.lock().locked.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(MemDirLock { fs: self.clone(), path: path.to_owned() }))
    }
}

#[derive(Debug)]
struct MemReadFile {
    fs: MemFs,
    node: NodeId,
}

impl ReadFile for MemReadFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.fs.tree.lock().file(self.node)?.data.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let tree = self.fs.tree.lock();
        let data = &tree.file(self.node)?.data;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(data.len());
        let len = buf.len().min(data.len() - start);
        buf[..len].copy_from_slice(&data[start..start + len]);
        Ok(len)
    }
}

#[derive(Debug)]
struct MemWriteFile {
    fs: MemFs,
    node: NodeId,
    len: u64,
}

impl WriteFile for MemWriteFile {
    fn write_all(&mut self, data: &[u8]) -> io::Result<()> {
        self.fs.tree.lock().file_mut(self.node)?.data.extend_from_slice(data);
        self.len += data.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut tree = self.fs.tree.lock();
        let file = tree.file_mut(self.node)?;
        file.synced_len = file.data.len();
        file.before_cut = None;
        Ok(())
    }

    fn size(&self) -> u64 {
        self.len
    }
}

#[derive(Debug)]
struct MemDirLock {
    fs: MemFs,
    path: PathBuf,
}

impl DirLock for MemDirLock {}

impl Drop for MemDirLock {
    fn drop(&mut self) {
        self.fs.tree.lock().locked.remove(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::{read_file, write_atomically};

    const SEEDS: std::ops::Range<u64> = 0..200;

    fn write(fs: &MemFs, path: &str, data: &[u8], sync: bool) {
        let mut file = fs.create(path.as_ref()).unwrap();
        file.write_all(data).unwrap();
        if sync {
            file.sync().unwrap();
        }
    }

    fn read(fs: &MemFs, path: &str) -> Option<Vec<u8>> {
        read_file(fs, path.as_ref()).ok()
    }

    fn names(fs: &MemFs, path: &str) -> Vec<String> {
        fs.read_dir(path.as_ref()).unwrap().into_iter().map(|entry| entry.name).collect()
    }

    #[test]
    fn behaves_as_a_file_system() {
        let fs = MemFs::new();
        fs.create_dir_all("/a/b".as_ref()).unwrap();
        fs.create_dir_all("/a/b".as_ref()).unwrap();
        write(&fs, "/a/b/2", b"two", false);
        write(&fs, "/a/b/1", b"one", false);
        assert_eq!(names(&fs, "/a/b"), ["1", "2"]);
        let two = fs.open("/a/b/2".as_ref()).unwrap();
        fs.rename("/a/b/1".as_ref(), "/a/b/2".as_ref()).unwrap();
        assert_eq!(names(&fs, "/a/b"), ["2"]);
        assert_eq!(read(&fs, "/a/b/2").unwrap(), b"one");
        // An open file outlives its name.
        let mut buf = [0; 8];
        assert_eq!(two.read_at(&mut buf, 1).unwrap(), 2);
        assert_eq!(&buf[..2], b"wo");
        assert_eq!(two.read_at(&mut buf, 9).unwrap(), 0);

        let kind = |result: io::Result<()>| result.unwrap_err().kind();
        assert_eq!(kind(fs.open("/a/x".as_ref()).map(drop)), io::ErrorKind::NotFound);
        assert_eq!(kind(fs.create("/x/y".as_ref()).map(drop)), io::ErrorKind::NotFound);
        assert_eq!(kind(fs.open("/a/b".as_ref()).map(drop)), io::ErrorKind::IsADirectory);
        assert_eq!(kind(fs.rename("/a/b/1".as_ref(), "/a/c".as_ref())), io::ErrorKind::NotFound);
        fs.remove_file("/a/b/2".as_ref()).unwrap();
        assert!(!fs.exists("/a/b/2".as_ref()).unwrap());
        fs.remove_dir_all("/a".as_ref()).unwrap();
        assert!(names(&fs, "/").is_empty());

        let lock = fs.lock("/lock".as_ref()).unwrap();
        assert_eq!(kind(fs.lock("/lock".as_ref()).map(drop)), io::ErrorKind::WouldBlock);
        assert!(fs.clone_now().lock("/lock".as_ref()).is_ok());
        drop(lock);
        assert!(fs.lock("/lock".as_ref()).is_ok());
    }

    #[test]
    fn a_crash_tears_what_is_not_synced() {
        let fs = MemFs::new();
        let mut file = fs.create("/f".as_ref()).unwrap();
        fs.sync_dir("/".as_ref()).unwrap();
        file.write_all(b"synced").unwrap();
        file.sync().unwrap();
        file.write_all(b"unsynced").unwrap();
        let mut lengths = BTreeSet::new();
        for seed in SEEDS {
            let data = read(&fs.crash(seed), "/f").unwrap();
            let zeros = data.iter().rev().take_while(|&&byte| byte == 0).count();
            assert!(b"syncedunsynced".starts_with(&data[..data.len() - zeros]));
            assert!(data.starts_with(b"synced"));
            lengths.insert(data.len());
        }
        assert_eq!(lengths, (6..=14).collect());
        assert_eq!(read(&fs.clone_now(), "/f").unwrap(), b"syncedunsynced");
        // A crash after kill -9 still tears.
        assert!(SEEDS.into_iter().any(|seed| read(&fs.clone_now().crash(seed), "/f").unwrap() == b"synced"));
    }

    #[test]
    fn a_crash_undoes_directory_changes_from_the_last() {
        let fs = MemFs::new();
        write(&fs, "/a", b"a", true);
        fs.sync_dir("/".as_ref()).unwrap();
        fs.rename("/a".as_ref(), "/b".as_ref()).unwrap();
        write(&fs, "/c", b"c", true);
        fs.remove_file("/b".as_ref()).unwrap();
        let seen: BTreeSet<_> = SEEDS.map(|seed| names(&fs.crash(seed), "/")).collect();
        let expected = [vec!["a"], vec!["b"], vec!["b", "c"], vec!["c"]];
        assert_eq!(seen, expected.map(|names| names.into_iter().map(str::to_owned).collect()).into());
        fs.sync_dir("/".as_ref()).unwrap();
        assert!(SEEDS.into_iter().all(|seed| names(&fs.crash(seed), "/") == ["c"]));
    }

    #[test]
    fn a_cut_file_may_come_back() {
        let fs = MemFs::new();
        write(&fs, "/f", b"old", true);
        fs.sync_dir("/".as_ref()).unwrap();
        write(&fs, "/f", b"new", false);
        let seen: BTreeSet<_> = SEEDS.map(|seed| read(&fs.crash(seed), "/f").unwrap()).collect();
        assert!(seen.contains(&b"old"[..]) && seen.contains(&b"new"[..]) && seen.contains(&b""[..]));
        write(&fs, "/f", b"new", true);
        assert!(SEEDS.into_iter().all(|seed| read(&fs.crash(seed), "/f").unwrap() == b"new"));
    }

    #[test]
    fn atomic_writes_are_atomic() {
        let fs = MemFs::new();
        write_atomically(&fs, "/f".as_ref(), b"old").unwrap();
        write_atomically(&fs, "/f".as_ref(), b"new").unwrap();
        assert!(SEEDS.into_iter().all(|seed| read(&fs.crash(seed), "/f").unwrap() == b"new"));
        // Without the last directory sync it is one or the other.
        write(&fs, "/g", b"newer", true);
        fs.rename("/g".as_ref(), "/f".as_ref()).unwrap();
        let seen: BTreeSet<_> = SEEDS.map(|seed| read(&fs.crash(seed), "/f").unwrap()).collect();
        assert_eq!(seen, [b"new".to_vec(), b"newer".to_vec()].into());
    }
}
