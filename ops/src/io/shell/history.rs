//! Where the history is kept: `warren/history` in the state folder of the user (XDG Base Directory Specification), for its
//! owner alone.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::PathBuf;

/// Lines that are kept at most.
pub(super) const LINES_MAX: usize = 10_000;

/// The file, there and readable by its owner alone; `None` where the user has no home.
pub(super) fn file() -> io::Result<Option<PathBuf>> {
    let state = match std::env::var_os("XDG_STATE_HOME").map(PathBuf::from) {
        Some(state) if state.is_absolute() => state,
        _ => match std::env::var_os("HOME").map(PathBuf::from) {
            Some(home) if home.is_absolute() => home.join(".local/state"),
            _ => return Ok(None),
        },
    };
    let folder = state.join("warren");
    DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    let path = folder.join("history");
    File::options().create(true).append(true).mode(0o600).open(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    Ok(Some(path))
}
