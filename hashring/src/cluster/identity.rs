//! Who a node is: the file `node.json` in its data directory.
//!
//! The uid is made at the first start and never again: an empty disk is another node. What the node
//! has promised in Raft belongs to that uid, so the directory of Raft says whose it is, and the two
//! are refused when they do not belong together. Order of writing: the owner in the directory of
//! Raft, then `node.json` that says there is one, then Raft itself, and then `node.json` that says it has
//! begun; so a store that `node.json` knows and that is missing is damage, a directory that it does not know
//! was never used, and once it has begun its log may not be missing either.
//!
//! A node that is no member of Raft any more keeps its store: should it become one again, it has to
//! stand by what it promised. Only a new generation of the cluster ends that, for members of different
//! generations never hear each other: the directory of Raft is one for each generation, `raft` and then
//! `raft-1` and so on, and `node.json` alone says which one counts. Those of earlier generations are
//! removed when they are found.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::surroundings::Nature;
use crate::{
    ids::{ClusterId, Uid},
    raft::{RaftId, files},
};

const NODE_FILE: &str = "node.json";
const OWNER_FILE: &str = "owner.json";
const VERSION: u32 = 1;

/// One of those who found a cluster together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Founder {
    /// The node.
    pub uid: Uid,
    /// Where Raft reaches it, `host:port`.
    pub address: String,
}

/// The cluster that a node is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The cluster.
    pub cluster: ClusterId,
    /// Counts how often the cluster was forced to begin anew.
    pub generation: u64,
    /// The first voters. Known to those who are among them, empty for all others.
    pub founders: Vec<Founder>,
}

impl Membership {
    fn is_founder(&self, uid: Uid) -> bool {
        self.founders.iter().any(|founder| founder.uid == uid)
    }
}

/// What a node knows of itself across restarts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    dir: PathBuf,
    uid: Uid,
    name: String,
    boot: u64,
    membership: Option<Membership>,
    raft: Option<RaftStoreRecord>,
    /// The cluster that it is about to found.
    founding: Option<ClusterId>,
}

/// There is a store of Raft, of this generation of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RaftStoreRecord {
    /// The node takes part in Raft as far as it knows.
    is_member: bool,
    /// It was started, so there is a log. Not known by those that were written before this was.
    #[serde(default)]
    is_begun: bool,
}

impl RaftStoreRecord {
    const NEW: RaftStoreRecord = RaftStoreRecord { is_member: true, is_begun: false };
}

/// The file.
#[derive(Serialize, Deserialize)]
struct NodeFile {
    version: u32,
    uid: Ulid,
    name: String,
    boot: u64,
    membership: Option<Membership>,
    /// Written since nodes other than founders may have one.
    #[serde(default)]
    raft: Option<RaftStoreRecord>,
    #[serde(default)]
    founding: Option<ClusterId>,
}

/// What the directory of Raft says.
#[derive(Serialize, Deserialize)]
struct OwnerFile {
    version: u32,
    uid: Ulid,
    cluster: ClusterId,
    #[serde(default)]
    generation: u64,
}

/// Why a node does not know who it is.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file system.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file is not what was written.
    #[error("{path} is not understood: {what}")]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Vote and log are gone: the node must not vote again under its old identity.
    #[error(
        "{path} is missing, though the node is or was a voter of its cluster: to come back as another node, remove {NODE_FILE} beside it"
    )]
    RaftMissing {
        /// The directory of Raft.
        path: PathBuf,
    },
    /// The directory of Raft is that of another node or cluster.
    #[error("{path} does not belong to {NODE_FILE} beside it: {what}")]
    RaftOfAnother {
        /// The directory of Raft.
        path: PathBuf,
        /// What differs.
        what: String,
    },
}

impl NodeIdentity {
    /// Reads who the node is from the directory `dir`, or makes it up at the first start, of `nature`, and
    /// counts the start. Blocks while the disk works.
    pub(super) fn open_as(
        dir: &Path,
        name: &str,
        nature: &dyn Nature,
    ) -> Result<NodeIdentity, IdentityError> {
        files::create_dir(dir).map_err(io_error("create", dir))?;
        let path = dir.join(NODE_FILE);
        let found: Option<NodeFile> = read(&path)?;
        let is_new = found.is_none();
        let file = found.unwrap_or_else(|| NodeFile {
            version: VERSION,
            uid: Ulid(nature.new_uid().0),
            name: String::new(),
            boot: 0,
            membership: None,
            raft: None,
            founding: None,
        });
        let mut identity = NodeIdentity::of(dir, file);
        identity.name = name.to_owned();
        identity.boot = identity.boot.saturating_add(1);
        identity.check_owner(is_new)?;
        identity.remove_earlier_generations()?;
        identity.write()?;
        Ok(identity)
    }

    /// Reads who the node is that was started in `dir` before; none if none was. Nothing is written.
    pub(super) fn of_stopped(dir: &Path) -> Result<Option<NodeIdentity>, IdentityError> {
        let Some(file) = read(&dir.join(NODE_FILE))? else { return Ok(None) };
        let identity = NodeIdentity::of(dir, file);
        identity.check_owner(false)?;
        Ok(Some(identity))
    }

    fn of(dir: &Path, file: NodeFile) -> NodeIdentity {
        let uid = Uid(file.uid.0);
        let is_founder = file.membership.as_ref().is_some_and(|membership| membership.is_founder(uid));
        let raft = file.raft.or(is_founder.then_some(RaftStoreRecord::NEW));
        let NodeFile { name, boot, membership, founding, .. } = file;
        NodeIdentity { dir: dir.to_owned(), uid, name, boot, membership, raft, founding }
    }

    /// The node.
    pub fn uid(&self) -> Uid {
        self.uid
    }

    /// The node in Raft.
    pub fn raft_id(&self) -> RaftId {
        RaftId(self.uid.raft_id().0)
    }

    /// How often it was started, this time included.
    pub fn boot(&self) -> u64 {
        self.boot
    }

    /// The cluster that it is in.
    pub fn membership(&self) -> Option<&Membership> {
        self.membership.as_ref()
    }

    /// True if it takes part in Raft, as far as it knows.
    pub fn is_raft_member(&self) -> bool {
        self.raft.is_some_and(|raft| raft.is_member)
    }

    /// True if it has a store of Raft in this generation of its cluster.
    pub fn has_raft_store(&self) -> bool {
        self.raft.is_some()
    }

    /// True if its store of Raft was started before.
    pub fn is_raft_begun(&self) -> bool {
        self.raft.is_some_and(|raft| raft.is_begun)
    }

    /// The directory of Raft.
    pub fn raft_dir(&self) -> PathBuf {
        raft_dir(&self.dir, self.generation())
    }

    fn generation(&self) -> u64 {
        self.membership.as_ref().map_or(0, |membership| membership.generation)
    }

    /// Remembers the cluster, for ever. A founder may start Raft afterwards. Blocks while the disk
    /// works.
    pub fn enter(&mut self, membership: Membership) -> Result<(), IdentityError> {
        let is_founder = membership.is_founder(self.uid);
        let entered = NodeIdentity { membership: Some(membership), ..self.clone() };
        let entered = if is_founder { entered.with_store()? } else { entered };
        entered.write()?;
        *self = entered;
        Ok(())
    }

    /// The cluster that the node founds, should it found one.
    pub fn founding(&self) -> Option<ClusterId> {
        self.founding
    }

    /// Remembers `cluster` as the one that the node founds, unless it has chosen one before: always the
    /// same, also if the node ends before it is in it. Blocks while the disk works.
    pub fn choose_cluster(&mut self, cluster: ClusterId) -> Result<(), IdentityError> {
        if self.founding.is_some() {
            return Ok(());
        }
        let chosen = NodeIdentity { founding: Some(cluster), ..self.clone() };
        chosen.write()?;
        *self = chosen;
        Ok(())
    }

    /// Goes over to a later generation of its cluster: what the node promised before is forgotten, as
    /// nobody of this generation was promised anything. Blocks while the disk works.
    pub fn adopt(&mut self, generation: u64) -> Result<(), IdentityError> {
        let Some(membership) = &self.membership else { return Ok(()) };
        let membership = Membership { cluster: membership.cluster, generation, founders: Vec::new() };
        let adopted = NodeIdentity { membership: Some(membership), raft: None, ..self.clone() };
        adopted.write()?;
        *self = adopted;
        self.remove_earlier_generations()
    }

    /// Begins a new generation of its cluster, of which this node is the only voter. `build` makes its
    /// store, in a directory that counts only once `node.json` says so. Blocks while the disk works.
    pub fn force_generation<E: From<IdentityError>>(
        &mut self,
        build: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(membership) = &self.membership else { return Ok(()) };
        let (cluster, generation) = (membership.cluster, membership.generation.saturating_add(1));
        let membership = Membership { cluster, generation, founders: Vec::new() };
        let raft = Some(RaftStoreRecord { is_member: true, is_begun: true });
        let forced = NodeIdentity { membership: Some(membership), raft, ..self.clone() };
        let dir = forced.raft_dir();
        let aside = dir.with_extension("tmp");
        remove_dir(&aside)?;
        remove_dir(&dir)?;
        forced.write_owner(&aside)?;
        build(&aside)?;
        let renamed = fs::rename(&aside, &dir).and_then(|()| files::sync_dir(&self.dir));
        renamed.map_err(io_error("rename", &aside))?;
        forced.write()?;
        *self = forced;
        Ok(())
    }

    /// Remembers that the node takes part in Raft; it may start it afterwards. Blocks while the disk
    /// works.
    pub fn begin_raft(&mut self) -> Result<(), IdentityError> {
        let begun = self.clone().with_store()?;
        begun.write()?;
        *self = begun;
        Ok(())
    }

    /// Remembers that Raft was started: it may have promised something from now on. Blocks while the disk
    /// works.
    pub fn raft_has_begun(&mut self) -> Result<(), IdentityError> {
        let raft = self.raft.map(|raft| RaftStoreRecord { is_begun: true, ..raft });
        let begun = NodeIdentity { raft, ..self.clone() };
        begun.write()?;
        *self = begun;
        Ok(())
    }

    /// Remembers that the node takes no part in Raft any more. Its store stays. Blocks while the disk
    /// works.
    pub fn end_raft(&mut self) -> Result<(), IdentityError> {
        let raft = self.raft.map(|raft| RaftStoreRecord { is_member: false, ..raft });
        let ended = NodeIdentity { raft, ..self.clone() };
        ended.write()?;
        *self = ended;
        Ok(())
    }

    /// The same node with a store that is empty or its own.
    fn with_store(self) -> Result<NodeIdentity, IdentityError> {
        if self.raft.is_none() {
            let dir = self.raft_dir();
            remove_dir(&dir)?;
            self.write_owner(&dir)?;
        }
        let raft = self.raft.unwrap_or(RaftStoreRecord::NEW);
        Ok(NodeIdentity { raft: Some(RaftStoreRecord { is_member: true, ..raft }), ..self })
    }

    /// Writes into a directory of Raft whose it is; the directory is created.
    fn write_owner(&self, dir: &Path) -> Result<(), IdentityError> {
        files::create_dir(dir).map_err(io_error("create", dir))?;
        let Some(membership) = &self.membership else { return Ok(()) };
        let (uid, cluster, generation) = (Ulid(self.uid.0), membership.cluster, membership.generation);
        write(dir, OWNER_FILE, &OwnerFile { version: VERSION, uid, cluster, generation })
    }

    /// Removes what earlier generations of the cluster left behind.
    fn remove_earlier_generations(&self) -> Result<(), IdentityError> {
        let failed = |error| io_error("list", &self.dir)(error);
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if generation_of(&name.to_string_lossy()).is_some_and(|found| found < self.generation()) {
                remove_dir(&self.dir.join(name))?;
            }
        }
        Ok(())
    }

    fn write(&self) -> Result<(), IdentityError> {
        let file = NodeFile {
            version: VERSION,
            uid: Ulid(self.uid.0),
            name: self.name.clone(),
            boot: self.boot,
            membership: self.membership.clone(),
            raft: self.raft,
            founding: self.founding,
        };
        write(&self.dir, NODE_FILE, &file)
    }

    fn check_owner(&self, is_new: bool) -> Result<(), IdentityError> {
        let path = self.raft_dir();
        let owner: Option<OwnerFile> = read(&path.join(OWNER_FILE))?;
        let Some(owner) = owner else {
            return if self.has_raft_store() { Err(IdentityError::RaftMissing { path }) } else { Ok(()) };
        };
        let other = |what: String| Err(IdentityError::RaftOfAnother { path: path.clone(), what });
        if is_new {
            return other(format!("{NODE_FILE} is missing, and the directory is that of node {}", owner.uid));
        }
        if owner.uid.0 != self.uid.0 {
            return other(format!(
                "this is node {}, and the directory that of {}",
                Ulid(self.uid.0),
                owner.uid
            ));
        }
        match &self.membership {
            Some(membership) if membership.cluster != owner.cluster => {
                other("they are of different clusters".to_owned())
            }
            Some(membership) if membership.generation != owner.generation => {
                other(format!("its generation is {}, not {}", owner.generation, membership.generation))
            }
            _ => Ok(()),
        }
    }
}

fn raft_dir(dir: &Path, generation: u64) -> PathBuf {
    dir.join(if generation == 0 { "raft".to_owned() } else { format!("raft-{generation}") })
}

/// The generation that a directory of Raft is of, by its name.
fn generation_of(name: &str) -> Option<u64> {
    if name == "raft" { Some(0) } else { name.strip_prefix("raft-")?.parse().ok() }
}

fn remove_dir(dir: &Path) -> Result<(), IdentityError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", dir)(error)),
        _ => Ok(()),
    }
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    move |source| IdentityError::Io { doing, path: path.to_owned(), source }
}

fn read<T: for<'de> Deserialize<'de> + Versioned>(path: &Path) -> Result<Option<T>, IdentityError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("read", path)(error)),
    };
    let broken = |what: String| IdentityError::Broken { path: path.to_owned(), what };
    let file: T = serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()))?;
    match file.version() {
        VERSION => Ok(Some(file)),
        version => Err(broken(format!("version {version} is not known"))),
    }
}

fn write(dir: &Path, name: &str, file: &impl Serialize) -> Result<(), IdentityError> {
    let path = dir.join(name);
    let bytes = serde_json::to_vec_pretty(file).map_err(|error| io_error("encode", &path)(error.into()))?;
    files::write_atomically(dir, name, &[&bytes, b"\n"]).map_err(io_error("write", &path))
}

trait Versioned {
    fn version(&self) -> u32;
}

impl Versioned for NodeFile {
    fn version(&self) -> u32 {
        self.version
    }
}

impl Versioned for OwnerFile {
    fn version(&self) -> u32 {
        self.version
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::surroundings::RealNature;

    fn open(dir: &Path, name: &str) -> Result<NodeIdentity, IdentityError> {
        NodeIdentity::open_as(dir, name, &RealNature)
    }

    fn voter_of(identity: &NodeIdentity, cluster: u8) -> Membership {
        let founder = Founder { uid: identity.uid(), address: "a:1".to_owned() };
        Membership { cluster: ClusterId([cluster; 16]), generation: 0, founders: vec![founder] }
    }

    #[test]
    fn a_node_stays_who_it_is_and_counts_its_starts() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = open(dir.path(), "a").unwrap();
        assert_eq!((first.boot(), first.membership(), first.is_raft_member()), (1, None, false));
        assert_eq!(first.raft_id().0, first.uid().0 as u64);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(open(other.path(), "a").unwrap().uid(), first.uid());

        let membership = voter_of(&first, 1);
        first.enter(membership.clone()).unwrap();
        let second = open(dir.path(), "b").unwrap();
        assert_eq!((second.uid(), second.boot(), second.name.as_str()), (first.uid(), 2, "b"));
        assert_eq!((second.membership(), second.is_raft_member()), (Some(&membership), true));
    }

    #[test]
    fn node_and_raft_directory_must_belong_together() {
        let voter = || {
            let dir = tempfile::tempdir().unwrap();
            let mut identity = open(dir.path(), "a").unwrap();
            let membership = voter_of(&identity, 1);
            identity.enter(membership).unwrap();
            dir
        };
        let check = |change: fn(&Path, &Path), expected: &str| {
            let (dir, other) = (voter(), voter());
            change(dir.path(), other.path());
            let found = open(dir.path(), "a").err().map(|error| error.to_string());
            let found = found.unwrap_or_default();
            assert!(found.contains(expected) && found.is_empty() == expected.is_empty(), "{found}");
        };
        check(|_, _| (), "");
        check(|dir, _| fs::remove_dir_all(dir.join("raft")).unwrap(), "is or was a voter");
        check(|dir, _| fs::remove_file(dir.join(NODE_FILE)).unwrap(), "node.json is missing");
        check(
            |dir, other| assert!(fs::copy(other.join(NODE_FILE), dir.join(NODE_FILE)).unwrap() > 0),
            "the directory that of",
        );
        check(|dir, _| fs::write(dir.join(NODE_FILE), "{").unwrap(), "is not understood");
        let later =
            r#"{"version":2,"uid":"01ARZ3NDEKTSV4RRFFQ69G5FAV","cluster":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}"#;
        let dir = voter();
        fs::write(dir.path().join("raft").join(OWNER_FILE), later).unwrap();
        let error = open(dir.path(), "a").unwrap_err().to_string();
        assert!(error.contains("version 2 is not known"), "{error}");
    }

    #[test]
    fn a_node_that_ended_before_it_was_a_voter_begins_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut identity = open(dir.path(), "a").unwrap();
        let before = fs::read(dir.path().join(NODE_FILE)).unwrap();
        let membership = voter_of(&identity, 1);
        identity.enter(membership).unwrap();
        fs::write(dir.path().join(NODE_FILE), before).unwrap();
        let mut identity = open(dir.path(), "a").unwrap();
        assert!(!identity.is_raft_member());
        let membership = voter_of(&identity, 2);
        identity.enter(membership).unwrap();
        assert!(open(dir.path(), "a").unwrap().is_raft_member());
    }
    #[test]
    fn a_store_is_kept_when_the_node_takes_no_part() {
        let dir = tempfile::tempdir().unwrap();
        let again = || open(dir.path(), "a").unwrap();
        let mut identity = again();
        let membership = Membership { founders: Vec::new(), ..voter_of(&identity, 1) };
        identity.enter(membership).unwrap();
        assert!(!again().has_raft_store());
        // A directory that is not known was never used.
        let stray = identity.raft_dir().join("stray");
        fs::create_dir_all(&stray).unwrap();
        identity.begin_raft().unwrap();
        assert!(again().is_raft_member() && !stray.exists());
        let kept = identity.raft_dir().join("kept");
        fs::create_dir_all(&kept).unwrap();
        identity.end_raft().unwrap();
        let mut identity = again();
        assert!(!identity.is_raft_member() && identity.has_raft_store());
        identity.begin_raft().unwrap();
        assert!(again().is_raft_member() && kept.exists());
        fs::remove_dir_all(dir.path().join("raft")).unwrap();
        let error = open(dir.path(), "a").unwrap_err().to_string();
        assert!(error.contains("is or was a voter"), "{error}");
    }
}
