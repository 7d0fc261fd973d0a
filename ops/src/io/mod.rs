//! Everything of the command that touches the world.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is where the world is touched")]

mod admin;
mod local;
mod shell;
mod signals;

use crate::cli::{Certs, Cli, Command, Exit, Leader, Output};
use crate::status;
use warren_server::admin::{Request, Response};
use warren_transport::io::certs::{self, CertsError};

/// Do what the command line says, print what is to be printed, and say how it ended.
pub fn run(cli: Cli) -> Exit {
    let Some(command) = &cli.command else { return shell::interactive(&cli) };
    match command {
        Command::Shell(command) => shell::once(&cli, command.clone()),
        Command::Status => ask(&cli, &Request::Status),
        Command::Leader(Leader::Transfer { to }) => ask(&cli, &Request::TransferLeader { to: *to }),
        Command::Member(member) => ask(&cli, &member.request()),
        Command::ForceQuorum { .. } => ask(&cli, &Request::ForceQuorum),
        Command::Certs(Certs::Init { dir, ensemble }) => {
            let made = certs::init(dir, ensemble);
            done(made, format!("made {}; give it to every server", dir.join("ca.pem").display()))
        }
        Command::Certs(Certs::Issue { dir, server_id, out }) => {
            let made = certs::issue(dir, *server_id).and_then(|pem| certs::write_secret(out, &pem));
            done(made, format!("made {} for server {server_id}; give it to that server alone", out.display()))
        }
        Command::Local { servers, observers, dir, client_port } => {
            local::run(*servers, *observers, dir, *client_port)
        }
    }
}

fn done(made: Result<(), CertsError>, text: String) -> Exit {
    match made {
        Ok(()) => {
            println!("{text}");
            Exit::Done
        }
        Err(e) => {
            eprintln!("warren: {e}");
            Exit::Degraded
        }
    }
}

fn ask(cli: &Cli, request: &Request) -> Exit {
    let response = match admin::ask(&cli.socket(), request) {
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
        Response::Members(membership) => {
            if cli.output == Output::Text {
                print!("{}", status::membership(&membership));
            }
            Exit::Done
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
