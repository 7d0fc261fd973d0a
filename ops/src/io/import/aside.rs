//! Where data of znodes lie until they are written: a file in the folder of the new store, so that memory is for paths and
//! Stats.

use crate::import::fold::Data;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Bytes that wait to be written.
const BUFFER_BYTES: usize = 1 << 20;

/// Data in a file, or nowhere: whoever only tries needs none back.
pub(super) enum Aside {
    File { file: File, written: u64, buffer: Vec<u8> },
    Nowhere,
}

impl Aside {
    pub(super) fn create(path: &Path) -> io::Result<Aside> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
        Ok(Aside::File { file, written: 0, buffer: Vec::with_capacity(BUFFER_BYTES) })
    }
}

impl Data for Aside {
    fn keep(&mut self, bytes: &[u8]) -> io::Result<u64> {
        match self {
            Aside::Nowhere => Ok(0),
            Aside::File { file, written, buffer } => {
                if buffer.len() + bytes.len() > BUFFER_BYTES {
                    file.write_all(buffer)?;
                    *written += buffer.len() as u64;
                    buffer.clear();
                }
                let at = *written + buffer.len() as u64;
                if bytes.len() > BUFFER_BYTES {
                    file.write_all(bytes)?;
                    *written += bytes.len() as u64;
                } else {
                    buffer.extend_from_slice(bytes);
                }
                Ok(at)
            }
        }
    }

    fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        match self {
            Aside::Nowhere => unreachable!("what is only tried is not written"),
            Aside::File { file, written, buffer } => match at.checked_sub(*written) {
                None => file.read_exact_at(out, at),
                Some(at) => {
                    let at = at as usize;
                    out.copy_from_slice(&buffer[at..at + out.len()]);
                    Ok(())
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_aside_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut aside = Aside::create(&dir.path().join("aside")).unwrap();
        let mut kept = Vec::new();
        for (n, length) in
            [3, 0, BUFFER_BYTES - 3, 7, BUFFER_BYTES + 1, 5, BUFFER_BYTES, 1].iter().enumerate()
        {
            let bytes = vec![n as u8; *length];
            kept.push((aside.keep(&bytes).unwrap(), bytes));
        }
        for (at, bytes) in &kept {
            let mut out = vec![0xff; bytes.len()];
            aside.read(*at, &mut out).unwrap();
            assert!(out == *bytes, "at {at}");
        }
    }
}
