//! Regenerates the checked-in protobuf code of `weir-proto`.
//!
//! `cargo run -p weir-proto-codegen` reads `proto/proto/**/*.proto` and writes
//! `proto/src/generated/`; with `-- --check` it writes nothing and fails if a
//! file there differs. The code is checked in, and this is a crate of its own,
//! because the compiler of `.proto` files and the code generators take far
//! longer to build than all that uses the result. No `protoc` is needed.

use std::path::Path;

use anyhow::bail;

mod generate;

/// What this run is to do.
#[derive(Debug, PartialEq, Eq)]
enum Mode {
    /// Write the generated files.
    Write,
    /// Compare them with what would be written.
    Check,
}

fn main() -> anyhow::Result<()> {
    let mode = mode(std::env::args().skip(1))?;
    let root = proto_root();
    let files = generate::generate(&root.join("proto"))?;
    let out = root.join("src/generated");
    match mode {
        Mode::Write => {
            generate::write(&files, &out)?;
            println!("{} files are current in {}", files.len(), out.display());
        }
        Mode::Check => generate::check(&files, &out)?,
    }
    Ok(())
}

/// The folder of `weir-proto`, in the checkout this program was built from.
fn proto_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the codegen crate lies inside proto/")
}

fn mode(mut args: impl Iterator<Item = String>) -> anyhow::Result<Mode> {
    let mode = match args.next().as_deref() {
        None => Mode::Write,
        Some("--check") => Mode::Check,
        Some(other) => bail!("unknown argument {other:?}; the only one is --check"),
    };
    match args.next() {
        None => Ok(mode),
        Some(extra) => bail!("one argument too many: {extra:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checked_in_code_is_current() {
        let root = proto_root();
        let files = generate::generate(&root.join("proto")).unwrap();
        generate::check(&files, &root.join("src/generated")).unwrap();
    }

    #[test]
    fn arguments() {
        let parse = |args: &[&str]| mode(args.iter().map(|arg| arg.to_string()));
        assert_eq!(parse(&[]).unwrap(), Mode::Write);
        assert_eq!(parse(&["--check"]).unwrap(), Mode::Check);
        assert_eq!(
            parse(&["-x"]).unwrap_err().to_string(),
            "unknown argument \"-x\"; the only one is --check"
        );
        assert!(parse(&["--check", "more"]).is_err());
    }
}
