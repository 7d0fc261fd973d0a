//! Which threads come first where processors are few.

/// This thread stands so far behind those that clients wait for, from now on. The kernel's niceness is per thread.
pub(super) fn step_back(niceness: i32) {
    if let Err(e) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), niceness) {
        let thread = std::thread::current();
        tracing::debug!(thread = thread.name(), "a thread for what can wait runs at normal priority: {e}");
    }
}
