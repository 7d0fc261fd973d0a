//! The log as a stream for the operator's command.
//!
//! ```text
//!  record: length u32 │ index u64 │ term u64 │ kind u8 │ data          little-endian; the length is the data's
//!  end:    a record with index 0
//! ```

use std::io::{self, Read};
use warren_storage::log::{LogRecord, RecordKind};

/// Bytes of a record before its data.
const HEADER_BYTES: usize = 21;
/// Data of a record at most, bytes: what the log itself takes.
const DATA_BYTES_MAX: usize = 128 << 20;

/// Append a record; `None`: the end.
pub fn write_record(out: &mut Vec<u8>, record: Option<&LogRecord>) {
    let (index, term, kind, data) = match record {
        Some(record) => (record.index, record.term, record.kind as u8, &record.data[..]),
        None => (0, 0, 0, &[][..]),
    };
    out.extend_from_slice(&(data.len() as u32).to_le_bytes());
    out.extend_from_slice(&index.to_le_bytes());
    out.extend_from_slice(&term.to_le_bytes());
    out.push(kind);
    out.extend_from_slice(data);
}

/// The next one; `None` at the end. Memory grows with what arrives.
///
/// # Errors
/// The reader's; [`io::ErrorKind::UnexpectedEof`] when it ends before the end, [`io::ErrorKind::InvalidData`] for what is no
/// record.
pub fn read_record(from: &mut impl Read) -> io::Result<Option<LogRecord>> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut header = [0; HEADER_BYTES];
    from.read_exact(&mut header)?;
    let long = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("8 bytes"));
    let length = u32::from_le_bytes(header[..4].try_into().expect("4 bytes")) as usize;
    let kind = match header[20] {
        0 => RecordKind::Normal,
        1 => RecordKind::ConfChange,
        2 => RecordKind::ConfChangeV2,
        _ => return Err(bad("a record of no known kind")),
    };
    if length > DATA_BYTES_MAX {
        return Err(bad("a record larger than a log takes"));
    }
    let mut data = Vec::new();
    if from.take(length as u64).read_to_end(&mut data)? < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let (index, term) = (long(4), long(12));
    Ok((index > 0).then(|| LogRecord { index, term, kind, data: data.into() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_back_to_the_end() {
        let record = |index, kind, data: &'static [u8]| LogRecord { index, term: 3, kind, data: data.into() };
        let records = [record(1, RecordKind::Normal, b"x"), record(u64::MAX, RecordKind::ConfChangeV2, b"")];
        let mut bytes = Vec::new();
        records.iter().for_each(|record| write_record(&mut bytes, Some(record)));
        write_record(&mut bytes, None);
        let mut from = bytes.as_slice();
        for record in records {
            assert_eq!(read_record(&mut from).unwrap(), Some(record));
        }
        assert_eq!(read_record(&mut from).unwrap(), None);
        let kind = |mut bytes: &[u8]| read_record(&mut bytes).unwrap_err().kind();
        assert_eq!(kind(&bytes[..10]), io::ErrorKind::UnexpectedEof);
        assert_eq!(kind(&bytes[..21]), io::ErrorKind::UnexpectedEof);
        assert_eq!(kind(&[255; 30]), io::ErrorKind::InvalidData);
    }
}
