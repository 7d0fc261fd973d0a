//! One segment: a redb file of the log, either the newest, which is written, or a sealed one, which only is read.

use super::backend::{Frozen, Traffic, Watched};
use super::journal::{Halved, Journal};
use super::tables::{
    ABOUT, BIRTH_ROW, Birth, Bundle, FORMAT, FORMAT_ROW, FORMAT_SINGLE, HARD_STATE_KEY, INDEX_MAX, LogRecord,
    RECORDS, Stamped, Whole, index_of, key, keys_through, rows,
};
use super::{LogError, LogOptions};
use crate::disk::{Disk, SharedDisk};
use parking_lot::Mutex;
use redb::{
    Builder, Database, Durability, ReadOnlyTable, ReadableDatabase, ReadableTable, StorageBackend,
    WriteTransaction,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of pages that redb keeps of the segment that is written. It bounds the write buffer too, at half of it.
const NEWEST_CACHE_BYTES: usize = 8 << 20;
/// The same for a sealed segment, which mostly is read once, in order.
const SEALED_CACHE_BYTES: usize = 1 << 20;

/// A file that is being made has this after its name, until it is renamed.
pub(super) const UNFINISHED: &str = ".new";

/// The file name of a segment.
pub(super) fn file_name(sequence: u64, first_index: u64) -> String {
    format!("log-{sequence:016x}-{first_index:016x}.redb")
}

/// What [`file_name`] was given; `None` for another file.
pub(super) fn parse_file_name(name: &str) -> Option<(u64, u64)> {
    let (sequence, first) = name.strip_prefix("log-")?.strip_suffix(".redb")?.split_once('-')?;
    let number = |s: &str| (s.len() == 16).then(|| u64::from_str_radix(s, 16).ok()).flatten();
    Some((number(sequence)?, number(first)?))
}

/// A segment that is open.
pub(super) struct Segment {
    pub name: String,
    pub birth: Birth,
    db: Database,
    journal: Journal,
    traffic: Arc<Traffic>,
    /// What was read last: who catches up reads a bundle in several steps, and asks for a term before each.
    last_read: Mutex<Option<Arc<Whole>>>,
}

/// Where a segment ends.
pub(super) struct Tip {
    /// The last index; the one before the first when there is no record.
    pub last_index: u64,
    pub last_term: u64,
    pub stamped: Stamped,
    /// Was the file left open by a process that died?
    pub repaired: bool,
}

impl Segment {
    /// Begins a segment with its first records and the hard state, durably. When this fails or the power goes, there
    /// is no such segment.
    pub(super) fn create(
        disk: &SharedDisk,
        options: &LogOptions,
        birth: Birth,
        records: &[LogRecord],
        stamped: Stamped,
        scratch: &mut Vec<u8>,
    ) -> Result<Segment, LogError> {
        let name = file_name(birth.sequence, birth.base_index + 1);
        let unfinished = format!("{name}{UNFINISHED}");
        let failed = |e: redb::Error| LogError::engine("cannot begin", &name, e);
        disk.remove(&unfinished)?;
        let traffic = Arc::new(Traffic::default());
        let inner = disk.open(&unfinished, options.ahead_bytes)?;
        let watched = Box::new(Watched { inner, traffic: traffic.clone() });
        let file = Halved::create(watched, options.journal_bytes).map_err(|e| failed(e.into()))?;
        let journal = Journal::of(file.clone(), &birth);
        let db = Builder::new()
            .set_cache_size(NEWEST_CACHE_BYTES)
            .create_with_backend(file)
            .map_err(|e| failed(e.into()))?;
        let encoded = postcard::to_allocvec(&birth).expect("a birth can be encoded");
        let mut fill = || -> Result<(), redb::Error> {
            let tx = db.begin_write()?;
            {
                let mut about = tx.open_table(ABOUT)?;
                about.insert(FORMAT_ROW, FORMAT.to_le_bytes().as_slice())?;
                about.insert(BIRTH_ROW, encoded.as_slice())?;
            }
            write(&tx, records, Some(stamped), scratch)?;
            tx.commit()?;
            Ok(())
        };
        fill().map_err(failed)?;
        disk.rename(&unfinished, &name)?;
        disk.sync_folder()?;
        Ok(Segment { name, birth, db, journal, traffic, last_read: Mutex::default() })
    }

    /// Opens the newest segment, repairing what a killed process left; what is in the journal goes into redb.
    pub(super) fn open(disk: &SharedDisk, ahead_bytes: u64, name: &str) -> Result<(Segment, Tip), LogError> {
        let traffic = Arc::new(Traffic::default());
        let inner = disk.open(name, ahead_bytes)?;
        let watched = Box::new(Watched { inner, traffic: traffic.clone() });
        let (db, file, repaired) = open_database(name, NEWEST_CACHE_BYTES, watched)?;
        let About { format, birth, last, hard_state: hard_state_row } = read_about(name, &db)?;
        if format != FORMAT {
            write_format(&db).map_err(|e| LogError::engine("cannot append to", name, e))?;
        }
        let (mut last_index, mut last_term, in_record) = match last {
            Some(last) => (last.index, last.term, last.stamped),
            None => (birth.base_index, birth.base_term, None),
        };
        let mut stamped = in_record
            .into_iter()
            .chain(hard_state_row)
            .max_by_key(|s| s.stamp)
            .ok_or_else(|| LogError::damaged(name, "there is no hard state in it"))?;
        let journal = Journal::of(file, &birth);
        let found = journal.since(name, stamped.stamp)?;
        let last_read = Mutex::default();
        let segment = Segment { name: name.to_owned(), birth, db, journal, traffic, last_read };
        if let Some(newer) = found.stamped {
            if found.records.first().is_some_and(|first| first.index != last_index + 1) {
                return Err(LogError::damaged(name, "its journal does not go on where its records end"));
            }
            segment.append(None, &found.records, Some(newer), &mut Vec::new())?;
            stamped = newer;
            if let Some(last) = found.records.last() {
                (last_index, last_term) = (last.index, last.term);
            }
        }
        Ok((segment, Tip { last_index, last_term, stamped, repaired }))
    }

    /// Opens a sealed segment to read it; the file is not changed.
    pub(super) fn open_sealed(disk: &dyn Disk, ahead_bytes: u64, name: &str) -> Result<Segment, LogError> {
        let inner = disk.open(name, ahead_bytes)?;
        let frozen =
            Frozen::new(inner).map_err(|e| LogError::engine("cannot open", name, redb::Error::Io(e)))?;
        let (db, file, _) = open_database(name, SEALED_CACHE_BYTES, Box::new(frozen))?;
        let About { birth, .. } = read_about(name, &db)?;
        // Its journal was emptied when it was closed.
        let journal = Journal::of(file, &birth);
        let (traffic, last_read) = (Arc::default(), Mutex::default());
        Ok(Segment { name: name.to_owned(), birth, db, journal, traffic, last_read })
    }

    /// The first index that the segment has, or would have.
    pub(super) fn first_index(&self) -> u64 {
        self.birth.base_index + 1
    }

    /// Makes a small append durable without redb. False when it is too large for that, or finds no room: then it is to come
    /// by [`Segment::append`], behind all that came this way since the last one.
    pub(super) fn note(&self, records: &[LogRecord], stamped: Stamped) -> Result<bool, LogError> {
        let failed = |e| LogError::engine("cannot append to", &self.name, redb::Error::Io(e));
        self.journal.append(records, stamped).map_err(failed)
    }

    /// Makes records and hard state durable in one commit. Records from `truncate_from` on go first.
    pub(super) fn append(
        &self,
        truncate_from: Option<u64>,
        records: &[LogRecord],
        stamped: Option<Stamped>,
        scratch: &mut Vec<u8>,
    ) -> Result<(), LogError> {
        let cut = truncate_from.map(|index| self.cut(index)).transpose()?;
        let mut commit = || -> Result<(), redb::Error> {
            let mut tx = self.db.begin_write()?;
            tx.set_durability(Durability::Immediate)?;
            if let Some((from, stay)) = &cut {
                tx.open_table(RECORDS)?.retain_in(key(*from, 0).., |_, _| false)?;
                write(&tx, stay, None, scratch)?;
            }
            write(&tx, records, stamped, scratch)?;
            tx.commit()?;
            Ok(())
        };
        commit().map_err(|e| LogError::engine("cannot append to", &self.name, e))?;
        if cut.is_some() {
            *self.last_read.lock() = None;
        }
        self.journal.begin();
        Ok(())
    }

    /// Closes the file cleanly, so that nobody has to repair it.
    pub(super) fn close(self) -> Result<(), LogError> {
        let Segment { name, db, journal, traffic, .. } = self;
        drop((db, journal));
        if let Some(failure) = traffic.failure() {
            return Err(LogError::engine("cannot close", &name, redb::Error::Io(failure)));
        }
        Ok(())
    }

    /// Bytes written to the file and syncs of it since it was opened.
    pub(super) fn traffic(&self) -> (u64, u64) {
        (self.traffic.written_bytes.load(Ordering::Relaxed), self.traffic.syncs.load(Ordering::Relaxed))
    }

    fn records(&self) -> Result<ReadOnlyTable<u64, &'static [u8]>, LogError> {
        let open = || -> Result<_, redb::Error> { Ok(self.db.begin_read()?.open_table(RECORDS)?) };
        open().map_err(|e| LogError::engine("cannot read", &self.name, e))
    }

    /// What has to go for the records from `index` on to go, by the first index of its first bundle; and which records of that
    /// bundle are to be written anew.
    fn cut(&self, index: u64) -> Result<(u64, Vec<LogRecord>), LogError> {
        let Some(bundle) = self.bundle_with(index)? else { return Ok((index, Vec::new())) };
        let stay = bundle.indexes().start..index;
        let stay = stay.filter_map(|index| bundle.get(&self.name, index).transpose());
        let stay = stay.map(|encoded| encoded?.record(&self.name)).collect::<Result<_, _>>()?;
        Ok((bundle.indexes().start, stay))
    }

    /// The bundle that this record is in.
    fn bundle_with(&self, index: u64) -> Result<Option<Arc<Whole>>, LogError> {
        let last_read = self.last_read.lock().clone();
        if let Some(bundle) = last_read.filter(|bundle| bundle.indexes().contains(&index)) {
            return Ok(Some(bundle));
        }
        let Some((first, bytes)) = bundle_of(&self.name, &self.records()?, index)? else { return Ok(None) };
        let bundle = Arc::new(Whole::of(&self.name, first, bytes)?);
        if !bundle.indexes().contains(&index) {
            return Ok(None);
        }
        *self.last_read.lock() = Some(bundle.clone());
        Ok(Some(bundle))
    }

    /// The records from `from` to before `to`, or the first of them that make up `bytes_max`, but one at least.
    pub(super) fn read(&self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<LogRecord>, LogError> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        let mut next = from;
        while next < to && bytes < bytes_max {
            let Some(bundle) = self.bundle_with(next)? else {
                self.ends_before(next)?;
                break;
            };
            while let Some(encoded) = bundle.get(&self.name, next)? {
                let is_too_much = !records.is_empty() && bytes + encoded.data.len() > bytes_max;
                if next >= to || is_too_much || bytes >= bytes_max {
                    return Ok(records);
                }
                let record = encoded.record(&self.name)?;
                bytes += record.memory_bytes();
                records.push(record);
                next += 1;
            }
        }
        Ok(records)
    }

    /// An error when there are records behind this one, which is missing.
    fn ends_before(&self, index: u64) -> Result<(), LogError> {
        let failed = |e: redb::StorageError| LogError::engine("cannot read", &self.name, e);
        match self.records()?.range(key(index, 0)..).map_err(failed)?.next() {
            None => Ok(()),
            Some(row) => {
                let found = index_of(row.map_err(failed)?.0.value());
                Err(LogError::damaged(&self.name, format!("record {found} stands where {index} should")))
            }
        }
    }

    /// The term of a record; `None` when it is not there.
    pub(super) fn term(&self, index: u64) -> Result<Option<u64>, LogError> {
        let Some(bundle) = self.bundle_with(index)? else { return Ok(None) };
        Ok(bundle.get(&self.name, index)?.map(|encoded| encoded.term))
    }
}

/// The last bundle that begins at `index` or before it: the index of its first record, and its bytes.
fn bundle_of(
    name: &str,
    table: &impl ReadableTable<u64, &'static [u8]>,
    index: u64,
) -> Result<Option<(u64, Vec<u8>)>, LogError> {
    let failed = |e: redb::StorageError| LogError::engine("cannot read", name, e);
    let mut through = table.range(keys_through(index)).map_err(failed)?;
    let Some(last) = through.next_back() else { return Ok(None) };
    let first = index_of(last.map_err(failed)?.0.value());
    let mut bytes = Vec::new();
    for (row, piece) in table.range(key(first, 0)..key(first + 1, 0)).map_err(failed)?.zip(0..) {
        let (k, v) = row.map_err(failed)?;
        if k.value() != key(first, piece) {
            return Err(LogError::damaged(name, format!("the records from {first} on lack piece {piece}")));
        }
        bytes.extend_from_slice(v.value());
    }
    Ok(Some((first, bytes)))
}

/// The rows of an append, within its transaction.
fn write(
    tx: &WriteTransaction,
    records: &[LogRecord],
    stamped: Option<Stamped>,
    scratch: &mut Vec<u8>,
) -> Result<(), redb::Error> {
    let mut table = tx.open_table(RECORDS)?;
    if let (true, Some(stamped)) = (records.is_empty(), stamped) {
        table.insert(HARD_STATE_KEY, stamped.encode().as_slice())?;
    }
    Ok(rows(records, stamped, scratch, |k, piece| table.insert(k, piece).map(drop))?)
}

/// From now on it is a segment of this format.
fn write_format(db: &Database) -> Result<(), redb::Error> {
    let tx = db.begin_write()?;
    tx.open_table(ABOUT)?.insert(FORMAT_ROW, FORMAT.to_le_bytes().as_slice())?;
    Ok(tx.commit()?)
}

fn open_database(
    name: &str,
    cache_bytes: usize,
    inner: Box<dyn StorageBackend>,
) -> Result<(Database, Halved, bool), LogError> {
    let failed = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::InvalidData => LogError::damaged(name, e.to_string()),
        _ => LogError::engine("cannot open", name, redb::Error::Io(e)),
    };
    let backend = match Halved::open(inner).map_err(failed)? {
        Ok(backend) => backend,
        Err(found) => return Err(LogError::Format { segment: name.to_owned(), found, known: FORMAT }),
    };
    // redb would make a new database of an empty file.
    if backend.len().map_err(failed)? == 0 {
        return Err(LogError::damaged(name, "it is empty"));
    }
    let repaired = Arc::new(AtomicBool::new(false));
    let db = Builder::new()
        .set_cache_size(cache_bytes)
        .set_repair_callback({
            let repaired = repaired.clone();
            move |_| repaired.store(true, Ordering::Relaxed)
        })
        .create_with_backend(backend.clone())
        .map_err(|e| LogError::engine("cannot open", name, e))?;
    Ok((db, backend, repaired.load(Ordering::Relaxed)))
}

/// What a segment says of itself.
struct About {
    format: u32,
    birth: Birth,
    last: Option<LastRecord>,
    /// From its row.
    hard_state: Option<Stamped>,
}

struct LastRecord {
    index: u64,
    term: u64,
    stamped: Option<Stamped>,
}

fn read_about(name: &str, db: &Database) -> Result<About, LogError> {
    let failed = |e: redb::Error| LogError::engine("cannot read", name, e);
    let open = || -> Result<_, redb::Error> {
        let tx = db.begin_read()?;
        Ok((tx.open_table(ABOUT)?, tx.open_table(RECORDS)?))
    };
    let (about, records) = open().map_err(failed)?;
    let row = |name| about.get(name).map_err(|e| failed(e.into()));
    let format = row(FORMAT_ROW)?.and_then(|v| Some(u32::from_le_bytes(v.value().try_into().ok()?)));
    let format = match format {
        Some(format @ (FORMAT | FORMAT_SINGLE)) => format,
        Some(found) => return Err(LogError::Format { segment: name.to_owned(), found, known: FORMAT }),
        None => return Err(LogError::damaged(name, "it does not tell its format")),
    };
    let birth = row(BIRTH_ROW)?.and_then(|v| postcard::from_bytes::<Birth>(v.value()).ok());
    let birth = birth.ok_or_else(|| LogError::damaged(name, "it does not tell where it begins"))?;
    let hard_state = records.get(HARD_STATE_KEY).map_err(|e| failed(e.into()))?;
    let hard_state = hard_state.map(|v| Stamped::decode(name, v.value())).transpose()?;
    let mut last = None;
    if let Some((first, bytes)) = bundle_of(name, &records, INDEX_MAX)? {
        let mut bundle = Bundle::of(name, first, &bytes);
        while let Some(encoded) = bundle.next()? {
            last = Some(LastRecord { index: encoded.index, term: encoded.term, stamped: encoded.stamped });
        }
    }
    Ok(About { format, birth, last, hard_state })
}

#[cfg(test)]
mod tests {
    use super::super::tables::HardState;
    use super::*;
    use crate::simdisk::SimDisk;
    use std::sync::Arc;

    const OPTIONS: LogOptions =
        LogOptions { segment_bytes_max: 1 << 20, ahead_bytes: 1, journal_bytes: 80 << 10, cache_bytes: 0 };
    const BIRTH: Birth = Birth { sequence: 1, base_index: 4, base_term: 1, chain: Vec::new() };

    fn records(indexes: std::ops::Range<u64>) -> Vec<LogRecord> {
        let data = |index| vec![index as u8; 90_000].into();
        let kind = super::super::RecordKind::Normal;
        indexes.map(|index| LogRecord { index, term: 2, kind, data: data(index) }).collect()
    }

    fn stamped(stamp: u64) -> Stamped {
        Stamped { stamp, segment_bytes: 1, hard_state: HardState { term: 2, vote: 1, commit: stamp } }
    }

    fn begun(disk: &SharedDisk, records: &[LogRecord]) -> Segment {
        Segment::create(disk, &OPTIONS, BIRTH, records, stamped(1), &mut Vec::new()).unwrap()
    }

    #[test]
    fn a_segment_of_the_format_before_goes_on_in_this_one() {
        let disk: SharedDisk = Arc::new(SimDisk::new());
        let segment = begun(&disk, &[]);
        let tx = segment.db.begin_write().unwrap();
        for (at, record) in records(5..8).iter().enumerate() {
            let stamped = (at == 2).then(|| stamped(2));
            write(&tx, std::slice::from_ref(record), stamped, &mut Vec::new()).unwrap();
        }
        tx.open_table(ABOUT).unwrap().insert(FORMAT_ROW, FORMAT_SINGLE.to_le_bytes().as_slice()).unwrap();
        tx.commit().unwrap();
        let name = segment.name.clone();
        segment.close().unwrap();

        let sealed = Segment::open_sealed(&*disk, 1, &name).unwrap();
        assert_eq!(sealed.read(6, 8, usize::MAX).unwrap(), records(6..8));
        sealed.close().unwrap();

        let (segment, tip) = Segment::open(&disk, 1, &name).unwrap();
        assert_eq!((tip.last_index, tip.stamped), (7, stamped(2)));
        assert_eq!(read_about(&name, &segment.db).unwrap().format, FORMAT);
        segment.append(Some(7), &records(7..30), Some(stamped(3)), &mut Vec::new()).unwrap();
        assert_eq!(segment.read(5, 30, usize::MAX).unwrap(), records(5..30));
    }

    #[test]
    fn a_format_that_is_not_known_is_refused() {
        let disk: SharedDisk = Arc::new(SimDisk::new());
        let segment = begun(&disk, &[]);
        let tx = segment.db.begin_write().unwrap();
        tx.open_table(ABOUT).unwrap().insert(FORMAT_ROW, 4u32.to_le_bytes().as_slice()).unwrap();
        tx.commit().unwrap();
        let name = segment.name.clone();
        segment.close().unwrap();
        let refused = Segment::open(&disk, 1, &name).err().unwrap();
        assert!(matches!(refused, LogError::Format { found: 4, known: FORMAT, .. }), "{refused}");
    }

    #[test]
    fn a_truncation_leaves_what_stands_before_it_in_its_bundle() {
        let disk: SharedDisk = Arc::new(SimDisk::new());
        let segment = begun(&disk, &records(5..30));
        let mut other = records(9..12);
        other.iter_mut().for_each(|record| record.term = 3);
        segment.append(Some(9), &other, Some(stamped(2)), &mut Vec::new()).unwrap();
        let all = [records(5..9), other].concat();
        assert_eq!(segment.read(5, 100, usize::MAX).unwrap(), all);
        assert_eq!(
            [8, 9, 11, 12].map(|index| segment.term(index).unwrap()),
            [Some(2), Some(3), Some(3), None]
        );
        // Where a bundle begins, and behind the last record.
        segment.append(Some(9), &all[4..], Some(stamped(3)), &mut Vec::new()).unwrap();
        segment.append(Some(12), &records(12..13), Some(stamped(4)), &mut Vec::new()).unwrap();
        assert_eq!(segment.read(5, 100, usize::MAX).unwrap(), [all, records(12..13)].concat());
    }

    #[test]
    fn a_bundle_that_is_missing_is_told() {
        let disk: SharedDisk = Arc::new(SimDisk::new());
        let segment = begun(&disk, &records(5..30));
        let tx = segment.db.begin_write().unwrap();
        // Eleven of these records make a bundle.
        tx.open_table(RECORDS).unwrap().retain_in(key(16, 0)..key(27, 0), |_, _| false).unwrap();
        tx.commit().unwrap();
        let read = segment.read(5, 100, usize::MAX);
        assert!(matches!(read, Err(LogError::Damaged { .. })), "{read:?}");
    }
}
