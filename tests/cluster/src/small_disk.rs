//! A real file system of a limited size, made and mounted by the test: ext4 on an image in a file.
//! Where no loop device can be had, tmpfs, which is as full when it is full but cannot lose power.
//! Where nothing can be mounted, the case is skipped and says so.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use rustix::fs::OFlags;

use crate::suite::skip;

/// `EXT4_IOC_SHUTDOWN`: from now on the file system answers everything with EIO and writes nothing
/// any more.
const SHUTDOWN: rustix::ioctl::Opcode = rustix::ioctl::opcode::read::<u32>(b'X', 125);
/// Not even its own journal.
const WITHOUT_FLUSH: u32 = 2;

/// What is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// On an image: can lose power.
    Ext4,
    /// In memory.
    Tmpfs,
}

/// A mounted disk; unmounted when dropped. Its image stays until its directory goes.
#[derive(Debug)]
pub struct SmallDisk {
    at: PathBuf,
    image: PathBuf,
    kind: Kind,
}

impl SmallDisk {
    /// Makes a disk of `mebibytes` and mounts it at `at`, which is made; `image` is its file.
    ///
    /// # Errors
    /// The case is skipped where nothing can be mounted.
    pub fn mount(at: &Path, image: &Path, mebibytes: u64) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return skip("mounting a disk of limited size needs root");
        }
        fs::create_dir_all(at)?;
        File::create(image)?.set_len(mebibytes << 20)?;
        let mut disk = Self {
            at: at.to_owned(),
            image: image.to_owned(),
            kind: Kind::Ext4,
        };
        // No part is kept for root: what is free is free for the broker.
        let mut make = Command::new("mkfs.ext4");
        make.args(["-q", "-F", "-m", "0"]).arg(image);
        if runs(&mut make) && disk.mount_again().is_ok() {
            return Ok(disk);
        }
        disk.kind = Kind::Tmpfs;
        let mut tmpfs = Command::new("mount");
        let size = format!("size={mebibytes}m");
        tmpfs.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at);
        if !runs(&mut tmpfs) {
            return skip("neither an ext4 image nor a tmpfs can be mounted here");
        }
        Ok(disk)
    }

    /// What it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Free bytes, as an ordinary process sees them.
    ///
    /// # Errors
    /// The system says no.
    pub fn free_bytes(&self) -> Result<u64> {
        let found = rustix::fs::statvfs(&self.at)?;
        Ok(found.f_bavail * found.f_frsize)
    }

    /// Fills it up to the last block with a file of somebody else's.
    ///
    /// # Errors
    /// Something else than a lack of room.
    pub fn fill(&self) -> Result<()> {
        let file = File::create(self.filler())?;
        let mut bytes = self.free_bytes()?;
        let mut at = 0;
        // Metadata takes room, too: in smaller and smaller steps.
        while bytes >= 1 << 12 {
            let flags = rustix::fs::FallocateFlags::empty();
            match rustix::fs::fallocate(&file, flags, at, bytes) {
                Ok(()) => at += bytes,
                Err(rustix::io::Errno::NOSPC) => bytes /= 2,
                Err(error) => return Err(error.into()),
            }
            bytes = bytes.min(self.free_bytes()?);
        }
        Ok(())
    }

    /// Removes that file.
    ///
    /// # Errors
    /// There is none.
    pub fn free(&self) -> Result<()> {
        Ok(fs::remove_file(self.filler())?)
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler-of-the-test")
    }

    /// Takes the power away: what the file system has not written to its device is gone, as are the
    /// kernel's cached pages once it is mounted again.
    ///
    /// # Errors
    /// Not on a tmpfs, or the kernel refuses.
    pub fn cut_power(&self) -> Result<()> {
        if self.kind == Kind::Tmpfs {
            return skip("a tmpfs cannot lose power, and no ext4 image can be mounted here");
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let top = rustix::fs::open(&self.at, flags, rustix::fs::Mode::empty())?;
        shut_down(&top).context("the file system cannot be shut down")
    }

    /// Mounts it again, after its own recovery.
    ///
    /// # Errors
    /// It is in use, or cannot be mounted.
    pub fn remount(&self) -> Result<()> {
        if !runs(Command::new("umount").arg(&self.at)) {
            bail!("{} is in use", self.at.display());
        }
        self.mount_again()
    }

    fn mount_again(&self) -> Result<()> {
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop"]).arg(&self.image).arg(&self.at);
        if !runs(&mut mount) {
            bail!("{} cannot be mounted", self.image.display());
        }
        Ok(())
    }
}

#[allow(unsafe_code, reason = "an ioctl has no safe form")]
fn shut_down(top: &impl std::os::fd::AsFd) -> rustix::io::Result<()> {
    // SAFETY: the call reads one number of 32 bits, which it is given.
    unsafe {
        let setter = rustix::ioctl::Setter::<SHUTDOWN, u32>::new(WITHOUT_FLUSH);
        rustix::ioctl::ioctl(top, setter)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Whatever still has a file open there goes with the case.
        runs(Command::new("umount").arg("--lazy").arg(&self.at));
    }
}

fn runs(command: &mut Command) -> bool {
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
