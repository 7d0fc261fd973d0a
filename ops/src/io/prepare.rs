//! `warren prepare`: certificates and settings of a new ensemble, written.

use crate::prepare::{CERT_FILE, Plan, SETTINGS_FILE};
use std::error::Error;
use std::fs;
use std::path::Path;
use warren_transport::io::certs::{self, CA_FILE};

/// The authority's folder, in the one that is prepared.
const CA_DIR: &str = "ca";

/// Write `DIR/ca` and `DIR/1`, `DIR/2` and so on; nothing when the ensemble cannot be, or is there already. Answers what there
/// is to do then.
pub(super) fn run(plan: &Plan, dir: &Path) -> Result<String, Box<dyn Error>> {
    let all = plan.settings()?;
    let ca = dir.join(CA_DIR);
    certs::init(&ca, &plan.ensemble)?;
    let mut text = format!("made {}; for each host, as root:\n", dir.display());
    for ((id, settings), host) in (1..).zip(&all).zip(&plan.hosts) {
        let folder = dir.join(id.to_string());
        let failed = |e| format!("cannot write {}: {e}", folder.display());
        fs::create_dir_all(&folder).map_err(failed)?;
        certs::write_secret(&folder.join(CERT_FILE), &certs::issue(&ca, id)?)?;
        fs::copy(ca.join(CA_FILE), folder.join(CA_FILE)).map_err(failed)?;
        fs::write(folder.join(SETTINGS_FILE), settings).map_err(failed)?;
        text.push_str(&format!("  scp {}/* {host}:/etc/warren/\n", folder.display()));
    }
    text.push_str(&format!(
        "then `systemctl enable --now --no-block warrend` on each. {} makes certificates for all to come: keep it in a safe \
         place, and not on the servers",
        ca.display()
    ));
    Ok(text)
}
