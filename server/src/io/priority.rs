//! Which threads come first where processors are few.

use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};

/// This thread stands so far behind those that clients wait for, from now on. The kernel's niceness is per thread.
pub(super) fn step_back(niceness: i32) {
    if let Err(e) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), niceness) {
        not_so(&e);
    }
}

/// This thread works when its processor has nothing else to do, from now on, and gives it up at once to whoever wakes up
/// (`SCHED_IDLE`). A thread that only stepped back keeps it until its slice is over, some milliseconds, which clients feel.
pub(super) fn only_when_idle() {
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    if let Err(e) = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle) {
        not_so(&e);
    }
}

fn not_so(e: &dyn std::fmt::Display) {
    let thread = std::thread::current();
    tracing::debug!(thread = thread.name(), "a thread for what can wait runs at normal priority: {e}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_works_when_idle_is_one_and_its_neighbours_are_not() {
        let policy = || thread_priority::thread_schedule_policy().unwrap();
        let before = policy();
        let of_the_thread = std::thread::spawn(move || {
            only_when_idle();
            policy()
        });
        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        assert_eq!(of_the_thread.join().unwrap(), idle);
        assert_eq!(policy(), before);
        assert_ne!(before, idle);
    }
}
