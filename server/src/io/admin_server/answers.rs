//! What the AdminServer is told by the server.

use super::super::facts::{self, Registry};
use crate::admin_server::json::{self, Data, More};
use crate::admin_server::{self, Answer, Asked, Command};
use crate::words::{Mode, Sessions, Word};
use std::time::Duration;

/// What is listed at most: watches, sessions or connections. More are told by their number alone.
const ROWS_MAX: u64 = 100_000;

/// The thread that applies writes must answer within this to count as alive. It waits for nothing but the tree's disk.
const LIVE_WITHIN: Duration = Duration::from_secs(5);

/// As ZooKeeper says it.
const NOT_SERVING: &str = "This ZooKeeper instance is not currently serving requests";

impl Registry {
    pub(super) async fn answer_http(&self, asked: Asked) -> Answer {
        match asked {
            Asked::Answered(answer) => answer,
            Asked::Links => admin_server::links(&self.config.admin.command_url),
            Asked::Live => self.live().await,
            Asked::Ready => self.ready(),
            Asked::Command(command, name, query) => match self.command(command, &query).await {
                Ok(data) => Answer::json(200, json::reply(&name, None, data)),
                Err(why) => Answer::error(200, &name, &why),
            },
        }
    }

    /// A server that waits for a leader or for space on its disk is alive: to restart it would help nobody.
    async fn live(&self) -> Answer {
        let (tell, told) = tokio::sync::oneshot::channel();
        self.engine.look(move |_| {
            let _ = tell.send(());
        });
        match tokio::time::timeout(LIVE_WITHIN, told).await {
            Ok(Ok(())) => Answer::text(200, "ok"),
            _ => Answer::text(503, format_args!("no write was applied for {} s", LIVE_WITHIN.as_secs())),
        }
    }

    /// May clients be sent here?
    fn ready(&self) -> Answer {
        let standing = self.room.standing();
        if self.room.is_stopping() {
            return Answer::text(503, "this server stops");
        }
        if !self.room.is_serving() {
            return Answer::text(503, "this server has not found a leader yet");
        }
        match (standing.mode, standing.leader) {
            (Mode::Standalone | Mode::Leader, _) | (_, Some(_)) => Answer::text(200, "ok"),
            (_, None) => Answer::text(503, "this server has no leader; writes wait"),
        }
    }

    async fn command(&self, command: Command, query: &str) -> Result<Data, String> {
        let room = &self.room;
        if command.needs_serving() && !room.is_serving() && !room.is_read_only() {
            return Err(NOT_SERVING.to_owned());
        }
        if let Some(word) = command.guarded_by().filter(|word| !self.allows(*word)) {
            return Err(format!(
                "this changes what others read; it is done where four_letter_words.whitelist has `{}`",
                word.name()
            ));
        }
        let standing = room.standing();
        Ok(match command {
            Command::Configuration => json::configuration(&self.conf()),
            Command::ConnectionStatReset => {
                self.reset_connections();
                Data::new()
            }
            Command::Connections => {
                few("connections", self.len() as u64)?;
                json::connections(&self.connections())
            }
            Command::Dirs => {
                let (tree, log) = self.store_bytes();
                json::dirs(tree, log)
            }
            Command::Dump => self.dump_json().await?,
            Command::Environment => json::environment(&facts::environment()),
            Command::TraceMask => Data::from_iter([("tracemask".to_owned(), self.trace_mask().into())]),
            Command::Hash => json::hash(&room.digests.all()),
            Command::InitialConfiguration => {
                Data::from_iter([("initial_configuration".to_owned(), self.config.to_toml().into())])
            }
            Command::IsReadOnly => {
                Data::from_iter([("read_only".to_owned(), (standing.mode == Mode::ReadOnly).into())])
            }
            Command::LastSnapshot => json::last_snapshot(room.checkpointed(), self.checkpointed_s()),
            Command::Leader => json::leader(standing.mode, standing.leader, &self.roster()),
            Command::Monitor => json::monitor(&self.mntr()),
            // Links count nothing that could be reset.
            Command::ObserverConnectionStatReset | Command::Ruok | Command::SystemProperties => Data::new(),
            Command::Observers => {
                let fed = self.engine.facts().map(|facts| facts.observers).unwrap_or_default();
                let fed: Vec<(u8, bool)> = fed.iter().map(|f| (f.server, f.synced)).collect();
                json::observers(&fed, &self.roster())
            }
            Command::ServerStats => json::server_stats(&self.server(), self.more()),
            Command::SetTraceMask => {
                let given = admin_server::argument(query, "traceMask");
                let asks = "setTraceMask requires long traceMask argument";
                let mask = given.ok_or_else(|| asks.to_owned())?;
                let mask: i64 = mask.parse().map_err(|_| format!("{asks}, got {mask}"))?;
                self.set_trace_mask(mask);
                Data::from_iter([("tracemask".to_owned(), mask.into())])
            }
            Command::StatReset => {
                room.metrics.reset();
                Data::new()
            }
            Command::Stats => {
                few("connections", self.len() as u64)?;
                json::stats(&self.server(), self.more(), &self.connections())
            }
            Command::VotingView => json::voting_view(&self.roster()),
            Command::WatchSummary => {
                let watched = self.watched();
                json::watch_summary(watched.by_session.len(), watched.by_path.len(), watched.pairs)
            }
            Command::Watches => {
                few("watches", room.watches.len() as u64)?;
                json::watches(&self.watched().by_session)
            }
            Command::WatchesByPath => {
                few("watches", room.watches.len() as u64)?;
                json::watches_by_path(&self.watched().by_path)
            }
            Command::ZabState => {
                let id = standing.server_id;
                let (quorum, roster) = (self.quorum(), self.roster());
                json::zabstate(standing.mode, id, standing.leader, room.zxid(), quorum.as_ref(), &roster)
            }
            Command::Snapshot | Command::Restore => unreachable!("they are answered by their path"),
        })
    }

    async fn dump_json(&self) -> Result<Data, String> {
        let snapshot = self.room.snapshot();
        few("sessions and ephemerals", self.room.sessions() as u64 + snapshot.ephemeral_count())?;
        drop(snapshot);
        let (sessions, ephemerals) =
            self.sessions().await.map_err(|e| format!("the tree cannot be read: {e}"))?;
        Ok(match &sessions {
            Sessions::Expiring(sets) => json::dump(sets, &ephemerals),
            Sessions::Known(_) => json::dump(&[], &ephemerals),
        })
    }

    fn more(&self) -> More {
        let (data_bytes, log_bytes) = self.store_bytes();
        More {
            uptime_ms: self.uptime_ms(),
            data_bytes,
            log_bytes,
            auth_failed: self.room.metrics.auth_failed_count.value(),
        }
    }
}

fn few(what: &str, count: u64) -> Result<(), String> {
    if count <= ROWS_MAX {
        return Ok(());
    }
    let word = Word::Wchs.name();
    Err(format!(
        "{count} {what} are more than the {ROWS_MAX} that are listed; `monitor` and `{word}` count them"
    ))
}
