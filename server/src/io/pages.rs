//! Pages of memory.

/// Have memory in small pages only, in this process and in those that take its place.
///
/// A huge page is cleared whole by whoever first touches it. That took 4 ms in a virtual machine, with the thread of the log as
/// the one that most often paid, and everybody's writes behind it. And what has a little in it is held whole.
pub(super) fn keep_small() {
    if let Err(e) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!("huge pages are used where the system offers them: {e}");
    }
}
