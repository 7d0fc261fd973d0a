//! Pages that are read in turn come out of the system in one call for many of them. redb asks page by page, and of a tree that
//! is sent away each 4 KiB would be a call; that costs more than to copy them once more.

use parking_lot::Mutex;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Read at once, bytes: little enough to stay in a processor's cache until it is asked for.
const WINDOW_BYTES: usize = 128 << 10;

/// What was read last, in turn, of one file.
#[derive(Debug, Default)]
pub(super) struct Window(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    offset: u64,
    /// Of `buffer`.
    bytes: usize,
    /// Nothing, or [`WINDOW_BYTES`].
    buffer: Vec<u8>,
}

impl Held {
    fn give(&self, offset: u64, out: &mut [u8]) -> bool {
        let place = offset.checked_sub(self.offset).and_then(|place| usize::try_from(place).ok());
        let from = place.and_then(|place| self.buffer[..self.bytes].get(place..)?.get(..out.len()));
        from.map(|data| out.copy_from_slice(data)).is_some()
    }
}

impl Window {
    /// Read these bytes out of it. `false`: it does not have them, or is in use; who would have to wait reads the file.
    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> bool {
        self.0.try_lock().is_some_and(|held| held.give(offset, out))
    }

    /// Read it anew, from here on, and these bytes out of it. `false`: that did not go; reading them from the file says why.
    pub(super) fn read_anew(&self, file: &File, offset: u64, out: &mut [u8]) -> bool {
        let Some(mut held) = self.0.try_lock() else { return false };
        let held = &mut *held;
        held.bytes = 0;
        if out.len() >= WINDOW_BYTES {
            return false;
        }
        held.buffer.resize(WINDOW_BYTES, 0);
        held.offset = offset;
        held.bytes = file.read_at(&mut held.buffer, offset).unwrap_or(0);
        held.give(offset, out)
    }

    /// The file was changed between these places. Comes behind the change: what is read beside it may be neither.
    pub(super) fn forget(&self, from: u64, to: u64) {
        let mut held = self.0.lock();
        if from < held.offset + held.bytes as u64 && held.offset < to {
            held.bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::FolderDisk;
    use super::*;
    use crate::dice::Dice;
    use crate::disk::Disk as _;
    use crate::run::PAGE_BYTES as PAGE;
    use std::fs::OpenOptions;

    #[test]
    fn what_is_read_in_turn_is_what_the_file_has_also_behind_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let disk = FolderDisk::open(dir.path()).unwrap();
        for file in [disk.open("plain", 0).unwrap(), disk.open_bulk("bulk").unwrap()] {
            let mut expected: Vec<u8> = (0..90 * PAGE + 17).map(|at| (at / PAGE) as u8).collect();
            file.write(0, &expected).unwrap();
            let mut dice = Dice(7);
            let mut at = 0;
            for turn in 0..2_000 {
                let (what, where_) = (dice.below(16), dice.below(89));
                match what {
                    0 => {
                        let data = [turn as u8; PAGE];
                        file.write((where_ * PAGE) as u64, &data).unwrap();
                        expected[where_ * PAGE..][..PAGE].copy_from_slice(&data);
                    }
                    1 => {
                        // Shorter, and longer again: what was there is zeros.
                        file.set_len((where_ * PAGE) as u64).unwrap();
                        file.set_len(expected.len() as u64).unwrap();
                        expected[where_ * PAGE..].fill(0);
                    }
                    2 => at = where_,
                    _ => at = (at + 1) % 89,
                }
                let mut read = [0; PAGE];
                file.read((at * PAGE) as u64, &mut read).unwrap();
                assert!(read == expected[at * PAGE..][..PAGE], "turn {turn}: page {at}");
            }
            let mut end = [0; 17];
            file.read((90 * PAGE) as u64, &mut end).unwrap();
            assert!(end == expected[90 * PAGE..]);
            assert!(file.read((90 * PAGE) as u64, &mut [0; 18]).is_err(), "no more than there is");
        }
    }

    #[test]
    fn it_is_read_once_and_forgotten_where_the_file_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, vec![1; 3 * WINDOW_BYTES]).unwrap();
        let file = OpenOptions::new().read(true).open(&path).unwrap();
        let (window, begin) = (Window::default(), WINDOW_BYTES as u64);
        let mut out = [0; PAGE];
        assert!(!window.read(begin, &mut out), "nothing was read yet");
        assert!(window.read_anew(&file, begin, &mut out) && out == [1; PAGE]);
        // So that it shows who reads the file.
        std::fs::write(&path, vec![2; 3 * WINDOW_BYTES]).unwrap();
        let last = 2 * begin - PAGE as u64;
        assert!(window.read(last, &mut out) && out == [1; PAGE]);
        assert!(!window.read(last + 1, &mut out) && !window.read(begin - 1, &mut out));
        window.forget(0, begin);
        window.forget(2 * begin, 3 * begin);
        assert!(window.read(begin, &mut out), "beside it");
        window.forget(last, last + 1);
        assert!(!window.read(begin, &mut out));
        assert!(window.read_anew(&file, begin, &mut out) && out == [2; PAGE]);
        let held = window.0.lock();
        assert!(!window.read(begin, &mut out) && !window.read_anew(&file, begin, &mut out), "nobody waits");
        drop(held);
        assert!(
            !window.read_anew(&file, begin, &mut vec![0; WINDOW_BYTES]),
            "who reads as much reads the file"
        );
    }
}
