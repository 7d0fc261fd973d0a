//! A file of the folder, which is trusted no more once a sync of it failed.

use super::folder::Folder;
use super::read_ahead::ReadAhead;
use super::window::Window;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// See the module.
#[derive(Debug)]
pub(super) struct SoundFile {
    file: File,
    ahead: ReadAhead,
    window: Window,
    failed: AtomicBool,
    /// For its lock, too.
    folder: Arc<Folder>,
}

impl SoundFile {
    pub(super) fn new(file: File, folder: Arc<Folder>) -> SoundFile {
        let (ahead, window) = (ReadAhead::of(&file), Window::default());
        SoundFile { file, ahead, window, failed: AtomicBool::new(false), folder }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let goes_on = self.ahead.before(&self.file, offset, out.len());
        if self.window.read(offset, out) || goes_on && self.window.read_anew(&self.file, offset, out) {
            return Ok(());
        }
        self.file.read_exact_at(out, offset)
    }

    pub(super) fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        let result = self.file.set_len(len);
        self.window.forget(len, u64::MAX);
        result
    }

    /// Where the disk is full, with the reserve's help, or once there is space.
    pub(super) fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_by(&self.file, offset, data)
    }

    /// The same by another handle of this file.
    pub(super) fn write_by(&self, handle: &File, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        let result = self.folder.reserve.help_or_wait(|| handle.write_all_at(data, offset));
        self.window.forget(offset, offset + data.len() as u64);
        result
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.check()?;
        self.file.sync_data().inspect_err(|_| {
            self.distrust();
            self.folder.sync_failed();
        })
    }

    /// Refuse everything from now on.
    pub(super) fn distrust(&self) {
        self.failed.store(true, Ordering::Release);
    }

    fn check(&self) -> io::Result<()> {
        if self.failed.load(Ordering::Acquire) { Err(failed_before()) } else { Ok(()) }
    }
}

/// What a backend says after a sync failed.
pub(super) fn failed_before() -> io::Error {
    io::Error::other("an earlier write or sync of this file failed; what it wrote since may be lost")
}
