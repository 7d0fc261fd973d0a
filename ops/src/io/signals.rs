//! SIGINT and SIGTERM as a flag that is asked.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{SignalKind, signal};

/// Set once one of the signals came.
pub(super) struct Interrupted(Arc<AtomicBool>);

impl Interrupted {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// From now on the signals no longer end the process.
pub(super) fn watch() -> io::Result<Interrupted> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let set = Arc::new(AtomicBool::new(false));
    let told = set.clone();
    std::thread::Builder::new().name("warren-signals".into()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        told.store(true, Ordering::Relaxed);
    })?;
    Ok(Interrupted(set))
}
