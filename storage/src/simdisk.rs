//! A disk in memory that does what disks do at their worst, on command and from a seed: for tests, free of IO.
//!
//! It stands where [`crate::io`] stands in the daemon. What was not synced may be lost, kept in part, or torn; the
//! n-th operation fails; the power goes at the n-th operation; the space runs out. Equal commands and seeds give
//! equal disks.
//!
//! ```
//! use warren_storage::{Disk, simdisk::SimDisk};
//! let disk = SimDisk::new();
//! let file = disk.open("a", 0).unwrap();
//! file.set_len(3).unwrap();
//! file.write(0, b"abc").unwrap();
//! assert!(!disk.after_crash(1).exists("a").unwrap() || disk.exists("a").unwrap());
//! file.sync_data().unwrap();
//! disk.sync_folder().unwrap();
//! let mut read = [0; 3];
//! disk.after_crash(1).open("a", 0).unwrap().read(0, &mut read).unwrap();
//! assert_eq!(&read, b"abc");
//! ```

use crate::dice::Dice;
use crate::disk::{Disk, DiskError};
use parking_lot::Mutex;
use redb::StorageBackend;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

/// What a write is charged by, and the larger of the two units in which one is torn.
const PAGE_BYTES: usize = 4096;
/// The smaller unit in which a write is torn; what the header of a redb file counts on.
const SECTOR_BYTES: usize = 512;

/// Said by every operation once the power is gone.
const POWER_LOST: &str = "simulated power loss";

/// A deterministic disk in memory. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// By number; a file without a name lives as long as somebody has it open (here: for ever).
    files: BTreeMap<u64, File>,
    next_file: u64,
    /// Name → file, as the processes see it.
    names: BTreeMap<String, u64>,
    /// As it is on the medium.
    names_durable: BTreeMap<String, u64>,
    /// What leads from the latter to the former.
    names_pending: Vec<NameChange>,
    operations: u64,
    syncs: u64,
    faults: u64,
    fail_at: BTreeSet<u64>,
    power_lost_at: Option<u64>,
    power_lost: bool,
    capacity_bytes: Option<u64>,
    stale_space: bool,
    /// A sync failed, and what it should have written is still seen. See [`Disk::mend`].
    suspect: bool,
}

#[derive(Default, Clone)]
struct File {
    /// As the processes see it.
    live: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
    /// Pages that were ever written: what the file is charged for.
    written: BTreeSet<usize>,
    failed: bool,
    ahead: bool,
}

#[derive(Clone)]
enum Change {
    Length(u64),
    Write(u64, Vec<u8>),
}

#[derive(Clone)]
enum NameChange {
    Create(String, u64),
    Rename(String, String, u64),
    Remove(String),
}

impl Default for SimDisk {
    fn default() -> SimDisk {
        SimDisk::new()
    }
}

impl SimDisk {
    /// An empty disk of unlimited size on which nothing fails.
    pub fn new() -> SimDisk {
        SimDisk { state: Arc::new(Mutex::new(State::default())) }
    }

    /// The n-th operation (counted from 1, see [`SimDisk::operations`]) fails with an IO error and has no effect;
    /// a failed sync never makes durable what it should have, though every process goes on seeing it; see
    /// [`Disk::mend`]. May be given several times.
    pub fn fail_at(&self, n: u64) {
        self.state.lock().fail_at.insert(n);
    }

    /// Nothing that was ordered by [`SimDisk::fail_at`] and [`SimDisk::lose_power_at`] is going to happen any more.
    pub fn call_off(&self) {
        let mut state = self.state.lock();
        state.fail_at.clear();
        state.power_lost_at = None;
    }

    /// The power goes during the n-th operation: it and all later ones fail.
    pub fn lose_power_at(&self, n: u64) {
        self.state.lock().power_lost_at = Some(n);
    }

    /// The power goes now: all later operations fail. See [`SimDisk::after_crash`].
    pub fn lose_power(&self) {
        self.state.lock().power_lost = true;
    }

    /// Bytes that fit; pages are charged when they are first written.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity_bytes = bytes;
    }

    /// Bytes that can still be written. Other than [`Disk::free_bytes`] this is no operation.
    pub fn left_bytes(&self) -> u64 {
        let state = self.state.lock();
        state.capacity_bytes.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used_bytes()))
    }

    /// New space of files opened with space ahead holds old data instead of zeros, as on a disk that uses the
    /// files of former segments again.
    pub fn set_stale_space(&self, stale: bool) {
        self.state.lock().stale_space = stale;
    }

    /// Operations so far, reads included.
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// Syncs so far, of files and of the folder.
    pub fn syncs(&self) -> u64 {
        self.state.lock().syncs
    }

    /// Operations that failed because it was ordered, or for lack of space.
    pub fn faults(&self) -> u64 {
        self.state.lock().faults
    }

    /// Has the power gone?
    pub fn is_off(&self) -> bool {
        self.state.lock().power_lost
    }

    /// The disk as it is found when the power is back: what was synced, and of the rest what the seed picks
    /// (nothing, all, a first part, any part; whole writes, or torn in sectors or pages).
    ///
    /// This disk stays as it is and can be asked again with another seed.
    pub fn after_crash(&self, seed: u64) -> SimDisk {
        let state = self.state.lock();
        let mut dice = Dice(seed);
        let mut names = state.names_durable.clone();
        let mode = dice.below(4);
        let prefix = dice.below(state.names_pending.len() + 1);
        for (i, change) in state.names_pending.iter().enumerate() {
            let kept = match mode {
                0 => false,
                1 => true,
                2 => i < prefix,
                _ => dice.below(2) == 0,
            };
            if kept {
                change.apply(&mut names);
            }
        }
        let files = names
            .values()
            .map(|number| (*number, state.files[number].after_crash(&mut dice)))
            .collect::<BTreeMap<_, _>>();
        SimDisk {
            state: Arc::new(Mutex::new(State {
                files,
                next_file: state.next_file,
                names_durable: names.clone(),
                names,
                capacity_bytes: state.capacity_bytes,
                stale_space: state.stale_space,
                ..State::default()
            })),
        }
    }

    /// The disk as another process finds it after this one was killed: nothing is lost but what was in the
    /// process. Faults that were ordered are not carried over.
    pub fn after_kill(&self) -> SimDisk {
        let state = self.state.lock();
        // Removed ones too: a later power loss may bring their names back.
        let files = (state.files.iter())
            .map(|(number, file)| (*number, File { failed: false, ..file.clone() }))
            .collect();
        SimDisk {
            state: Arc::new(Mutex::new(State {
                files,
                next_file: state.next_file,
                names: state.names.clone(),
                names_durable: state.names_durable.clone(),
                names_pending: state.names_pending.clone(),
                capacity_bytes: state.capacity_bytes,
                stale_space: state.stale_space,
                suspect: state.suspect,
                ..State::default()
            })),
        }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            NameChange::Create(name, number) => {
                names.insert(name.clone(), *number);
            }
            NameChange::Rename(from, to, number) => {
                names.remove(from);
                names.insert(to.clone(), *number);
            }
            NameChange::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

impl File {
    fn after_crash(&self, dice: &mut Dice) -> File {
        let mut content = self.durable.clone();
        let mode = dice.below(5);
        let unit = if dice.below(2) == 0 { SECTOR_BYTES } else { PAGE_BYTES };
        let prefix = dice.below(self.pending.len() + 1);
        for (i, change) in self.pending.iter().enumerate() {
            let kept = match mode {
                0 => false,
                1 => true,
                2 => i < prefix,
                3 => dice.below(2) == 0,
                // Torn: each write in part.
                _ => true,
            };
            match change {
                Change::Length(len) if kept => content.resize(*len as usize, 0),
                Change::Write(offset, data) if kept => {
                    let mut at = 0;
                    while at < data.len() {
                        let start = *offset as usize + at;
                        let n = (unit - start % unit).min(data.len() - at);
                        if (mode != 4 || dice.below(2) == 0) && start + n <= content.len() {
                            content[start..start + n].copy_from_slice(&data[at..at + n]);
                        }
                        at += n;
                    }
                }
                _ => {}
            }
        }
        File {
            live: content.clone(),
            durable: content,
            written: self.written.clone(),
            ahead: self.ahead,
            ..File::default()
        }
    }

    fn sync(&mut self) {
        for change in self.pending.drain(..) {
            match change {
                Change::Length(len) => self.durable.resize(len as usize, 0),
                Change::Write(offset, data) => {
                    let offset = offset as usize;
                    // What lies beyond the end was cut off later.
                    if offset < self.durable.len() {
                        let n = data.len().min(self.durable.len() - offset);
                        self.durable[offset..offset + n].copy_from_slice(&data[..n]);
                    }
                }
            }
        }
    }
}

impl State {
    /// Counts an operation. `Err`: it fails. The flag says whether the power went just now, so that a write can
    /// still be on its way.
    fn operation(&mut self) -> Result<(), (io::Error, bool)> {
        if self.power_lost {
            self.faults += 1;
            return Err((io::Error::other(POWER_LOST), false));
        }
        self.operations += 1;
        if self.power_lost_at == Some(self.operations) {
            self.power_lost = true;
            self.faults += 1;
            return Err((io::Error::other(POWER_LOST), true));
        }
        if self.fail_at.contains(&self.operations) {
            self.faults += 1;
            return Err((io::Error::other("simulated IO error"), false));
        }
        Ok(())
    }

    fn used_bytes(&self) -> u64 {
        let named: BTreeSet<_> = self.names.values().collect();
        named.into_iter().map(|n| self.files[n].written.len() as u64 * PAGE_BYTES as u64).sum()
    }

    fn rename(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.names_pending.push(change);
    }
}

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state.lock();
        f.debug_struct("SimDisk").field("names", &state.names).field("operations", &state.operations).finish()
    }
}

impl SimDisk {
    fn checked<T>(
        &self,
        doing: &'static str,
        file: &str,
        act: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> Result<T, DiskError> {
        let mut state = self.state.lock();
        state.operation().map_err(|(e, _)| e).and_then(|()| act(&mut state)).map_err(|source| DiskError {
            doing,
            file: file.to_owned(),
            source,
        })
    }
}

impl Disk for SimDisk {
    fn list(&self) -> Result<Vec<String>, DiskError> {
        self.checked("cannot list", ".", |state| Ok(state.names.keys().cloned().collect()))
    }

    fn open(&self, name: &str, ahead_bytes: u64) -> Result<Box<dyn StorageBackend>, DiskError> {
        let number = self.checked("cannot open", name, |state| {
            if let Some(number) = state.names.get(name) {
                return Ok(*number);
            }
            let number = state.next_file;
            state.next_file += 1;
            state.files.insert(number, File { ahead: ahead_bytes > 0, ..File::default() });
            state.rename(NameChange::Create(name.to_owned(), number));
            Ok(number)
        })?;
        Ok(Box::new(SimFile { disk: self.clone(), number }))
    }

    fn exists(&self, name: &str) -> Result<bool, DiskError> {
        self.checked("cannot look for", name, |state| Ok(state.names.contains_key(name)))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.checked("cannot rename", from, |state| {
            let number = *state.names.get(from).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            state.rename(NameChange::Rename(from.to_owned(), to.to_owned(), number));
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.checked("cannot remove", name, |state| {
            if state.names.contains_key(name) {
                state.rename(NameChange::Remove(name.to_owned()));
            }
            Ok(())
        })
    }

    fn sync_folder(&self) -> Result<(), DiskError> {
        self.checked("cannot sync", ".", |state| {
            state.syncs += 1;
            state.names_durable = state.names.clone();
            state.names_pending.clear();
            Ok(())
        })
    }

    fn mend(&self) -> Result<bool, DiskError> {
        if !self.state.lock().suspect {
            return Ok(false);
        }
        let numbers: Vec<u64> = self.state.lock().names.values().copied().collect();
        for number in numbers {
            // The first page last: it says where everything else is.
            for first_page in [false, true] {
                self.checked("cannot rewrite", ".", |state| {
                    let file = state.files.get_mut(&number).expect("it has a name");
                    let length = file.live.len();
                    file.pending.push(Change::Length(length as u64));
                    for page in file.written.iter().filter(|page| (**page == 0) == first_page) {
                        let (start, end) = (page * PAGE_BYTES, ((page + 1) * PAGE_BYTES).min(length));
                        if start < end {
                            file.pending.push(Change::Write(start as u64, file.live[start..end].to_vec()));
                        }
                    }
                    Ok(())
                })?;
                let synced = self.checked("cannot sync", ".", |state| {
                    state.syncs += 1;
                    state.files.get_mut(&number).expect("it has a name").sync();
                    Ok(())
                });
                if synced.is_err() {
                    let state = &mut *self.state.lock();
                    if !state.power_lost {
                        state.files.get_mut(&number).expect("it has a name").pending.clear();
                    }
                    return synced.map(|()| true);
                }
            }
        }
        self.sync_folder()?;
        self.state.lock().suspect = false;
        Ok(true)
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        self.checked("cannot size", ".", |state| {
            Ok(state.capacity_bytes.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used_bytes())))
        })
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    number: u64,
}

impl SimFile {
    fn checked<T>(&self, act: impl FnOnce(&mut State, u64) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.state.lock();
        if state.files[&self.number].failed {
            return Err(io::Error::other("an earlier sync of this file failed"));
        }
        state.operation().map_err(|(e, _)| e)?;
        act(&mut state, self.number)
    }
}

fn beyond() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "beyond the end of the file")
}

impl StorageBackend for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.checked(|state, n| Ok(state.files[&n].live.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.checked(|state, n| {
            let live = &state.files[&n].live;
            let (start, end) = (offset as usize, offset as usize + out.len());
            out.copy_from_slice(live.get(start..end).ok_or_else(beyond)?);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.checked(|state, n| {
            let stale = state.stale_space;
            let file = state.files.get_mut(&n).expect("open files stay");
            let old = file.live.len();
            file.live.resize(len as usize, 0);
            file.pending.push(Change::Length(len));
            file.written.retain(|page| page * PAGE_BYTES < len as usize);
            if stale && file.ahead && len as usize > old.max(PAGE_BYTES) {
                // Page 0 is always zeroed: it holds redb's header.
                let start = old.max(PAGE_BYTES);
                let mut dice = Dice(n ^ len);
                let garbage: Vec<u8> = (start..len as usize).map(|_| dice.roll() as u8).collect();
                file.live[start..].copy_from_slice(&garbage);
                file.pending.push(Change::Write(start as u64, garbage));
            }
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        if state.files[&self.number].failed {
            return Err(io::Error::other("an earlier sync of this file failed"));
        }
        state.syncs += 1;
        let result = state.operation();
        let file = state.files.get_mut(&self.number).expect("open files stay");
        match result {
            Ok(()) => {
                file.sync();
                Ok(())
            }
            Err((e, _)) => {
                if !state.power_lost {
                    // The system forgets what it could not write, and says so only once.
                    let file = state.files.get_mut(&self.number).expect("open files stay");
                    file.pending.clear();
                    file.failed = true;
                    state.suspect = true;
                }
                Err(e)
            }
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        if state.files[&self.number].failed {
            return Err(io::Error::other("an earlier sync of this file failed"));
        }
        let result = state.operation();
        if let Err((e, false)) = result {
            return Err(e);
        }
        let file = &state.files[&self.number];
        let (start, end) = (offset as usize, offset as usize + data.len());
        if end > file.live.len() {
            return Err(beyond());
        }
        let pages = start / PAGE_BYTES..end.div_ceil(PAGE_BYTES);
        let new = pages.clone().filter(|page| !file.written.contains(page)).count();
        if let Some(capacity) = state.capacity_bytes {
            if state.used_bytes() + (new * PAGE_BYTES) as u64 > capacity {
                state.faults += 1;
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
        }
        let file = state.files.get_mut(&self.number).expect("open files stay");
        file.written.extend(pages);
        file.live[start..end].copy_from_slice(data);
        file.pending.push(Change::Write(offset, data.to_vec()));
        result.map_err(|(e, _)| e)
    }
}
