//! Reading what comes next before it is asked for, in small parts.
//!
//! The system does that by itself, up to what the disk is set to: on many machines megabytes in one go. A write of the log
//! would wait behind that for as long as a disk takes for it, again and again while a whole tree is read to be sent away.
//! So the system is told that the file is read at random, and asked for what comes next from here.

use parking_lot::Mutex;
use rustix::fs::{Advice, fadvise};
use std::fs::File;
use std::num::NonZeroU64;
use std::ops::Range;

/// Asked for at once, bytes: what a write of the log can wait behind.
const PART_BYTES: u64 = 256 << 10;
/// Whoever reads in turn has at least so much before it that was asked for, bytes.
const AHEAD_BYTES: u64 = PART_BYTES;
/// So far behind the end of what was asked for, bytes, a read belongs to who reads in turn. Others in between change nothing.
const NEAR_BYTES: u64 = 4 * PART_BYTES;

/// One for a file. Who reads in turn is guessed; where several do so at once, one has the use of it.
#[derive(Debug)]
pub(super) struct ReadAhead(Mutex<Guess>);

#[derive(Debug, Default)]
struct Guess {
    /// Where the last read ended.
    end: u64,
    /// So far everything was asked for.
    asked: u64,
}

impl Guess {
    /// Do these bytes follow what was read last, and what to ask for beside a read of them?
    fn read(&mut self, read: Range<u64>) -> (bool, Option<Range<u64>>) {
        let goes_on = read.start == self.end && read.start > 0;
        let is_near = read.start < self.asked && self.asked - read.start <= NEAR_BYTES;
        self.end = read.end;
        if is_near && self.asked.saturating_sub(read.end) >= AHEAD_BYTES || !is_near && !goes_on {
            return (goes_on, None);
        }
        let from = if is_near { self.asked.max(read.end) } else { read.end };
        self.asked = from + PART_BYTES;
        (goes_on, Some(from..self.asked))
    }
}

impl ReadAhead {
    /// Ask the system to leave it to us, for this handle of a file.
    pub(super) fn of(file: &File) -> ReadAhead {
        // Where it is not heard, the system reads ahead, too.
        let _ = fadvise(file, 0, None, Advice::Random);
        ReadAhead(Mutex::default())
    }

    /// So much is about to be read: does it follow what was read last?
    pub(super) fn before(&self, file: &File, offset: u64, bytes: usize) -> bool {
        let read = offset..offset.saturating_add(bytes as u64);
        // Who would have to wait here guesses nothing.
        let Some((goes_on, next)) = self.0.try_lock().map(|mut guess| guess.read(read)) else { return false };
        if let Some(next) = next {
            let _ = fadvise(file, next.start, NonZeroU64::new(next.end - next.start), Advice::WillNeed);
        }
        goes_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;

    /// What is asked for while these pages are read.
    fn asked(guess: &mut Guess, pages: impl IntoIterator<Item = u64>) -> Vec<Range<u64>> {
        pages.into_iter().filter_map(|page| guess.read(page * PAGE..(page + 1) * PAGE).1).collect()
    }

    #[test]
    fn who_reads_in_turn_finds_everything_asked_for_once_and_in_parts() {
        let mut guess = Guess::default();
        let mut end = 0;
        for page in 10..5_000 {
            let read = page * PAGE..(page + 1) * PAGE;
            let had = end;
            if let (_, Some(part)) = guess.read(read.clone()) {
                assert!(end == 0 || part.start == end, "nothing twice, nothing left out");
                assert_eq!(part.end - part.start, PART_BYTES);
                end = part.end;
            }
            assert!(page < 12 || read.end <= had, "page {page} was asked for before");
            assert!(end < read.end + AHEAD_BYTES + PART_BYTES + PAGE, "and not long before");
        }
    }

    #[test]
    fn a_look_elsewhere_does_not_disturb_and_asks_for_nothing() {
        let mut guess = Guess::default();
        assert!(asked(&mut guess, [0, 700, 3, 9_000, 80]).is_empty(), "at random");
        let mut end = asked(&mut guess, [200, 201, 202]).last().unwrap().end;
        for page in 203..1_000 {
            for part in asked(&mut guess, [9, page, 77_000]) {
                assert_eq!(part.start, end);
                end = part.end;
            }
            assert!(end >= (page + 1) * PAGE);
        }
    }

    #[test]
    fn what_is_longer_than_a_part_is_gone_on_behind() {
        let mut guess = Guess::default();
        let long = 3 * PART_BYTES;
        assert_eq!(guess.read(0..long), (false, None));
        assert_eq!(guess.read(long..2 * long), (true, Some(2 * long..2 * long + PART_BYTES)));
        assert_eq!(guess.read(2 * long..3 * long), (true, Some(3 * long..3 * long + PART_BYTES)));
    }
}
