//! Ctrl-C gives up what is waited for, not the shell. While a line is typed the terminal sends no signal, and the editor sees
//! the key.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{SignalKind, signal};

/// From now on SIGINT sets the flag and no longer ends the process.
pub(super) fn watch(interrupted: Arc<AtomicBool>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let mut interrupt = {
        let _inside = runtime.enter();
        signal(SignalKind::interrupt())?
    };
    std::thread::Builder::new().name("warren-signals".into()).spawn(move || {
        runtime.block_on(async {
            while interrupt.recv().await.is_some() {
                interrupted.store(true, Ordering::Relaxed);
            }
        });
    })?;
    Ok(())
}
