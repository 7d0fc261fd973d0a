//! Everything of the command that touches the world.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is where the world is touched")]

mod admin;

use crate::cli::{Cli, Command, Exit, Leader, Output};
use crate::status;
use warren_server::admin::{Request, Response};

/// Do what the command line says, print what is to be printed, and say how it ended.
pub fn run(cli: Cli) -> Exit {
    let request = match &cli.command {
        Command::Status => Request::Status,
        Command::Leader(Leader::Transfer { to }) => Request::TransferLeader { to: *to },
    };
    let response = match admin::ask(&cli.socket(), &request) {
        Ok(response) => response,
        Err(e) => {
            eprintln!("warren: {e}");
            return Exit::Unreachable;
        }
    };
    if cli.output == Output::Json {
        print!("{}", warren_server::admin::line(&response));
    }
    match response {
        Response::Status(status) => {
            if cli.output == Output::Text {
                print!("{}", status::text(&status));
            }
            if status.complaints().is_empty() { Exit::Done } else { Exit::Degraded }
        }
        Response::Done(what) => {
            if cli.output == Output::Text {
                println!("{what}");
            }
            Exit::Done
        }
        Response::Refused(why) => {
            eprintln!("warren: refused: {why}");
            Exit::Degraded
        }
    }
}
