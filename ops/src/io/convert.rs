//! `warren config convert`: the files of it.

use crate::cli::Exit;
use crate::convert::convert;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use warren_server::config::{FileText, Files, Overrides, load};

/// Read `zoo_cfg`, and write what means the same to `out`, or print it.
pub(super) fn run(zoo_cfg: &Path, out: Option<&Path>) -> Exit {
    match try_run(zoo_cfg, out) {
        Ok(()) => Exit::Done,
        Err(why) => {
            eprintln!("warren: {why}");
            Exit::Degraded
        }
    }
}

fn try_run(zoo_cfg: &Path, out: Option<&Path>) -> Result<(), String> {
    let name = zoo_cfg.display().to_string();
    let bytes = std::fs::read(zoo_cfg).map_err(|e| format!("{name} cannot be read: {e}"))?;
    let read = |path: &Path| std::fs::read(path);
    let loaded = load(FileText::ZooCfg(&bytes, Files(&read)), &Overrides::default())
        .map_err(|e| format!("{name}: {e}"))?;
    let converted = convert(&loaded, &name).map_err(|e| e.to_string())?;
    let Some(out) = out else {
        print!("{}", converted.text);
        return Ok(());
    };
    let mode = if converted.is_secret { 0o600 } else { 0o644 };
    let written =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(out).and_then(|mut file| {
            file.write_all(converted.text.as_bytes())?;
            file.sync_all()
        });
    written.map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => {
            format!("{} exists, and is not written over: name another file, or move it away", out.display())
        }
        _ => format!("{} cannot be written: {e}", out.display()),
    })?;
    for remark in &converted.remarks {
        eprintln!("{name}, {remark}");
    }
    println!("made {}; look at it, then start `warrend --config {}`", out.display(), out.display());
    Ok(())
}
