//! From `.proto` files to the contents of `src/generated/`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use prost::Message as _;

/// The files to compile; what they import comes along.
const PROTO_FILES: [&str; 6] = [
    "prometheus/remote_write.proto",
    "thanos/labels.proto",
    "thanos/store.proto",
    "thanos/info.proto",
    "weir/replication.proto",
    "weir/cluster.proto",
];

/// Name of the encoded `FileDescriptorSet`, for gRPC reflection.
const DESCRIPTORS: &str = "descriptors.bin";

/// Generated files: name inside `src/generated/` and content.
pub type Files = BTreeMap<OsString, Vec<u8>>;

/// Compiles the files below `include` and generates messages, clients and servers.
///
/// # Errors
/// A `.proto` file that does not compile, or trouble with the temporary folder the
/// generator writes to.
pub fn generate(include: &Path) -> anyhow::Result<Files> {
    let mut descriptors = protox::compile(PROTO_FILES, [include]).context("compiling the .proto files")?;

    // The generator can only write files, so it gets a folder that is thrown away.
    let scratch = tempfile::tempdir().context("creating a temporary folder")?;
    tonic_prost_build::configure()
        .bytes(".thanos.Chunk.data")
        .bytes(".weir.replication.ReplicateRequest.frame")
        .emit_rerun_if_changed(false)
        .out_dir(scratch.path())
        .compile_fds(descriptors.clone())
        .context("generating code")?;
    let mut files = read_folder(scratch.path())?;
    ensure!(!files.is_empty(), "the generator wrote nothing");

    // Comments and positions: the generator wants them, reflection does not.
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    files.insert(DESCRIPTORS.into(), descriptors.encode_to_vec());
    Ok(files)
}

/// Makes the folder `out` hold `files` and nothing else. Files that are right are not touched, so
/// that nothing is compiled anew without need.
///
/// # Errors
/// I/O errors, with the path.
pub fn write(files: &Files, out: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(out).with_context(|| format!("creating {}", out.display()))?;
    let present = read_folder(out)?;
    for name in present.keys().filter(|name| !files.contains_key(*name)) {
        let path = out.join(name);
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
    }
    for (name, content) in files {
        if present.get(name) != Some(content) {
            let path = out.join(name);
            fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        }
    }
    Ok(())
}

/// Compares the folder `out` with `files`.
///
/// # Errors
/// All files that are missing, different or too many, and what to do; or I/O errors.
pub fn check(files: &Files, out: &Path) -> anyhow::Result<()> {
    let present = read_folder(out)?;
    let mut faults = Vec::new();
    for (name, content) in files {
        match present.get(name) {
            None => faults.push(format!("{} is missing", name.display())),
            Some(found) if found != content => faults.push(format!("{} differs", name.display())),
            Some(_) => {}
        }
    }
    for name in present.keys().filter(|name| !files.contains_key(*name)) {
        faults.push(format!("{} is not generated any more", name.display()));
    }
    if !faults.is_empty() {
        bail!(
            "{} does not fit the .proto files: {}; run `cargo run -p weir-proto-codegen` and commit the result",
            out.display(),
            faults.join(", ")
        );
    }
    Ok(())
}

fn read_folder(folder: &Path) -> anyhow::Result<Files> {
    let context = || format!("reading {}", folder.display());
    let mut files = Files::new();
    for entry in fs::read_dir(folder).with_context(context)? {
        let entry = entry.with_context(context)?;
        files.insert(entry.file_name(), fs::read(entry.path()).with_context(context)?);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(content: &[(&str, &str)]) -> Files {
        content.iter().map(|(name, text)| (OsString::from(name), text.as_bytes().to_vec())).collect()
    }

    #[test]
    fn check_names_every_fault() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = files(&[("a.rs", "a"), ("b.rs", "b"), ("c.rs", "c")]);
        write(&files(&[("a.rs", "a"), ("b.rs", "old"), ("d.rs", "d")]), folder.path()).unwrap();
        let text = check(&wanted, folder.path()).unwrap_err().to_string();
        assert!(
            text.contains(": b.rs differs, c.rs is missing, d.rs is not generated any more; run `cargo run"),
            "{text}"
        );

        write(&wanted, folder.path()).unwrap();
        check(&wanted, folder.path()).unwrap();
        assert_eq!(read_folder(folder.path()).unwrap(), wanted);
    }

    #[test]
    fn a_broken_proto_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("{:#}", generate(folder.path()).unwrap_err());
        assert!(text.contains("prometheus/remote_write.proto"), "{text}");
    }
}
