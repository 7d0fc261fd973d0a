//! An ordinary file, for the tree. A checkpoint writes it in one go; left to itself the system would collect all
//! that and write it at the sync, while the log's next sync waits behind it. So it is written out in small parts as it
//! comes, with pauses that leave the disk to the log.
//!
//! The pauses of one checkpoint take at most as long as the file was left alone before it. So where checkpoints follow
//! one another, since writes come as fast as they can be kept, there are none, and what waits for a checkpoint does not
//! wait longer for them.

use super::sound::SoundFile;
use parking_lot::Mutex;
use redb::StorageBackend;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// After this many bytes written, they are synced: what a sync of the log can wait behind.
const PART_BYTES: u64 = 256 << 10;
/// A pause, in terms of how long the sync before it took.
const PAUSE_FACTOR: u32 = 2;
/// No pause is longer.
const PAUSE_MAX: Duration = Duration::from_millis(10);

/// See the module.
#[derive(Debug)]
pub(super) struct PlainFile {
    file: SoundFile,
    pace: Mutex<Pace>,
}

/// How fast it may be written.
#[derive(Debug)]
struct Pace {
    unsynced_bytes: u64,
    /// When its owner last synced it.
    settled: Instant,
    /// What pauses may still take, since the first write after that.
    left: Option<Duration>,
}

impl Pace {
    /// Count what was written: is it time to sync it?
    fn wrote(&mut self, now: Instant, bytes: u64) -> bool {
        self.left.get_or_insert(now - self.settled);
        self.unsynced_bytes += bytes;
        self.unsynced_bytes >= PART_BYTES
    }

    /// A part was synced, and that took so long: how long to wait before the next.
    fn pause(&mut self, sync: Duration) -> Duration {
        self.unsynced_bytes = 0;
        let left = self.left.get_or_insert_default();
        let pause = (sync * PAUSE_FACTOR).min(PAUSE_MAX).min(*left);
        *left -= pause;
        pause
    }

    fn settled(now: Instant) -> Pace {
        Pace { unsynced_bytes: 0, settled: now, left: None }
    }
}

impl PlainFile {
    pub(super) fn new(file: SoundFile) -> PlainFile {
        PlainFile { file, pace: Mutex::new(Pace::settled(Instant::now())) }
    }
}

impl StorageBackend for PlainFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync()?;
        *self.pace.lock() = Pace::settled(Instant::now());
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)?;
        let begun = Instant::now();
        if !self.pace.lock().wrote(begun, data.len() as u64) {
            return Ok(());
        }
        self.file.sync()?;
        let pause = self.pace.lock().pause(begun.elapsed());
        thread::sleep(pause);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(pace: &mut Pace, now: Instant, parts: u64) -> Duration {
        let mut paused = Duration::ZERO;
        for _ in 0..parts {
            assert!(!pace.wrote(now, PART_BYTES - 1));
            assert!(pace.wrote(now, 1), "a part is synced");
            paused += pace.pause(Duration::from_millis(3));
        }
        paused
    }

    #[test]
    fn pauses_take_no_longer_than_the_file_was_left_alone() {
        let begin = Instant::now();
        let mut pace = Pace::settled(begin);
        let ms = Duration::from_millis;
        assert_eq!(written(&mut pace, begin + ms(20), 2), ms(12), "twice as long as the syncs");
        assert_eq!(written(&mut pace, begin + ms(90), 9), ms(8), "and what is left");
        let mut pace = Pace::settled(begin);
        assert_eq!(written(&mut pace, begin, 9), ms(0), "none when writes follow at once");
        let mut pace = Pace::settled(begin);
        assert!(pace.wrote(begin + ms(9_000), PART_BYTES));
        assert_eq!(pace.pause(ms(800)), PAUSE_MAX);
    }
}
