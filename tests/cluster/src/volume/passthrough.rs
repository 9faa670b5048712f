//! The file system behind a volume: inodes are paths, handles are open files, and everything else
//! is asked of the directory beside it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::{Faults, Operation};

/// The kernel asks each time: names and sizes change behind its back only here.
const TTL: Duration = Duration::ZERO;
const BLOCK_BYTES: u32 = 4096;

#[derive(Default)]
struct State {
    /// The path of each inode, below the top.
    paths: BTreeMap<u64, PathBuf>,
    inodes: BTreeMap<PathBuf, u64>,
    last_inode: u64,
    /// The path is the one it was opened under.
    files: BTreeMap<u64, (PathBuf, Arc<File>)>,
    last_file: u64,
}

pub(crate) struct Passthrough {
    top: PathBuf,
    faults: Faults,
    state: Mutex<State>,
}

impl Passthrough {
    pub(crate) fn new(top: PathBuf, faults: Faults) -> Self {
        let mut state = State {
            last_inode: INodeNo::ROOT.0,
            ..State::default()
        };
        state.paths.insert(INodeNo::ROOT.0, PathBuf::new());
        state.inodes.insert(PathBuf::new(), INodeNo::ROOT.0);
        Self {
            top,
            faults,
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it is below the top.
    fn path(&self, inode: INodeNo) -> io::Result<PathBuf> {
        let found = self.state().paths.get(&inode.0).cloned();
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> io::Result<PathBuf> {
        Ok(self.path(parent)?.join(name))
    }

    fn real(&self, path: &Path) -> PathBuf {
        self.top.join(path)
    }

    fn inode(&self, path: &Path) -> INodeNo {
        let mut state = self.state();
        if let Some(inode) = state.inodes.get(path) {
            return INodeNo(*inode);
        }
        state.last_inode += 1;
        let inode = state.last_inode;
        state.inodes.insert(path.into(), inode);
        state.paths.insert(inode, path.into());
        INodeNo(inode)
    }

    fn attributes(&self, path: &Path) -> io::Result<FileAttr> {
        let found = fs::symlink_metadata(self.real(path))?;
        Ok(attributes(self.inode(path), &found))
    }

    fn keep(&self, path: PathBuf, file: File) -> FileHandle {
        let mut state = self.state();
        state.last_file += 1;
        let handle = state.last_file;
        state.files.insert(handle, (path, Arc::new(file)));
        FileHandle(handle)
    }

    /// An open file, unless this operation on it fails now.
    fn file(&self, handle: FileHandle, operation: Option<Operation>) -> io::Result<Arc<File>> {
        let found = self.state().files.get(&handle.0).cloned();
        let (path, file) = found.ok_or(io::ErrorKind::NotFound)?;
        if operation.is_some_and(|operation| self.faults.strikes(operation, &path)) {
            return Err(rustix::io::Errno::IO.into());
        }
        Ok(file)
    }

    /// Whether a file may reach so far.
    fn check_room(&self, file: &File, end: u64) -> io::Result<()> {
        if self.faults.is_full() && end > file.metadata()?.len() {
            return Err(rustix::io::Errno::NOSPC.into());
        }
        Ok(())
    }

    fn forget_name(&self, path: &Path) {
        let mut state = self.state();
        if let Some(inode) = state.inodes.remove(path) {
            state.paths.remove(&inode);
        }
    }

    fn make_directory(&self, parent: INodeNo, name: &OsStr) -> io::Result<FileAttr> {
        let path = self.child(parent, name)?;
        fs::create_dir(self.real(&path))?;
        self.attributes(&path)
    }

    fn remove_name(&self, parent: INodeNo, name: &OsStr) -> io::Result<()> {
        let path = self.child(parent, name)?;
        let real = self.real(&path);
        if fs::symlink_metadata(&real)?.is_dir() {
            fs::remove_dir(real)?;
        } else {
            fs::remove_file(real)?;
        }
        self.forget_name(&path);
        Ok(())
    }

    fn move_name(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(self.real(from), self.real(to))?;
        self.forget_name(to);
        let mut state = self.state();
        if let Some(inode) = state.inodes.remove(from) {
            state.inodes.insert(to.into(), inode);
            state.paths.insert(inode, to.into());
        }
        for (path, _) in state.files.values_mut().filter(|(path, _)| path == from) {
            *path = to.into();
        }
        Ok(())
    }

    fn resize(&self, inode: INodeNo, bytes: Option<u64>) -> io::Result<FileAttr> {
        let path = self.path(inode)?;
        if let Some(bytes) = bytes {
            let file = OpenOptions::new().write(true).open(self.real(&path))?;
            file.set_len(bytes)?;
        }
        self.attributes(&path)
    }

    fn list(&self, inode: INodeNo) -> io::Result<Vec<(INodeNo, FileType, std::ffi::OsString)>> {
        let path = self.path(inode)?;
        let mut names = vec![
            (inode, FileType::Directory, ".".into()),
            (INodeNo::ROOT, FileType::Directory, "..".into()),
        ];
        for entry in fs::read_dir(self.real(&path))? {
            let entry = entry?;
            let kind = kind(&entry.metadata()?);
            let child = self.inode(&path.join(entry.file_name()));
            names.push((child, kind, entry.file_name()));
        }
        Ok(names)
    }
}

fn kind(found: &Metadata) -> FileType {
    if found.is_dir() {
        FileType::Directory
    } else {
        FileType::RegularFile
    }
}

fn attributes(ino: INodeNo, found: &Metadata) -> FileAttr {
    let time = |seconds: i64| UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap_or(0));
    FileAttr {
        ino,
        size: found.size(),
        blocks: found.blocks(),
        atime: time(found.atime()),
        mtime: time(found.mtime()),
        ctime: time(found.ctime()),
        crtime: UNIX_EPOCH,
        kind: kind(found),
        perm: u16::try_from(found.mode() & 0o7777).unwrap_or(0o600),
        nlink: u32::try_from(found.nlink()).unwrap_or(u32::MAX),
        uid: found.uid(),
        gid: found.gid(),
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

/// Answers with an error, or does what is to be done with the value.
macro_rules! answer {
    ($reply:ident, $result:expr, $value:pat => $good:expr) => {
        match $result {
            Ok($value) => $good,
            Err(error) => $reply.error(Errno::from(error)),
        }
    };
}

impl Filesystem for Passthrough {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self
            .child(parent, name)
            .and_then(|path| self.attributes(&path));
        answer!(reply, found, found => reply.entry(&TTL, &found, Generation(0)));
    }

    fn getattr(&self, _: &Request, inode: INodeNo, file: Option<FileHandle>, reply: ReplyAttr) {
        let found = match file.and_then(|file| self.file(file, None).ok()) {
            Some(file) => file.metadata().map(|found| attributes(inode, &found)),
            None => self.path(inode).and_then(|path| self.attributes(&path)),
        };
        answer!(reply, found, found => reply.attr(&TTL, &found));
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        bytes: Option<u64>,
        _accessed: Option<TimeOrNow>,
        _modified: Option<TimeOrNow>,
        _changed: Option<SystemTime>,
        _file: Option<FileHandle>,
        _created: Option<SystemTime>,
        _noted: Option<SystemTime>,
        _backed_up: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        answer!(reply, self.resize(inode, bytes), found => reply.attr(&TTL, &found));
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let made = self.make_directory(parent, name);
        answer!(reply, made, made => reply.entry(&TTL, &made, Generation(0)));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, self.remove_name(parent, name), () => reply.ok());
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, self.remove_name(parent, name), () => reply.ok());
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        parent_to: INodeNo,
        name_to: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let moved = self.child(parent, name).and_then(|from| {
            let to = self.child(parent_to, name_to)?;
            self.move_name(&from, &to)
        });
        answer!(reply, moved, () => reply.ok());
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let made = self.child(parent, name).and_then(|path| {
            let mut options = OpenOptions::new();
            // The kernel has looked: that it must be new has been decided there.
            let options = options.read(true).write(true).create(true).truncate(false);
            let file = options.open(self.real(&path))?;
            let found = self.attributes(&path)?;
            Ok((found, self.keep(path, file)))
        });
        answer!(reply, made, (found, file) =>
            reply.created(&TTL, &found, Generation(0), file, FopenFlags::FOPEN_DIRECT_IO));
    }

    fn open(&self, _: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        // Of the access mode, only whether it is for reading alone matters.
        let write = flags.0 & 0b11 != 0;
        let opened = self.path(inode).and_then(|path| {
            let real = self.real(&path);
            let file = OpenOptions::new().read(true).write(write).open(real)?;
            Ok(self.keep(path, file))
        });
        answer!(reply, opened, file => reply.opened(file, FopenFlags::FOPEN_DIRECT_IO));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        file: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = self.file(file, Some(Operation::Read)).and_then(|file| {
            let mut buffer = vec![0; size as usize];
            let mut filled = 0;
            while filled < buffer.len() {
                match file.read_at(&mut buffer[filled..], offset + filled as u64)? {
                    0 => break,
                    bytes => filled += bytes,
                }
            }
            buffer.truncate(filled);
            Ok(buffer)
        });
        answer!(reply, read, bytes => reply.data(&bytes));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        file: FileHandle,
        offset: u64,
        data: &[u8],
        _write: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.file(file, Some(Operation::Write)).and_then(|file| {
            self.check_room(&file, offset.saturating_add(data.len() as u64))?;
            file.write_all_at(data, offset)
        });
        let bytes = u32::try_from(data.len()).unwrap_or(u32::MAX);
        answer!(reply, written, () => reply.written(bytes));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        file: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.state().files.remove(&file.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, file: FileHandle, _data: bool, reply: ReplyEmpty) {
        std::thread::sleep(self.faults.sync_takes()); // polls: a slow disk takes its time
        let synced = self
            .file(file, Some(Operation::Sync))
            .and_then(|file| file.sync_data());
        answer!(reply, synced, () => reply.ok());
    }

    fn fsyncdir(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let synced = self
            .path(inode)
            .and_then(|path| File::open(self.real(&path))?.sync_all());
        answer!(reply, synced, () => reply.ok());
    }

    fn readdir(
        &self,
        _: &Request,
        inode: INodeNo,
        _file: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let names = match self.list(inode) {
            Ok(names) => names,
            Err(error) => return reply.error(Errno::from(error)),
        };
        for (next, (inode, kind, name)) in (1..).zip(names) {
            if next > offset && reply.add(inode, next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let found = rustix::fs::statvfs(&self.top).map_err(io::Error::from);
        let size = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
        let is_full = self.faults.is_full();
        let free = |blocks: u64| if is_full { 0 } else { blocks };
        answer!(reply, found, s => reply.statfs(
            s.f_blocks,
            free(s.f_bfree),
            free(s.f_bavail),
            s.f_files,
            s.f_ffree,
            size(s.f_bsize),
            size(s.f_namemax),
            size(s.f_frsize),
        ));
    }
}
