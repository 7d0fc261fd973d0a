//! `warren-pages DIR`: what is made of the command lines' declarations for a package, man pages and completions of shells.
#![allow(clippy::disallowed_methods, reason = "files are written here")]

use clap::CommandFactory as _;
use clap_complete::Shell;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use warren_ops::cli::{Cli, Exit};
use warren_server::flags::Flags;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(dir), None) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: warren-pages DIR");
        return ExitCode::from(Exit::Usage as u8);
    };
    match write(Path::new(&dir)) {
        Ok(()) => ExitCode::from(Exit::Done as u8),
        Err(e) => {
            eprintln!("warren-pages: cannot write to {}: {e}", PathBuf::from(dir).display());
            ExitCode::from(Exit::Degraded as u8)
        }
    }
}

fn write(dir: &Path) -> io::Result<()> {
    for folder in ["man", "bash", "zsh", "fish"] {
        std::fs::create_dir_all(dir.join(folder))?;
    }
    clap_mangen::generate_to(Cli::command(), dir.join("man"))?;
    let daemon = clap_mangen::Man::new(Flags::command()).section("8");
    daemon.render(&mut std::fs::File::create(dir.join("man/warrend.8"))?)?;
    for command in [Cli::command(), Flags::command()] {
        let name = command.get_name().to_owned();
        for (shell, file) in [
            (Shell::Bash, format!("bash/{name}")),
            (Shell::Zsh, format!("zsh/_{name}")),
            (Shell::Fish, format!("fish/{name}.fish")),
        ] {
            let mut text = Vec::new();
            clap_complete::generate(
                shell,
                &mut command.clone(),
                OsString::from(&name).to_string_lossy(),
                &mut text,
            );
            std::fs::write(dir.join(file), text)?;
        }
    }
    Ok(())
}
