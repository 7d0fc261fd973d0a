//! `warren`: the operator's command.

use std::process::ExitCode;
use warren_ops::cli::{Cli, Exit};

fn main() -> ExitCode {
    match Cli::of(std::env::args_os()) {
        Ok(cli) => ExitCode::from(warren_ops::io::run(cli) as u8),
        Err(e) => {
            let _ = e.print();
            // Help and version are no errors.
            ExitCode::from(if e.use_stderr() { Exit::Usage } else { Exit::Done } as u8)
        }
    }
}
