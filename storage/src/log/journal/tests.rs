//! The journal alone, on a disk that loses power anywhere, over space of a former life.

use super::*;
use crate::disk::Disk;
use crate::simdisk::SimDisk;

const JOURNAL_BYTES: u64 = 96 << 10;
const PAGES: u64 = 48;
const PAGE: usize = PAGE_BYTES as usize;

/// splitmix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// What each page may hold: what was synced, and what was written since.
struct Model {
    may: Vec<Vec<Vec<u8>>>,
}

impl Model {
    fn write(&mut self, page: u64, bytes: &[u8]) {
        self.may[page as usize].push(bytes.to_vec());
    }

    fn synced(&mut self) {
        for may in &mut self.may {
            may.drain(..may.len() - 1);
        }
    }

    /// By sectors: a page that was written and not synced may be torn.
    fn check(&self, file: &dyn StorageBackend, latest: bool, what: &str) {
        for (page, may) in self.may.iter().enumerate() {
            let mut bytes = vec![0; PAGE];
            file.read(page as u64 * PAGE_BYTES, &mut bytes).unwrap();
            let may = if latest { &may[may.len() - 1..] } else { &may[..] };
            for (at, sector) in bytes.chunks(512).enumerate() {
                assert!(
                    may.iter().any(|m| m[at * 512..][..512] == *sector),
                    "{what}: page {page} sector {at} is none of the {} that it may be",
                    may.len()
                );
            }
        }
    }
}

fn open(disk: &SimDisk) -> io::Result<Journaled> {
    Journaled::open(disk.open("file", 1).map_err(|e| e.source)?)
}

fn create(disk: &SimDisk) -> (Journaled, Model) {
    let file = Journaled::create(disk.open("file", 1).unwrap(), JOURNAL_BYTES).unwrap();
    file.set_len(PAGES * PAGE_BYTES).unwrap();
    let mut model = Model { may: vec![Vec::new(); PAGES as usize] };
    for page in 0..PAGES {
        file.write(page * PAGE_BYTES, &[0; PAGE]).unwrap();
        model.write(page, &[0; PAGE]);
    }
    file.sync_data().unwrap();
    model.synced();
    disk.sync_folder().unwrap();
    (file, model)
}

/// Writes and syncs until the disk fails. Which kinds of steps were made.
fn drive(file: &Journaled, model: &mut Model, dice: &mut Dice, steps: u64) -> io::Result<()> {
    let mut content = 0u8;
    for _ in 0..steps {
        // Small ones in long rows, so that both halves are filled again and again.
        let pages = if dice.below(40) == 0 { 20 + dice.below(20) } else { 1 + dice.below(5) };
        for _ in 0..pages {
            content = content.wrapping_add(1).max(1);
            let page = dice.below(PAGES);
            let mut bytes = vec![content; PAGE];
            bytes[dice.below(PAGE as u64) as usize..].fill(0);
            model.write(page, &bytes);
            file.write(page * PAGE_BYTES, &bytes)?;
        }
        file.sync_data()?;
        model.synced();
    }
    Ok(())
}

#[test]
fn what_was_synced_survives_a_power_loss_anywhere() {
    for seed in 0..600 {
        let mut dice = Dice(seed);
        let disk = SimDisk::new();
        let (mut file, mut model) = create(&disk);
        // A former life of the file, of which nothing may come back.
        if seed % 3 == 0 {
            drive(&file, &mut model, &mut dice, 60).unwrap();
            drop(file);
            let raw = disk.open("file", 1).unwrap();
            raw.write(0, &[0; PAGE]).unwrap();
            raw.sync_data().unwrap();
            (file, model) = create(&disk);
        }
        disk.lose_power_at(disk.operations() + 1 + dice.below(500));
        let failed = drive(&file, &mut model, &mut dice, 80).is_err();
        drop(file);
        let mut disk = disk.after_crash(seed);
        // The power goes again while it is replayed.
        for again in 0..2 {
            disk.lose_power_at(1 + dice.below(30));
            let _ = open(&disk);
            disk = disk.after_crash(seed + again);
        }
        let what = format!("seed {seed}");
        let file = open(&disk).unwrap();
        model.check(&file, !failed, &what);
        // And it goes on from there.
        for page in 0..PAGES {
            let mut bytes = vec![0; PAGE];
            file.read(page * PAGE_BYTES, &mut bytes).unwrap();
            model.may[page as usize] = vec![bytes];
        }
        drive(&file, &mut model, &mut dice, 40).unwrap();
        model.check(&file, true, &what);
        drop(file);
        model.check(&open(&disk.after_crash(seed)).unwrap(), true, &what);
    }
}

#[test]
fn a_small_commit_is_one_write_and_one_sync() {
    let disk = SimDisk::new();
    let (file, mut model) = create(&disk);
    // The pages of `create` were many.
    for _ in 0..SMALL_IN_A_ROW {
        file.write(0, &[0; PAGE]).unwrap();
        file.sync_data().unwrap();
    }
    let before = (disk.operations(), disk.syncs());
    for page in [3, 17, 31, 40] {
        file.write(page * PAGE_BYTES, &[9; PAGE]).unwrap();
        model.write(page, &[9; PAGE]);
    }
    file.sync_data().unwrap();
    model.synced();
    assert_eq!((disk.operations() - before.0, disk.syncs() - before.1), (2, 1));
    model.check(&file, true, "before the crash");
    model.check(&open(&disk.after_crash(0)).unwrap(), true, "after it");
}

#[test]
fn a_closed_file_has_nothing_to_replay() {
    let disk = SimDisk::new();
    let (file, mut model) = create(&disk);
    drive(&file, &mut model, &mut Dice(7), 60).unwrap();
    file.close().unwrap();
    let syncs = disk.syncs();
    let file = open(&disk).unwrap();
    assert_eq!(disk.syncs(), syncs);
    model.check(&file, true, "closed");
}

#[test]
fn a_file_without_a_journal_is_refused() {
    let disk = SimDisk::new();
    disk.open("file", 1).unwrap().set_len(1 << 20).unwrap();
    assert_eq!(open(&disk).unwrap_err().kind(), io::ErrorKind::InvalidData);
    let disk = SimDisk::new();
    let (file, _) = create(&disk);
    drop(file);
    disk.open("file", 1).unwrap().set_len(5_000).unwrap();
    assert_eq!(open(&disk).unwrap_err().kind(), io::ErrorKind::InvalidData);
}
