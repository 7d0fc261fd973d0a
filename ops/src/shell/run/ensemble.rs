//! Who belongs to the ensemble: `/zookeeper/config`, and reconfig. Both know no root.

use super::super::answer::{Answer, Form};
use super::super::command::{Config, Reconfig};
use super::*;

const CONFIG: &str = "/zookeeper/config";
/// A file of members at most, bytes.
const FILE_BYTES_MAX: usize = 1 << 20;

impl Shell<'_> {
    pub(super) fn config(&mut self, config: &Config) -> Result<(), Failure> {
        if config.settings.is_some() {
            return Err(Failure::Usage(
                "settings are converted on the command line: warren config convert".into(),
            ));
        }
        let request = Request::GetData { path: CONFIG, watch: config.watch };
        let reply = self.ask(&request, config.watch.then_some((Kind::Data, CONFIG)))?;
        let (data, stat) = match reply.response(CONFIG) {
            Ok(Response::Data(data, stat)) => (data.map(<[u8]>::to_vec), stat),
            other => return Err(unexpected(other)),
        };
        let with = config.stat.then_some(stat);
        if !config.clients {
            let path = CONFIG.to_owned();
            self.listener.answer(Answer::Data { path, data, stat: with, form: Form::Plain });
            return Ok(());
        }
        let text = String::from_utf8_lossy(data.as_deref().unwrap_or_default()).into_owned();
        let (version, clients) = client_list(&text);
        self.say(format!("{version} {clients}"), json!({ "version": version, "clients": clients }))?;
        if let Some(stat) = with {
            self.listener.answer(Answer::Stat(CONFIG.to_owned(), stat));
        }
        Ok(())
    }

    pub(super) fn reconfig(&mut self, change: &Reconfig) -> Result<(), Failure> {
        let of_file = match &change.file {
            Some(file) => Some(members_of(&self.listener.file(file, FILE_BYTES_MAX)?)?),
            None => None,
        };
        let reply = self.ask(
            &Request::Reconfig {
                joining: change.add.as_deref(),
                leaving: change.remove.as_deref(),
                members: change.members.as_deref().or(of_file.as_deref()),
                config_id: change.version.unwrap_or(-1),
            },
            None,
        )?;
        match reply.response(CONFIG) {
            Ok(Response::Data(data, stat)) => {
                let text = String::from_utf8_lossy(data.unwrap_or_default()).into_owned();
                self.say(format!("Committed new configuration:\n{text}"), json!({ "config": text }))?;
                if change.stat {
                    self.listener.answer(Answer::Stat(CONFIG.to_owned(), stat));
                }
                Ok(())
            }
            other => Err(unexpected(other)),
        }
    }
}

/// The version, and what clients are given: `HOST:PORT` of each server that serves clients, by their ids.
fn client_list(config: &str) -> (String, String) {
    let (mut version, mut servers) = (String::new(), Vec::new());
    for line in config.lines() {
        let Some((key, value)) = line.split_once('=') else { continue };
        if key == "version" {
            version = value.to_owned();
        }
        let (Some(id), Some((_, client))) = (key.strip_prefix("server."), value.rsplit_once(';')) else {
            continue;
        };
        servers.push((id.parse::<u64>().unwrap_or(u64::MAX), client));
    }
    servers.sort_unstable();
    let list: Vec<String> = servers
        .into_iter()
        .map(|(_, client)| match client.contains(':') {
            true => client.to_owned(),
            false => format!("0.0.0.0:{client}"),
        })
        .collect();
    (version, list.join(","))
}

/// The server lines of a file, as one list.
fn members_of(file: &[u8]) -> Result<String, Failure> {
    let text =
        std::str::from_utf8(file).map_err(|_| Failure::Usage("the file of members is no text".to_owned()))?;
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| line.starts_with("server.")).collect();
    match lines.is_empty() {
        true => Err(Failure::Usage("the file of members has no line that begins with server.".to_owned())),
        false => Ok(lines.join(",")),
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn clients_get_a_list() {
        let config = "server.2=b:1:2:participant;b:2181\nserver.1=a:1:2:participant;2181\nversion=1f";
        assert_eq!(client_list(config), ("1f".into(), "0.0.0.0:2181,b:2181".into()));
        assert_eq!(client_list("server.1=a:1:2\n"), (String::new(), String::new()));
    }

    #[test]
    fn members_come_from_a_file() {
        assert_eq!(
            members_of(b"# ours\nserver.1=a:1:2;3\n server.2=b:1:2;3\nversion=1\n"),
            Ok("server.1=a:1:2;3,server.2=b:1:2;3".into())
        );
        assert!(members_of(b"tickTime=1").is_err() && members_of(b"\xff").is_err());
    }
}
