//! A part of a file while it is put together in memory.

/// Of a run, bytes: what is written behind it waits no longer than for one write of that length.
pub const RUN_BYTES: usize = 256 << 10;
/// Whatever is written past a system's cache has to be a multiple of this, in the file, in memory and in length; bytes. No
/// disk asks for more.
pub const PAGE_BYTES: usize = 4096;

/// Some of the pages of a part of a file, which begins at a multiple of [`RUN_BYTES`].
#[derive(Debug)]
pub struct Run {
    /// [`PAGE_BYTES`] longer than what it is used for.
    buffer: Box<[u8]>,
    offset: u64,
    /// Which pages are there, one bit for each.
    pages: u64,
}

const _: () = assert!(RUN_BYTES / PAGE_BYTES == u64::BITS as usize, "a bit for each page");

impl Default for Run {
    fn default() -> Run {
        Run { buffer: vec![0; RUN_BYTES + PAGE_BYTES].into(), offset: 0, pages: 0 }
    }
}

impl Run {
    /// Are these whole pages?
    pub fn takes(offset: u64, bytes: usize) -> bool {
        offset.is_multiple_of(PAGE_BYTES as u64) && bytes.is_multiple_of(PAGE_BYTES)
    }

    /// Begin anew, with no page, as the part of the file that `offset` is in; bytes.
    #[must_use]
    pub fn at(self, offset: u64) -> Run {
        Run { offset: offset - offset % RUN_BYTES as u64, pages: 0, ..self }
    }

    /// As many of these bytes as are in the same run as the first of them, and the rest.
    pub fn split(offset: u64, data: &[u8]) -> (&[u8], &[u8]) {
        data.split_at(data.len().min(RUN_BYTES - (offset % RUN_BYTES as u64) as usize))
    }

    /// Put whole pages in their place.
    ///
    /// # Panics
    /// When they are not [whole pages](Run::takes) of this part of the file.
    pub fn put(&mut self, offset: u64, data: &[u8]) {
        assert!(Run::takes(offset, data.len()), "not whole pages");
        let begin = self.begin() + self.here(offset);
        self.buffer[begin..begin + data.len()].copy_from_slice(data);
        self.pages |= self.mask(offset, data.len());
    }

    /// These bytes, where the pages that they are in are all there, in this part of the file.
    pub fn get(&self, offset: u64, bytes: usize) -> Option<&[u8]> {
        let (place, mask) = (self.place(offset)?, self.mask(offset, bytes));
        let begin = self.begin() + place;
        (place + bytes <= RUN_BYTES && self.pages & mask == mask).then(|| &self.buffer[begin..begin + bytes])
    }

    /// Is a page there that some of these bytes are in?
    pub fn overlaps(&self, offset: u64, bytes: usize) -> bool {
        self.pages & self.mask(offset, bytes) != 0
    }

    /// Are all pages there?
    pub fn is_whole(&self) -> bool {
        self.pages == u64::MAX
    }

    /// What is there, each as long as pages follow one another: its place in the file and the bytes, which begin at a multiple
    /// of [`PAGE_BYTES`] in memory.
    pub fn parts(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let mut rest = self.pages;
        std::iter::from_fn(move || {
            let first = rest.trailing_zeros();
            if first == u64::BITS {
                return None;
            }
            let pages = (rest >> first).trailing_ones();
            rest &= !ones(first, pages);
            let begin = self.begin() + first as usize * PAGE_BYTES;
            let part = &self.buffer[begin..begin + pages as usize * PAGE_BYTES];
            Some((self.offset + u64::from(first) * PAGE_BYTES as u64, part))
        })
    }

    fn begin(&self) -> usize {
        self.buffer.as_ptr().align_offset(PAGE_BYTES)
    }

    fn here(&self, offset: u64) -> usize {
        self.place(offset).expect("in this part of the file")
    }

    /// Where in this part of the file that is, if it is.
    fn place(&self, offset: u64) -> Option<usize> {
        let place = offset.checked_sub(self.offset).filter(|place| *place < RUN_BYTES as u64);
        place.map(|place| place as usize)
    }

    /// The pages of this part of the file that these bytes are in.
    fn mask(&self, offset: u64, bytes: usize) -> u64 {
        let page = |place: u64| (place / PAGE_BYTES as u64) as u32;
        let end = (offset + bytes as u64).saturating_sub(self.offset).min(RUN_BYTES as u64);
        let first = offset.saturating_sub(self.offset).min(RUN_BYTES as u64);
        let count = page(end.next_multiple_of(PAGE_BYTES as u64)) - page(first);
        ones(page(first), count)
    }
}

/// So many bits from this one on.
fn ones(first: u32, count: u32) -> u64 {
    let ones = u64::MAX.checked_shr(u64::BITS - count).unwrap_or(0);
    ones.checked_shl(first).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: u64 = 3 * RUN_BYTES as u64;

    fn page(n: usize) -> u64 {
        AT + (n * PAGE_BYTES) as u64
    }

    #[test]
    fn what_is_there_is_told_in_parts_as_long_as_pages_follow_one_another() {
        let mut run = Run::default().at(page(17) + 5);
        assert_eq!(run.parts().count(), 0);
        for (first, pages) in [(0, 2), (2, 1), (5, 3), (63, 1)] {
            run.put(page(first), &vec![first as u8 + 1; pages * PAGE_BYTES]);
        }
        let parts: Vec<_> = run.parts().map(|(offset, data)| (offset, data.len() / PAGE_BYTES)).collect();
        assert_eq!(parts, [(page(0), 3), (page(5), 3), (page(63), 1)]);
        assert!(run.parts().all(|(_, data)| data.as_ptr().align_offset(PAGE_BYTES) == 0));
        let first = run.parts().next().unwrap().1;
        assert!(first[..2 * PAGE_BYTES].iter().all(|byte| *byte == 1));
        assert!(first[2 * PAGE_BYTES..].iter().all(|byte| *byte == 3));
        assert!(!run.is_whole());
        run.put(AT, &vec![9; RUN_BYTES]);
        assert!(run.is_whole());
        assert_eq!(
            run.parts().map(|(offset, data)| (offset, data.len())).collect::<Vec<_>>(),
            [(AT, RUN_BYTES)]
        );
        assert_eq!(run.at(0).parts().count(), 0, "it begins anew");
    }

    #[test]
    fn it_gives_what_it_has_whole_and_knows_what_it_has_in_part() {
        let mut run = Run::default().at(AT);
        run.put(page(4), &[4; 2 * PAGE_BYTES]);
        assert_eq!(run.get(page(4) + 10, PAGE_BYTES).unwrap(), [4; PAGE_BYTES]);
        assert!(run.get(page(5), 2 * PAGE_BYTES).is_none() && run.overlaps(page(5), 2 * PAGE_BYTES));
        assert!(run.get(page(6), 1).is_none() && !run.overlaps(page(6), 90 * PAGE_BYTES));
        run.put(page(63), &[63; PAGE_BYTES]);
        assert!(run.get(page(63), PAGE_BYTES).is_some() && run.get(page(63), PAGE_BYTES + 1).is_none());
        assert!(run.overlaps(page(0) - 1, RUN_BYTES) && run.overlaps(page(60), RUN_BYTES));
        assert!(!run.overlaps(page(64), PAGE_BYTES) && !run.overlaps(page(0) - 9, 9));
    }

    #[test]
    fn what_goes_beyond_it_is_split_off() {
        let data = [7; 3 * PAGE_BYTES];
        let (here, behind) = Run::split(page(62), &data);
        assert_eq!((here.len(), behind.len()), (2 * PAGE_BYTES, PAGE_BYTES));
        let (here, behind) = Run::split(page(61), &data);
        assert_eq!((here.len(), behind.len()), (3 * PAGE_BYTES, 0));
    }
}
