//! snapshot ≤ applied ≤ committed.

use super::{Verdict, hold};
use warren_server::service::Service;

const PROPERTY: &str = "snapshot ≤ applied ≤ committed";

pub(super) fn on_step(service: &Service, committed: u64) -> Verdict {
    let (checkpointed, applied) = (service.tree().checkpointed().index, service.tree().position().index);
    hold(checkpointed <= applied, PROPERTY, || {
        format!("the checkpoint is at {checkpointed}, {applied} is applied")
    })?;
    hold(applied <= committed, PROPERTY, || format!("{applied} is applied, {committed} is committed"))
}
