//! One segment: a redb file of the log, either the newest, which is written, or a sealed one, which only is read.

use super::backend::{Frozen, Traffic, Watched};
use super::journal::{Halved, Journal};
use super::tables::{
    ABOUT, Assembly, BIRTH_ROW, Birth, FORMAT, FORMAT_ROW, HARD_STATE_KEY, Header, LogRecord, RECORDS,
    Stamped, index_of, key,
};
use super::{LogError, LogOptions};
use crate::disk::{Disk, SharedDisk};
use redb::{
    Builder, Database, Durability, ReadOnlyTable, ReadableDatabase, ReadableTable, StorageBackend,
    WriteTransaction,
};
use std::ops::Bound;
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
            write(&tx, None, records, Some(stamped), scratch)?;
            tx.commit()?;
            Ok(())
        };
        fill().map_err(failed)?;
        disk.rename(&unfinished, &name)?;
        disk.sync_folder()?;
        Ok(Segment { name, birth, db, journal, traffic })
    }

    /// Opens the newest segment, repairing what a killed process left; what is in the journal goes into redb.
    pub(super) fn open(disk: &SharedDisk, ahead_bytes: u64, name: &str) -> Result<(Segment, Tip), LogError> {
        let traffic = Arc::new(Traffic::default());
        let inner = disk.open(name, ahead_bytes)?;
        let watched = Box::new(Watched { inner, traffic: traffic.clone() });
        let (db, file, repaired) = open_database(name, NEWEST_CACHE_BYTES, watched)?;
        let (birth, last, hard_state_row) = read_about(name, &db)?;
        let (mut last_index, mut last_term, in_record) = match last {
            Some((index, header)) => (index, header.term, header.stamped),
            None => (birth.base_index, birth.base_term, None),
        };
        let mut stamped = in_record
            .into_iter()
            .chain(hard_state_row)
            .max_by_key(|s| s.stamp)
            .ok_or_else(|| LogError::damaged(name, "there is no hard state in it"))?;
        let journal = Journal::of(file, &birth);
        let found = journal.since(name, stamped.stamp)?;
        let segment = Segment { name: name.to_owned(), birth, db, journal, traffic };
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
        let (birth, ..) = read_about(name, &db)?;
        // Its journal was emptied when it was closed.
        let journal = Journal::of(file, &birth);
        Ok(Segment { name: name.to_owned(), birth, db, journal, traffic: Arc::default() })
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
        let mut commit = || -> Result<(), redb::Error> {
            let mut tx = self.db.begin_write()?;
            tx.set_durability(Durability::Immediate)?;
            write(&tx, truncate_from, records, stamped, scratch)?;
            tx.commit()?;
            Ok(())
        };
        commit().map_err(|e| LogError::engine("cannot append to", &self.name, e))?;
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

    /// The records from `from` to before `to`, or the first of them that make up `bytes_max`, but one at least.
    pub(super) fn read(&self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<LogRecord>, LogError> {
        let failed = |e: redb::StorageError| LogError::engine("cannot read", &self.name, e);
        let mut records = Vec::new();
        let mut bytes = 0;
        let mut rows = self.records()?.range(key(from, 0)..key(to, 0)).map_err(failed)?;
        let mut next = from;
        while let Some(row) = rows.next() {
            let (k, v) = row.map_err(failed)?;
            let k = k.value();
            if index_of(k) != next {
                let found = index_of(k);
                return Err(LogError::damaged(
                    &self.name,
                    format!("record {found} stands where {next} should"),
                ));
            }
            let mut assembly = Assembly::begin(&self.name, k, v.value())?;
            if !records.is_empty() && bytes + assembly.header().data_len > bytes_max {
                break;
            }
            while !assembly.is_complete() {
                let Some(row) = rows.next() else {
                    return Err(LogError::damaged(&self.name, format!("record {next} ends too early")));
                };
                let (k, v) = row.map_err(failed)?;
                assembly.add(&self.name, k.value(), v.value())?;
            }
            let record = assembly.finish(&self.name)?;
            bytes += record.memory_bytes();
            records.push(record);
            next += 1;
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(records)
    }

    /// The term of a record; `None` when it is not there.
    pub(super) fn term(&self, index: u64) -> Result<Option<u64>, LogError> {
        let k = key(index, 0);
        let row = self.records()?.get(k).map_err(|e| LogError::engine("cannot read", &self.name, e))?;
        row.map(|row| Ok(Assembly::begin(&self.name, k, row.value())?.header().term)).transpose()
    }
}

/// The rows of an append, within its transaction.
fn write(
    tx: &WriteTransaction,
    truncate_from: Option<u64>,
    records: &[LogRecord],
    stamped: Option<Stamped>,
    scratch: &mut Vec<u8>,
) -> Result<(), redb::Error> {
    let mut table = tx.open_table(RECORDS)?;
    if let Some(index) = truncate_from {
        table.retain_in(key(index, 0).., |_, _| false)?;
    }
    let stamped_of = |at: usize| if at + 1 == records.len() { stamped } else { None };
    match records {
        [] => {
            if let Some(stamped) = stamped {
                table.insert(HARD_STATE_KEY, stamped.encode().as_slice())?;
            }
        }
        [record] => record.pieces(stamped, scratch, |k, piece| table.insert(k, piece).map(drop))?,
        _ => {
            let mut end = table.upper_bound_mut(Bound::<u64>::Unbounded)?;
            for (at, record) in records.iter().enumerate() {
                record.pieces(stamped_of(at), scratch, |k, piece| end.insert_before(k, piece)).map_err(
                    |e| match e {
                        redb::CursorError::Storage(e) => redb::Error::from(e),
                        e => panic!("records of an append are in order: {e}"),
                    },
                )?;
            }
            end.close()?;
        }
    }
    Ok(())
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

type LastRecord = Option<(u64, Header)>;

/// Reads what a segment says of itself: birth, last record, hard state row.
fn read_about(name: &str, db: &Database) -> Result<(Birth, LastRecord, Option<Stamped>), LogError> {
    let read = || -> Result<_, redb::Error> {
        let tx = db.begin_read()?;
        let about = tx.open_table(ABOUT)?;
        let format =
            about.get(FORMAT_ROW)?.and_then(|v| Some(u32::from_le_bytes(v.value().try_into().ok()?)));
        if format != Some(FORMAT) {
            return Ok(Err(match format {
                Some(found) => LogError::Format { segment: name.to_owned(), found, known: FORMAT },
                None => LogError::damaged(name, "it does not tell its format"),
            }));
        }
        let birth = about.get(BIRTH_ROW)?.and_then(|v| postcard::from_bytes::<Birth>(v.value()).ok());
        let records = tx.open_table(RECORDS)?;
        let hard_state = records.get(HARD_STATE_KEY)?.map(|v| Stamped::decode(name, v.value()));
        let last = records.last()?.map(|(k, _)| index_of(k.value())).filter(|index| *index > 0);
        let last = match last {
            None => None,
            Some(index) => {
                let k = key(index, 0);
                let row = records.get(k)?;
                let begun = row.map(|v| Assembly::begin(name, k, v.value()));
                Some((index, begun))
            }
        };
        Ok(Ok((birth, last, hard_state)))
    };
    let (birth, last, hard_state) = read().map_err(|e| LogError::engine("cannot read", name, e))??;
    let birth = birth.ok_or_else(|| LogError::damaged(name, "it does not tell where it begins"))?;
    let last = match last {
        None => None,
        Some((index, None)) => {
            return Err(LogError::damaged(name, format!("record {index} lacks its first piece")));
        }
        Some((index, Some(begun))) => Some((index, begun?.header())),
    };
    Ok((birth, last, hard_state.transpose()?))
}
