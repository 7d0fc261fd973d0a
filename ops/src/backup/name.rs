//! Names of backups in a folder that is kept tidy: `warren-ENSEMBLE-20260131T235959Z-0x200000001.backup`.

use super::format::Header;
use crate::times;

/// Behind the name of a backup that is not whole; nobody takes it for one.
pub const PARTIAL: &str = ".partial";
const SUFFIX: &str = ".backup";
/// What a server that stands alone is called.
const ALONE: &str = "standalone";

/// The name of a backup. Names of one ensemble sort by their age.
pub fn of(header: &Header) -> String {
    let time = times::compact(header.of.time_ms);
    format!("{}{time}-{}{SUFFIX}", prefix(&header.of.ensemble), header.of.zxid)
}

fn prefix(ensemble: &str) -> String {
    let ensemble = if ensemble.is_empty() { ALONE } else { ensemble };
    format!("warren-{ensemble}-")
}

/// Is it a name that [`of`] gave to a backup of this ensemble?
fn is_of(ensemble: &str, name: &str) -> bool {
    let Some(rest) = name.strip_prefix(&prefix(ensemble)).and_then(|rest| rest.strip_suffix(SUFFIX)) else {
        return false;
    };
    let Some((time, zxid)) = rest.split_once('-') else { return false };
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let hex = zxid.strip_prefix("0x").is_some_and(|hex| u64::from_str_radix(hex, 16).is_ok());
    shape == "00000000T000000Z" && hex
}

/// Which of the files in a folder are too many when the newest `keep` backups of this ensemble stay. What has another name
/// is nobody's to remove.
pub fn surplus(ensemble: &str, names: Vec<String>, keep: usize) -> Vec<String> {
    let mut ours: Vec<String> = names.into_iter().filter(|name| is_of(ensemble, name)).collect();
    ours.sort_unstable();
    ours.truncate(ours.len().saturating_sub(keep));
    ours
}

/// Which of them an interrupted backup of this ensemble left.
pub fn left_over(ensemble: &str, names: Vec<String>) -> Vec<String> {
    let partial = |name: &String| name.strip_suffix(PARTIAL).is_some_and(|name| is_of(ensemble, name));
    names.into_iter().filter(partial).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use warren_server::admin::BackupHead;

    fn named(ensemble: &str, time_ms: i64) -> String {
        let of =
            BackupHead { ensemble: ensemble.into(), time_ms, zxid: "0x2a".into(), ..BackupHead::default() };
        super::of(&Header { of })
    }

    #[test]
    fn the_newest_stay_and_nothing_else_is_touched() {
        let day = 86_400_000;
        assert_eq!(named("", 0), "warren-standalone-19700101T000000Z-0x2a.backup");
        let mine: Vec<String> = (0..4).map(|n| named("east", n * day)).collect();
        let mut names = mine.clone();
        names.reverse();
        let others = [
            named("east-2", 0),
            named("west", 0),
            named("", 0),
            "warren-east-notes.backup".into(),
            "warren-east-19700101T000000Z-0xyz.backup".into(),
            format!("{}{PARTIAL}", mine[0]),
            "x".into(),
        ];
        names.extend(others.clone());
        assert_eq!(surplus("east", names.clone(), 3), &mine[..1]);
        assert_eq!(surplus("east", names.clone(), 0), mine);
        assert!(surplus("east", names.clone(), 4).is_empty());
        assert_eq!(left_over("east", names), &others[5..6]);
    }
}
