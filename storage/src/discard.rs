//! A store that is to begin anew, empty: asked for by the process that has it open, carried out by the next one before it
//! opens anything.
//!
//! A file says that it is to be done. It goes last, so that a crash in the middle goes on at the next start.

use crate::disk::{Disk, DiskError};

/// The file.
const MARK: &str = "discard";

/// Ask for it. Durable when it returns.
///
/// # Errors
/// When the disk fails; then it may be asked for, or not.
pub fn ask_to_discard(disk: &dyn Disk) -> Result<(), DiskError> {
    drop(disk.open(MARK, 0)?);
    disk.sync_folder()
}

/// Remove everything, if that was asked for. Tells whether it was. To be called before any file is opened.
///
/// # Errors
/// When the disk fails; the next start goes on.
pub fn discard_if_asked(disk: &dyn Disk) -> Result<bool, DiskError> {
    if !disk.exists(MARK)? {
        return Ok(false);
    }
    for name in disk.list()?.iter().filter(|name| *name != MARK) {
        disk.remove(name)?;
    }
    disk.sync_folder()?;
    disk.remove(MARK)?;
    disk.sync_folder()?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simdisk::SimDisk;
    use crate::tree::{Tree, TreeOptions};
    use std::sync::Arc;

    fn options(store_id: u64) -> TreeOptions {
        TreeOptions { memory_bytes: 1 << 20, hash_seed: 1, store_id }
    }

    #[test]
    fn it_is_done_whole_or_not_at_all_wherever_the_power_goes() {
        let mut done = 0;
        for operation in 1..40 {
            let disk = SimDisk::new();
            drop(Tree::open(Arc::new(disk.clone()), options(1)).unwrap());
            assert!(!discard_if_asked(&disk).unwrap());
            let before = disk.operations();
            disk.lose_power_at(before + operation);
            let asked = ask_to_discard(&disk).is_ok();
            let finished = asked && matches!(discard_if_asked(&disk), Ok(true));
            let disk = disk.after_crash(operation);
            let again = discard_if_asked(&disk).unwrap();
            assert!(!finished || !again, "operation {operation}");
            let tree = Tree::open(Arc::new(disk.clone()), options(2)).unwrap();
            // Once it was asked for it is another store.
            let other = tree.store_id() == 2;
            assert!(!asked || other, "operation {operation}");
            assert!(!discard_if_asked(&disk).unwrap());
            done += u32::from(other);
        }
        assert!(done > 0 && done < 39, "{done}");
    }
}
