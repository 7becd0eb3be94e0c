//! The power is cut under a writer. What it was told is durable is there each time.
//!
//! The store lies on an ext4 image. The writer is stopped, the image is copied as it is, without
//! what only the kernel's memory holds, and the copy is mounted and read: this is what a machine
//! without power would find. Needs root and loop devices, and fails without.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::{
    proposer,
    writer::{Acked, Numbers, Writer},
};

const STORE_CUTS: u64 = 25;
const NODE_CUTS: u64 = 12;
const IMAGE_BYTES: u64 = 64 << 20;

/// A mounted image; unmounted when dropped, also by a panic.
struct Mounted {
    at: PathBuf,
}

impl Mounted {
    fn new(image: &Path, at: &Path) -> Mounted {
        fs::create_dir_all(at).unwrap();
        // Nothing may be written behind the writer's back while the image is copied.
        let options = "loop,commit=600";
        run(Command::new("mount").args(["-o", options]).arg(image).arg(at));
        Mounted { at: at.to_owned() }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmount = |lazy: &[&str]| Command::new("umount").args(lazy).arg(&self.at).status();
        if !unmount(&[]).is_ok_and(|status| status.success()) {
            let _ = unmount(&["-l"]);
        }
    }
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output();
    let failed = match &output {
        Ok(output) if output.status.success() => return,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    panic!(
        "{command:?}: {failed}\nthis test cuts the power of an ext4 image: it needs root, loop devices and e2fsprogs"
    );
}

/// Stops all threads of the writer, copies the image, and lets it go on.
fn copy_stopped(writer: &Writer, image: &Path, copy: &Path) {
    let pid = Pid::from_child(&writer.child);
    kill_process(pid, Signal::STOP).unwrap();
    let (_, status) = waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().unwrap();
    assert!(status.stopped(), "{status:?}");
    fs::copy(image, copy).unwrap();
    kill_process(pid, Signal::CONT).unwrap();
}

/// Cuts the power under a writer again and again; `start` starts it in a directory, and `check` is
/// given what a copy of it holds, and what was acknowledged.
fn cut_power(seed: u64, cuts: u64, start: impl Fn(&Path) -> Writer, check: impl Fn(&Path, &Acked)) {
    let mut numbers = Numbers(seed);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let image = dir.path().join("image");
    File::create(&image).unwrap().set_len(IMAGE_BYTES).unwrap();
    run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
    let mounted = Mounted::new(&image, &dir.path().join("mounted"));
    let path = |mounted: &Mounted| mounted.at.join("raft").join("log");
    let mut writer = start(&path(&mounted));
    let (mut acknowledged, mut last) = (0, None);
    for cut in 0..cuts {
        if cut % 5 == 4 {
            acknowledged += writer.kill().count;
            writer = start(&path(&mounted));
        }
        let count = writer.acked().count + numbers.below(1..60);
        writer.wait_until(|acked| acked.count >= count);
        let copy = dir.path().join("copy");
        // All that was told before the writer stopped; it may be told a little more meanwhile.
        let acked = writer.acked();
        copy_stopped(&writer, &image, &copy);
        let copy_mounted = Mounted::new(&copy, &dir.path().join("copy-mounted"));
        check(&path(&copy_mounted), &acked);
        assert!(acked.last > last, "the writer stands still");
        last = acked.last;
    }
    acknowledged += writer.kill().count;
    println!("{cuts} cuts, {acknowledged} writes acknowledged");
}

#[test]
fn cut_power_loses_nothing() {
    cut_power(0x5eed_0002, STORE_CUTS, Writer::start, |path, acked| acked.check(path));
}

/// The same with all of a node: log, snapshots and purges.
#[test]
fn cut_power_loses_no_answered_command() {
    let check = |path: &Path, acked: &Acked| {
        let commands = proposer::commands_in(path);
        assert!(Some(commands) >= acked.last, "{commands} commands are there, acknowledged: {acked:?}");
    };
    cut_power(0x5eed_0004, NODE_CUTS, |path| Writer::start_test("proposer::proposes", path), check);
}
