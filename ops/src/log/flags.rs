//! The command line of `warren log`.

use clap::Args;
use warren_storage::SessionId;

/// `warren log`.
#[derive(Debug, Args)]
pub struct LogFlags {
    /// Changes of this znode, and of those below it
    #[arg(long, value_name = "PATH")]
    pub path: Option<String>,
    /// Changes by this session, as 0x… or a number
    #[arg(long, value_name = "SESSION", value_parser = session, allow_hyphen_values = true)]
    pub session: Option<SessionId>,
    /// From this time on: 2026-01-31T23:59 (UTC), or so long ago: 90s, 15m, 2h, 7d
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Before this time
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Show what znodes were given, too, up to 200 bytes of each
    #[arg(long)]
    pub data: bool,
}

fn session(text: &str) -> Result<SessionId, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok().map(|id| id as SessionId),
        None => text.parse().ok(),
    };
    parsed.ok_or_else(|| {
        format!("`{text}` is no session: write 0x100000000000001, as `dump` and `warren log` show it")
    })
}

#[cfg(test)]
mod tests {
    use super::session;

    #[test]
    fn sessions_are_written_as_they_are_shown() {
        assert_eq!(session("0x1a"), Ok(26));
        assert_eq!(session("0x9000000000000005"), Ok(0x9000_0000_0000_0005_u64 as i64));
        assert_eq!(session("-5"), Ok(-5));
        assert!(session("x").unwrap_err().contains("no session"));
    }
}
