//! Two wrappers of a disk's file on its way into redb: [`Watched`] for the segment that is written, [`Frozen`] for
//! those that are sealed.

use parking_lot::Mutex;
use redb::StorageBackend;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What passed through a [`Watched`].
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub written_bytes: AtomicU64,
    pub syncs: AtomicU64,
    failure: Mutex<Option<(io::ErrorKind, String)>>,
}

impl Traffic {
    /// The first failure, if there was any: redb closes a database in `drop`, which cannot report it.
    pub(super) fn failure(&self) -> Option<io::Error> {
        self.failure.lock().clone().map(|(kind, text)| io::Error::new(kind, text))
    }
}

/// Passes everything on, counts, and remembers a failure.
#[derive(Debug)]
pub(super) struct Watched {
    pub inner: Box<dyn StorageBackend>,
    pub traffic: Arc<Traffic>,
}

impl Watched {
    fn watch<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|e| {
            self.traffic.failure.lock().get_or_insert_with(|| (e.kind(), e.to_string()));
        })
    }
}

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.watch(self.inner.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.watch(self.inner.read(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.watch(self.inner.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.traffic.syncs.fetch_add(1, Ordering::Relaxed);
        self.watch(self.inner.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.traffic.written_bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        self.watch(self.inner.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.watch(self.inner.close())
    }
}

/// Unit of what is kept in memory of a file; redb's pages are made of these.
pub(super) const PAGE_BYTES: u64 = 4096;

/// Reads from the file, writes to memory: redb marks a file as in use when it opens it and as closed at the end,
/// and a sealed segment is not to change any more.
#[derive(Debug)]
pub(crate) struct Frozen {
    inner: Box<dyn StorageBackend>,
    over: Mutex<Over>,
}

#[derive(Debug)]
struct Over {
    len: u64,
    inner_len: u64,
    pages: BTreeMap<u64, Box<[u8]>>,
}

impl Frozen {
    pub(crate) fn new(inner: Box<dyn StorageBackend>) -> io::Result<Frozen> {
        let len = inner.len()?;
        Ok(Frozen { inner, over: Mutex::new(Over { len, inner_len: len, pages: BTreeMap::new() }) })
    }

    /// The file's bytes, zeros beyond its end.
    fn read_inner(&self, inner_len: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let n = inner_len.saturating_sub(offset).min(out.len() as u64) as usize;
        out[n..].fill(0);
        if n > 0 { self.inner.read(offset, &mut out[..n]) } else { Ok(()) }
    }
}

fn beyond() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "beyond the end of the segment")
}

impl StorageBackend for Frozen {
    fn len(&self) -> io::Result<u64> {
        Ok(self.over.lock().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let over = self.over.lock();
        let end = offset + out.len() as u64;
        if end > over.len {
            return Err(beyond());
        }
        self.read_inner(over.inner_len, offset, out)?;
        for (page, bytes) in over.pages.range(offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES)) {
            let (from, to) = ((page * PAGE_BYTES).max(offset), ((page + 1) * PAGE_BYTES).min(end));
            let at = (from - page * PAGE_BYTES) as usize;
            out[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&bytes[at..at + (to - from) as usize]);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut over = self.over.lock();
        if len < over.len {
            over.inner_len = over.inner_len.min(len);
            over.pages.retain(|page, _| page * PAGE_BYTES < len);
        }
        over.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut over = self.over.lock();
        let end = offset + data.len() as u64;
        if end > over.len {
            return Err(beyond());
        }
        for page in offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES) {
            let (from, to) = ((page * PAGE_BYTES).max(offset), ((page + 1) * PAGE_BYTES).min(end));
            if !over.pages.contains_key(&page) {
                let mut bytes = vec![0; PAGE_BYTES as usize].into_boxed_slice();
                self.read_inner(over.inner_len, page * PAGE_BYTES, &mut bytes)?;
                over.pages.insert(page, bytes);
            }
            let at = (from - page * PAGE_BYTES) as usize;
            over.pages.get_mut(&page).expect("just put there")[at..at + (to - from) as usize]
                .copy_from_slice(&data[(from - offset) as usize..(to - offset) as usize]);
        }
        Ok(())
    }
}
