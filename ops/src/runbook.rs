//! `warren runbook`: what an alert means and what to do about it, printed on the machine that it is about.

use crate::cli::Exit;

macro_rules! runbooks {
    ($($name:ident)+) => {
        /// Every runbook, by the name of its alert, in the order of `alerts/warren.yml`.
        pub const RUNBOOKS: &[(&str, &str)] =
            &[$( (stringify!($name), include_str!(concat!("../runbooks/", stringify!($name), ".md"))), )+];
    };
}

runbooks! {
    WarrenServerDown
    WarrenNoLeader
    WarrenServerCutOff
    WarrenNotServing
    WarrenLeaderChanges
    WarrenFollowerNotSynced
    WarrenServerLags
    WarrenLinkDown
    WarrenPeersRefused
    WarrenRestarts
    WarrenTreeDiffers
    WarrenDigestsMismatch
    WarrenDiskWaiting
    WarrenDiskBelowReserve
    WarrenDiskFillsUp
    WarrenSlowDisk
    WarrenSlowWrites
    WarrenRequestsWait
    WarrenConnectionsNearLimit
    WarrenConnectionsRejected
    WarrenSessionsNearLimit
    WarrenWatchesNearLimit
    WarrenFileDescriptorsNearLimit
    WarrenSessionsExpire
    WarrenSessionsCutOff
    WarrenAuthFailures
    WarrenBackupTooOld
    WarrenCertificateEnds
    WarrenCertificateUnusable
}

/// How the commands in a runbook find the server.
const PLACES: &str = "The commands take where the server is from the shell, for example:
  export DATA=/var/lib/warren METRICS=127.0.0.1:7000 ADMIN=127.0.0.1:8080
";

/// The runbook of this alert, whatever the case of its letters, or the list of all. An error says what there is.
pub fn text(name: Option<&str>) -> Result<String, String> {
    let Some(name) = name else { return Ok(list()) };
    match RUNBOOKS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
        Some((_, text)) => Ok(format!("{text}\n{PLACES}")),
        None => Err(format!("there is no runbook `{name}`; `warren runbook` lists them")),
    }
}

/// Each name with the first sentence of its meaning.
fn list() -> String {
    let wide = RUNBOOKS.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let line = |(name, text): &(&str, &str)| format!("{name:<wide$}  {}\n", meaning(text));
    RUNBOOKS.iter().map(line).collect()
}

/// The first sentence under `## Meaning`.
fn meaning(text: &str) -> String {
    let paragraph = text.split("## Meaning").nth(1).unwrap_or_default().trim_start();
    let paragraph = paragraph.split("\n\n").next().unwrap_or_default().replace('\n', " ");
    paragraph.split_inclusive(". ").next().unwrap_or_default().trim_end().to_owned()
}

/// Print it, or say that there is none.
pub fn print(name: Option<&str>) -> Exit {
    match text(name) {
        Ok(text) => {
            print!("{text}");
            Exit::Done
        }
        Err(why) => {
            eprintln!("warren: {why}");
            Exit::Usage
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_found_by_its_name_and_listed_with_its_meaning() {
        for (name, text) in RUNBOOKS {
            assert!(text.starts_with(&format!("# {name}\n")), "{name}");
            assert!(meaning(text).ends_with('.') && meaning(text).len() > 20, "{name}: {}", meaning(text));
        }
        let told = text(Some("warrennoleader")).unwrap();
        assert!(told.starts_with("# WarrenNoLeader\n") && told.ends_with(PLACES));
        assert!(text(Some("Nothing")).unwrap_err().contains("`warren runbook` lists them"));
        let listed = text(None).unwrap();
        assert_eq!(listed.lines().count(), RUNBOOKS.len());
        assert!(listed.lines().all(|line| line.ends_with('.')), "{listed}");
    }
}
