//! The log as a stream for the operator's command.
//!
//! ```text
//!  record: length u32 │ index u64 │ term u64 │ kind u8 │ data          little-endian; the length is the data's
//!  end:    a record with index 0
//! ```
//! Before a record may come what became of its requests: the same, with a kind of its own, and JSON for data.

use serde::{Deserialize, Serialize};
use std::io::{self, Read};
use warren_storage::log::{LogRecord, RecordKind};

/// Bytes of a record before its data.
const HEADER_BYTES: usize = 21;
/// Data of a record at most, bytes: what the log itself takes.
const DATA_BYTES_MAX: usize = 128 << 20;

/// The kind of what is no record, but [`Outcomes`] of the next one.
const OUTCOMES: u8 = 255;

/// What became of the requests of a log entry. Each that is not among the others took the next zxid and succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    /// The zxid before the entry.
    pub before: i64,
    /// In the order of the entry.
    pub others: Vec<Other>,
}

/// A request that did not simply succeed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Other {
    /// Which of the entry's, from 0.
    pub command: u32,
    /// Did it take a zxid?
    pub took_zxid: bool,
    /// What became of it, in words.
    pub what: String,
}

/// Append what became of the requests of the record that comes next.
pub fn write_outcomes(out: &mut Vec<u8>, index: u64, outcomes: &Outcomes) {
    let data = serde_json::to_vec(outcomes).expect("plain values are JSON");
    write(out, index, 0, OUTCOMES, &data);
}

/// Append a record; `None`: the end.
pub fn write_record(out: &mut Vec<u8>, record: Option<&LogRecord>) {
    let (index, term, kind, data) = match record {
        Some(record) => (record.index, record.term, record.kind as u8, &record.data[..]),
        None => (0, 0, 0, &[][..]),
    };
    write(out, index, term, kind, data);
}

fn write(out: &mut Vec<u8>, index: u64, term: u64, kind: u8, data: &[u8]) {
    out.extend_from_slice(&(data.len() as u32).to_le_bytes());
    out.extend_from_slice(&index.to_le_bytes());
    out.extend_from_slice(&term.to_le_bytes());
    out.push(kind);
    out.extend_from_slice(data);
}

/// The next one with what became of its requests, where that is known; `None` at the end. Memory grows with what arrives.
///
/// # Errors
/// The reader's; [`io::ErrorKind::UnexpectedEof`] when it ends before the end, [`io::ErrorKind::InvalidData`] for what is no
/// record.
pub fn read_record(from: &mut impl Read) -> io::Result<Option<(LogRecord, Option<Outcomes>)>> {
    let mut outcomes = None;
    loop {
        let (index, term, kind, data) = read(from)?;
        let kind = match kind {
            OUTCOMES => {
                outcomes = Some((index, serde_json::from_slice(&data)?));
                continue;
            }
            kind => RecordKind::of(kind).ok_or_else(|| bad("a record of no known kind"))?,
        };
        let outcomes = outcomes.filter(|(of, _)| *of == index).map(|(_, outcomes)| outcomes);
        return Ok((index > 0).then(|| (LogRecord { index, term, kind, data: data.into() }, outcomes)));
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn read(from: &mut impl Read) -> io::Result<(u64, u64, u8, Vec<u8>)> {
    let mut header = [0; HEADER_BYTES];
    from.read_exact(&mut header)?;
    let long = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("8 bytes"));
    let length = u32::from_le_bytes(header[..4].try_into().expect("4 bytes")) as usize;
    if length > DATA_BYTES_MAX {
        return Err(bad("a record larger than a log takes"));
    }
    let mut data = Vec::new();
    if from.take(length as u64).read_to_end(&mut data)? < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((long(4), long(12), header[20], data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_back_to_the_end() {
        let record = |index, kind, data: &'static [u8]| LogRecord { index, term: 3, kind, data: data.into() };
        let records = [record(1, RecordKind::Normal, b"x"), record(u64::MAX, RecordKind::ConfChangeV2, b"")];
        let mut bytes = Vec::new();
        let other = Other { command: 2, took_zxid: true, what: "refused".to_owned() };
        let outcomes = Outcomes { before: -1, others: vec![other] };
        // Of one that is not there, too.
        write_outcomes(&mut bytes, 7, &outcomes);
        write_record(&mut bytes, Some(&records[0]));
        write_outcomes(&mut bytes, u64::MAX, &outcomes);
        write_record(&mut bytes, Some(&records[1]));
        write_record(&mut bytes, None);
        let mut from = bytes.as_slice();
        let [first, second] = records;
        assert_eq!(read_record(&mut from).unwrap(), Some((first, None)));
        assert_eq!(read_record(&mut from).unwrap(), Some((second, Some(outcomes))));
        assert_eq!(read_record(&mut from).unwrap(), None);
        let kind = |mut bytes: &[u8]| read_record(&mut bytes).unwrap_err().kind();
        assert_eq!(kind(&bytes[..10]), io::ErrorKind::UnexpectedEof);
        assert_eq!(kind(&bytes[..21]), io::ErrorKind::UnexpectedEof);
        assert_eq!(kind(&[255; 30]), io::ErrorKind::InvalidData);
    }
}
