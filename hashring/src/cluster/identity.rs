//! Who a node is: the file `node.json` in its data directory.
//!
//! The uid is made at the first start and never again: an empty disk is another node. What the node
//! has promised in Raft belongs to that uid, so the directory of Raft says whose it is, and the two
//! are refused when they do not belong together. Order of writing: the owner in the directory of
//! Raft, then `node.json` that says the node is a voter, then Raft itself; so a voter without its
//! directory is damage, and a directory of a node that is no voter yet was never used.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::surroundings::{Nature, RealNature};
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

/// What a node knows of itself across restarts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    dir: PathBuf,
    uid: Uid,
    name: String,
    boot: u64,
    membership: Option<Membership>,
}

/// The file.
#[derive(Serialize, Deserialize)]
struct NodeFile {
    version: u32,
    uid: Ulid,
    name: String,
    boot: u64,
    membership: Option<Membership>,
}

/// What the directory of Raft says.
#[derive(Serialize, Deserialize)]
struct OwnerFile {
    version: u32,
    uid: Ulid,
    cluster: ClusterId,
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
    /// Vote and log of a voter are gone: it must not vote again under its old identity.
    #[error(
        "{path} is missing, though the node is a voter of its cluster: to come back as another node, remove {NODE_FILE} beside it"
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
    /// Reads who the node is from the directory `dir`, or makes it up at the first start, and counts
    /// the start. Blocks while the disk works.
    pub fn open(dir: &Path, name: &str) -> Result<NodeIdentity, IdentityError> {
        let nature: &dyn Nature = &RealNature;
        NodeIdentity::open_as(dir, name, nature)
    }

    /// [`NodeIdentity::open`] with what a new identity is made of.
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
        });
        let identity = NodeIdentity {
            dir: dir.to_owned(),
            uid: Uid(file.uid.0),
            name: name.to_owned(),
            boot: file.boot.saturating_add(1),
            membership: file.membership,
        };
        identity.check_owner(is_new)?;
        identity.write()?;
        Ok(identity)
    }

    /// The node.
    pub fn uid(&self) -> Uid {
        self.uid
    }

    /// The node in Raft.
    pub fn raft_id(&self) -> RaftId {
        RaftId(self.uid.raft_id().0)
    }

    /// Its name for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How often it was started, this time included.
    pub fn boot(&self) -> u64 {
        self.boot
    }

    /// The cluster that it is in.
    pub fn membership(&self) -> Option<&Membership> {
        self.membership.as_ref()
    }

    /// True if it is among the voters of its cluster.
    pub fn is_voter(&self) -> bool {
        self.membership
            .as_ref()
            .is_some_and(|membership| membership.founders.iter().any(|founder| founder.uid == self.uid))
    }

    /// The directory of Raft.
    pub fn raft_dir(&self) -> PathBuf {
        self.dir.join("raft")
    }

    /// Remembers the cluster, for ever. A voter may start Raft afterwards. Blocks while the disk works.
    pub fn enter(&mut self, membership: Membership) -> Result<(), IdentityError> {
        let entered = NodeIdentity { membership: Some(membership.clone()), ..self.clone() };
        if entered.is_voter() {
            let dir = self.raft_dir();
            files::create_dir(&dir).map_err(io_error("create", &dir))?;
            let owner = OwnerFile { version: VERSION, uid: Ulid(self.uid.0), cluster: membership.cluster };
            write(&dir, OWNER_FILE, &owner)?;
        }
        entered.write()?;
        *self = entered;
        Ok(())
    }

    fn write(&self) -> Result<(), IdentityError> {
        let file = NodeFile {
            version: VERSION,
            uid: Ulid(self.uid.0),
            name: self.name.clone(),
            boot: self.boot,
            membership: self.membership.clone(),
        };
        write(&self.dir, NODE_FILE, &file)
    }

    fn check_owner(&self, is_new: bool) -> Result<(), IdentityError> {
        let path = self.raft_dir();
        let owner: Option<OwnerFile> = read(&path.join(OWNER_FILE))?;
        let Some(owner) = owner else {
            return if self.is_voter() { Err(IdentityError::RaftMissing { path }) } else { Ok(()) };
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
            _ => Ok(()),
        }
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

    fn voter_of(identity: &NodeIdentity, cluster: u8) -> Membership {
        let founder = Founder { uid: identity.uid(), address: "a:1".to_owned() };
        Membership { cluster: ClusterId([cluster; 16]), generation: 0, founders: vec![founder] }
    }

    #[test]
    fn a_node_stays_who_it_is_and_counts_its_starts() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = NodeIdentity::open(dir.path(), "a").unwrap();
        assert_eq!((first.boot(), first.membership(), first.is_voter()), (1, None, false));
        assert_eq!(first.raft_id().0, first.uid().0 as u64);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(NodeIdentity::open(other.path(), "a").unwrap().uid(), first.uid());

        let membership = voter_of(&first, 1);
        first.enter(membership.clone()).unwrap();
        let second = NodeIdentity::open(dir.path(), "b").unwrap();
        assert_eq!((second.uid(), second.boot(), second.name()), (first.uid(), 2, "b"));
        assert_eq!((second.membership(), second.is_voter()), (Some(&membership), true));
    }

    #[test]
    fn node_and_raft_directory_must_belong_together() {
        let voter = || {
            let dir = tempfile::tempdir().unwrap();
            let mut identity = NodeIdentity::open(dir.path(), "a").unwrap();
            let membership = voter_of(&identity, 1);
            identity.enter(membership).unwrap();
            dir
        };
        let check = |change: fn(&Path, &Path), expected: &str| {
            let (dir, other) = (voter(), voter());
            change(dir.path(), other.path());
            let found = NodeIdentity::open(dir.path(), "a").err().map(|error| error.to_string());
            let found = found.unwrap_or_default();
            assert!(found.contains(expected) && found.is_empty() == expected.is_empty(), "{found}");
        };
        check(|_, _| (), "");
        check(|dir, _| fs::remove_dir_all(dir.join("raft")).unwrap(), "though the node is a voter");
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
        let error = NodeIdentity::open(dir.path(), "a").unwrap_err().to_string();
        assert!(error.contains("version 2 is not known"), "{error}");
    }

    #[test]
    fn a_node_that_ended_before_it_was_a_voter_begins_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut identity = NodeIdentity::open(dir.path(), "a").unwrap();
        let before = fs::read(dir.path().join(NODE_FILE)).unwrap();
        let membership = voter_of(&identity, 1);
        identity.enter(membership).unwrap();
        fs::write(dir.path().join(NODE_FILE), before).unwrap();
        let mut identity = NodeIdentity::open(dir.path(), "a").unwrap();
        assert!(!identity.is_voter());
        let membership = voter_of(&identity, 2);
        identity.enter(membership).unwrap();
        assert!(NodeIdentity::open(dir.path(), "a").unwrap().is_voter());
    }
}
