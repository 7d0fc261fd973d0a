//! Everything of the command that touches the world.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is where the world is touched")]

mod admin;
mod backup;
mod convert;
mod doctor;
mod import;
mod local;
mod log;
mod peers;
mod prepare;
mod restart;
mod shell;
mod signals;
mod status;

use crate::cli::{Certs, Cli, Command, Exit, Leader, Output};
use crate::local::Ports;
use crate::prepare::Plan;
use crate::shell::command::{self, Settings, ShellCommand};
use crate::status::membership;
use std::path::{Path, PathBuf};
use std::time::Duration;
use warren_server::admin::{Request, Response};
use warren_transport::io::certs::{self, CertsError};

/// Where a server keeps its data that was started by hand without being told.
const OWN_DATA_DIR: &str = "./warren-data";
/// Where the packaged one does.
const HOST_DATA_DIR: &str = "/var/lib/warren";

/// The data folder that is meant where none is named.
pub(crate) fn data_dir() -> PathBuf {
    let (own, host) = (Path::new(OWN_DATA_DIR), Path::new(HOST_DATA_DIR));
    if !own.is_dir() && host.is_dir() { host } else { own }.to_owned()
}

/// Bytes that are free for us on the disk with this file or folder.
fn free_bytes(of: impl std::os::fd::AsFd) -> std::io::Result<u64> {
    let disk = rustix::fs::fstatvfs(of)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Do what the command line says, print what is to be printed, and say how it ended.
pub fn run(cli: Cli) -> Exit {
    let Some(command) = &cli.command else { return shell::interactive(&cli) };
    match command {
        Command::Shell(ShellCommand::Config(command::Config {
            settings: Some(Settings::Convert { zoo_cfg, out }),
            ..
        })) => convert::run(zoo_cfg, out.as_deref()),
        Command::Shell(command) => shell::once(&cli, command.clone()),
        Command::Status { watch } => status::run(&cli, *watch),
        Command::Doctor { config } => doctor::run(&cli, config.as_deref()),
        Command::Leader(Leader::Transfer { to }) => ask(&cli, &Request::TransferLeader { to: *to }),
        Command::Member(member) => ask(&cli, &member.request()),
        Command::Restart { within } => restart::run(&cli, Duration::from_secs(*within)),
        Command::Rebuild { .. } => ask(&cli, &Request::Rebuild),
        Command::ForceQuorum { .. } => ask(&cli, &Request::ForceQuorum),
        Command::Runbook { name } => crate::runbook::print(name.as_deref()),
        Command::Certs(Certs::Init { dir, ensemble }) => {
            let made = certs::init(dir, ensemble);
            done(made, format!("made {}; give it to every server", dir.join("ca.pem").display()))
        }
        Command::Certs(Certs::Issue { dir, server_id, out }) => {
            let made = certs::issue(dir, *server_id).and_then(|pem| certs::write_secret(out, &pem));
            done(made, format!("made {} for server {server_id}; give it to that server alone", out.display()))
        }
        Command::Backup(flags) => backup::take(&cli, flags),
        Command::Restore(flags) => backup::restore(&cli, flags),
        Command::Verify(flags) => backup::verify_path(&cli, flags),
        Command::Log(flags) => log::run(&cli, flags),
        Command::Import(flags) => import::run(&cli, flags),
        Command::Prepare { dir, ensemble, client_port, peer_port, hosts } => {
            let (client_port, peer_port) = (*client_port, *peer_port);
            let plan = Plan { ensemble: ensemble.clone(), hosts: hosts.clone(), client_port, peer_port };
            match prepare::run(&plan, dir) {
                Ok(text) => done(Ok(()), text),
                Err(e) => {
                    eprintln!("warren: {e}");
                    Exit::Degraded
                }
            }
        }
        Command::Local { servers, observers, dir, client_port, metrics_port, admin_port } => {
            let ports = Ports { client: *client_port, metrics: *metrics_port, admin: *admin_port };
            local::run(*servers, *observers, dir, ports)
        }
    }
}

/// An error with what is behind it.
pub(crate) fn full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
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
        Response::Members(members) => {
            if cli.output == Output::Text {
                print!("{}", membership(&members));
            }
            Exit::Done
        }
        Response::Status(_) | Response::Settings(_) => {
            eprintln!(
                "warren: the server answered something else than what was asked; is it of another version?"
            );
            Exit::Degraded
        }
        Response::Done(what) => {
            if cli.output == Output::Text {
                println!("{what}");
            }
            Exit::Done
        }
        Response::Backup(_) | Response::Log(_) => {
            eprintln!("warren: the server answered what was not asked");
            Exit::Degraded
        }
        Response::Refused(why) => {
            eprintln!("warren: refused: {why}");
            Exit::Degraded
        }
    }
}
