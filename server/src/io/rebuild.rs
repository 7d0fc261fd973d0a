//! `warren rebuild`: this server throws its data away and takes them anew from the others.
//!
//! A voter must not come back under its old identity with less than it acknowledged, so the ensemble replaces it first, as
//! by `warren member replace`: its vote counts no more, and it joins as another disk. Only then is the store asked to be
//! discarded, which the next process does before it opens anything; and this process becomes that one, in place, whatever
//! started it.

use super::engine::Engine;
use super::ensemble::Ensemble;
use super::facts::Registry;
use super::link_state::LinkState;
use super::restart::next_program;
use crate::admin::Response;
use crate::consensus::Role;
use std::os::unix::process::CommandExt as _;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use warren_storage::{Change, MemberRole};

/// Between two looks whether it was replaced.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The exit status when the process cannot become the next one: who supervises it may start it again.
const EXIT_START_AGAIN: i32 = 75;

impl Registry {
    /// To [`crate::admin::Request::Rebuild`].
    pub(super) async fn rebuild(&self) -> Response {
        let refused = |why: String| Response::Refused(why);
        let Some(ensemble) = &self.ensemble else {
            return refused("this server stands alone: there is nobody to take the data from".to_owned());
        };
        let id = ensemble.config.server_id;
        let Some(own) = self.roster().get(id).cloned() else {
            return refused(format!("server {id} does not belong to the ensemble"));
        };
        if self.engine.facts().is_some_and(|facts| facts.role == Role::Leading) {
            return refused(
                "this server leads: `warren leader transfer` first, and ask again once another one does"
                    .to_owned(),
            );
        }
        if !ensemble.states().values().any(|state| matches!(state, LinkState::Up)) {
            return refused(
                "no other server is linked, and so there is nobody to take the data from".to_owned(),
            );
        }
        if own.role != MemberRole::Observer && !is_replaced(&self.engine, ensemble) {
            let mut asked = pin!(self.engine.reconfigure(Change::Replace { id }));
            loop {
                tokio::select! {
                    answer = &mut asked => match answer {
                        Ok(_) => break,
                        Err(_) if is_replaced(&self.engine, ensemble) => break,
                        Err(e) => return refused(e.to_string()),
                    },
                    // Who was replaced hears little of what comes after, and waits in vain for the change's end.
                    () = tokio::time::sleep(LOOK_EVERY) => if is_replaced(&self.engine, ensemble) { break },
                }
            }
        }
        if let Err(e) = ensemble.ask_to_discard() {
            return refused(format!(
                "the data cannot be thrown away: {e}. Stop this server, empty its data folder, and start it"
            ));
        }
        tracing::warn!("an operator has this server rebuilt: it begins anew, with an empty store");
        self.begins_anew.store(true, Ordering::Release);
        Response::Done(
            "this server throws its data away, begins anew and takes them from the others; `warren member list` shows when it \
             takes its place again"
                .to_owned(),
        )
    }
}

/// Does the ensemble wait for another disk of this server?
fn is_replaced(engine: &Engine, ensemble: &Arc<Ensemble>) -> bool {
    let own = engine.facts().and_then(|facts| facts.members.get(ensemble.config.server_id).cloned());
    own.is_some_and(|own| own.disk > ensemble.disk_number())
}

/// This process becomes the next one, with the same command line.
pub(super) fn begin_anew(ensemble: Option<&Arc<Ensemble>>) -> ! {
    if let Some(ensemble) = ensemble {
        ensemble.stop();
    }
    let error = next_program().map_or_else(|e| e, |mut next| next.exec());
    tracing::error!(
        "this server's store begins anew with the next start, which it cannot do itself: {error}; start it"
    );
    std::process::exit(EXIT_START_AGAIN)
}
