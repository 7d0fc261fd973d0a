//! What an operator's command line asks of a running server, over `DATA_DIR/admin.sock`: one JSON object a line, and
//! one in answer. Who may open the socket may ask; its permissions are the guard.

use serde::{Deserialize, Serialize};
use warren_storage::{Change, MemberRole};

/// Name of the socket in the data folder.
pub const SOCKET: &str = "admin.sock";

/// A line at most, bytes. A longer one ends the connection.
pub const LINE_BYTES_MAX: usize = 64 << 10;

/// Connections at a time; one more is closed at once.
pub const CONNECTIONS_MAX: usize = 32;

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How is this server, and what does it see of the others?
    Status,
    /// Hand leadership over.
    TransferLeader {
        /// To whom; nobody named: to the one that is furthest.
        to: Option<u8>,
    },
    /// Who belongs to the ensemble?
    Members,
    /// Change who belongs to it; any of its servers may be asked.
    ChangeMembers(MemberChange),
    /// Make this server the only voter, whatever the others have; what they acknowledged and it lacks is lost.
    ForceQuorum,
    /// Throw this server's data away and take them anew from the others.
    Rebuild,
    /// Become the next process, of the program and settings that are on the disk now, and keep the clients' connections.
    Restart,
    /// Which settings are in effect?
    Settings,
    /// Stream the tree: behind the answer's line come chunks, as [`warren_storage::tree::read_chunk`] cuts them. What may still
    /// follow on this connection is [`Request::BackupKept`].
    Backup {
        /// Of what is here, though there be no leader: as of the last checkpoint.
        stale: bool,
    },
    /// The backup that was streamed on this connection is whole, and durable where it was written.
    BackupKept {
        /// Size of its file, bytes.
        bytes: u64,
    },
    /// Stream the log: behind the answer's line come records ([`crate::records`]), and then the connection ends.
    Log,
}

/// A change of the membership; see [`Change`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[allow(missing_docs, reason = "each is what it is in Change")]
pub enum MemberChange {
    Add { id: u8, peer_addr: String, client_addr: String, observer: bool },
    Promote { id: u8 },
    Demote { id: u8 },
    Remove { id: u8 },
    Replace { id: u8 },
}

impl From<MemberChange> for Change {
    fn from(asked: MemberChange) -> Change {
        match asked {
            MemberChange::Add { id, peer_addr, client_addr, observer } => {
                Change::Add { id, peer_addr, client_addr, observer }
            }
            MemberChange::Promote { id } => Change::Promote { id },
            MemberChange::Demote { id } => Change::Demote { id },
            MemberChange::Remove { id } => Change::Remove { id },
            MemberChange::Replace { id } => Change::Replace { id },
        }
    }
}

impl MemberChange {
    /// What it comes to once it is made, and what there is to do then.
    pub fn done(&self) -> String {
        match self {
            MemberChange::Add { id, observer: true, .. } => {
                format!(
                    "server {id} belongs to the ensemble, and observes; start it with an empty data folder"
                )
            }
            MemberChange::Add { id, .. } => format!(
                "server {id} belongs to the ensemble; start it with an empty data folder and `join = true` in its [ensemble], \
                 and it votes as soon as it has the log (`warren member list`)"
            ),
            MemberChange::Promote { id } => {
                format!(
                    "server {id} joins the voters, and votes as soon as it has the log (`warren member list`)"
                )
            }
            MemberChange::Demote { id } => format!("server {id} no longer votes, and observes"),
            MemberChange::Remove { id } => {
                format!(
                    "server {id} no longer belongs to the ensemble; stop it, and take its line out of the others' settings"
                )
            }
            MemberChange::Replace { id } => format!(
                "server {id} may come with an empty data folder: start it, and it takes its place again as soon as it has the \
                 log (`warren member list`); what it had before never counts again"
            ),
        }
    }
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Members`].
    Members(Box<Membership>),
    /// To [`Request::Settings`]: as `warren.toml`, without the super digest.
    Settings(String),
    /// To [`Request::Backup`].
    Backup(Box<BackupHead>),
    /// To [`Request::Log`].
    Log(LogHead),
    /// It is done; in words.
    Done(String),
    /// It is not done; why, and what to do.
    Refused(String),
}

/// What there is of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogHead {
    /// Index of the first record.
    pub first: u64,
    /// Of the last one; one less than the first where there is none.
    pub last: u64,
    /// Up to here they are known to be committed.
    pub committed: u64,
}

/// What a backup is of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupHead {
    /// [`crate::version::VERSION`] of the server.
    pub version: String,
    /// Its id; 1 when it stands alone.
    pub server_id: u8,
    /// Of its ensemble; empty when it stands alone.
    pub ensemble: String,
    /// All that is in it was applied by then, and nothing that came after; as `0x…`.
    pub zxid: String,
    /// The epoch of that.
    pub epoch: u32,
    /// Of the log entry there.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// When it was begun, ms since 1970 by the server's clock.
    pub time_ms: i64,
    /// Number of znodes.
    pub znodes: u64,
    /// Of them ephemerals.
    pub ephemerals: u64,
    /// Number of sessions.
    pub sessions: u64,
    /// Of paths and data, bytes.
    pub data_bytes: u64,
    /// ZooKeeper's digest of the tree, as `0x…`.
    pub digest: String,
    /// What the server wants to stay free on its disk, bytes. Told to the command, and in no file.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub disk_reserve_bytes: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// A server, as it sees itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// As the four-letter words tell it.
    pub version: String,
    /// This run of it; another one after each start.
    #[serde(default)]
    pub run: String,
    /// Its id; 1 when it stands alone.
    pub server_id: u8,
    /// Of its ensemble; empty when it stands alone.
    pub ensemble: String,
    /// standalone, leader, follower or looking.
    pub role: String,
    /// Who leads, as far as it knows.
    pub leader: Option<u8>,
    /// Does it serve clients?
    pub serving: bool,
    /// The leader's epoch.
    pub epoch: u32,
    /// The last applied, as `0x…`.
    pub zxid: String,
    /// Since it started, s.
    pub uptime_s: u64,
    /// Where clients connect.
    pub client_addr: String,
    /// Open connections.
    pub connections: u64,
    /// Those that this run took over from the one before, by [`Request::Restart`]; none where it was started otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections_kept: Option<u64>,
    /// Open sessions of the whole ensemble.
    pub sessions: u64,
    /// Znodes, as ZooKeeper counts them.
    pub znodes: u64,
    /// Of paths and data, bytes.
    pub data_bytes: u64,
    /// Watches on this server.
    pub watches: u64,
    /// Requests without an answer yet.
    pub outstanding: u64,
    /// Files of tree and log, bytes.
    pub store_bytes: u64,
    /// Free space on the disk of the store, bytes.
    #[serde(default)]
    pub disk_free_bytes: u64,
    /// Below this much, writes that grow data are refused, bytes.
    #[serde(default)]
    pub disk_reserve_bytes: u64,
    /// Syncs of the log since start or reset, on average, ms.
    #[serde(default)]
    pub sync_avg_ms: f64,
    /// The slowest of them, ms.
    #[serde(default)]
    pub sync_max_ms: u64,
    /// Open file descriptors.
    #[serde(default)]
    pub files_open: u64,
    /// As many as it may open.
    #[serde(default)]
    pub files_max: u64,
    /// Is the disk below its reserve, so that growth is refused?
    pub growth_refused: bool,
    /// Is this server's tree not what the log makes, so that it serves nobody?
    pub tree_differs: bool,
    /// Was this server removed from the ensemble, as its own table or the others say?
    #[serde(default)]
    pub not_a_member: bool,
    /// Resident memory, bytes.
    pub memory_bytes: u64,
    /// How much longer this server's certificate is valid, s; none when it stands alone.
    pub certificate_s: Option<u64>,
    /// The servers of the ensemble, this one among them; none when it stands alone.
    pub members: Vec<Member>,
}

/// Below this, a certificate is complained about, s: a week.
const CERTIFICATE_S_MIN: u64 = 7 * 86_400;

/// A member's role, as it is told.
pub fn role_name(role: MemberRole) -> &'static str {
    match role {
        MemberRole::Voter => "voter",
        MemberRole::Joining => "joining",
        MemberRole::Observer => "observer",
    }
}

/// Who belongs to the ensemble, as far as one of its servers knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Membership {
    /// Of its ensemble.
    pub ensemble: String,
    /// The server that says so.
    pub server_id: u8,
    /// ZooKeeper's configuration version, in hex: the zxid of the last change.
    pub version: String,
    /// Who leads.
    pub leader: Option<u8>,
    /// Ordered by id.
    pub members: Vec<Member>,
    /// What is odd about them, in words.
    pub notes: Vec<String>,
}

/// A server of the ensemble, as another one sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    pub id: u8,
    /// voter, joining or observer.
    pub role: String,
    /// Which of its disks, counted from 1; one more with each `member replace`.
    pub disk: u32,
    /// Where the others find it.
    pub peer_addr: String,
    /// Where clients find it; empty where no setting tells.
    pub client_addr: String,
    /// Is the link to it up? True for oneself.
    pub linked: bool,
    /// Is there no link, and need there be none? So it is between observers that do not feed each other.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub idle: bool,
    /// Why not, when it is not.
    pub why: String,
    /// Entries that it is behind the leader; only the leader knows.
    pub lag: Option<u64>,
    /// What it runs. Servers do not tell one another; `warren` asks each where clients find it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

impl Status {
    /// What is not as it should be, for people and for exit codes; empty when all is well.
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        if !self.serving {
            complaints.push("this server does not serve clients".to_owned());
        }
        if self.not_a_member {
            complaints.push(not_a_member(self.server_id));
        }
        if self.tree_differs {
            complaints.push(
                "this server's tree is not what the log makes, which a majority of the servers has: restart it once, and if it \
                 does not serve within a minute, `warren rebuild --yes` on it; suspect its memory and its disk"
                    .to_owned(),
            );
        }
        if self.growth_refused {
            complaints.push(
                "the disk is below its reserve: make room on it. Writes that grow data are refused unless another server leads, \
                 and hand-over to one takes a majority with space"
                    .to_owned(),
            );
        }
        if let Some(left) = self.certificate_s.filter(|left| *left < CERTIFICATE_S_MIN) {
            complaints.push(format!(
                "this server's certificate ends in {} hours: put one from `warren certs issue` in its place, which is read \
                 without a restart",
                left / 3_600
            ));
        }
        for member in self.members.iter().filter(|m| !m.linked && !m.idle) {
            complaints.push(format!("server {} is not linked: {}", member.id, member.why));
        }
        complaints
    }
}

/// What an operator is told of a server that was removed from its ensemble.
pub(crate) fn not_a_member(id: u8) -> String {
    format!(
        "this server does not belong to the ensemble any more: it was removed. Stop it; or, to let it come back, empty its data \
         folder, start it, and run `warren member add {id} …` on another server"
    )
}

/// A request from its line.
pub fn parse(line: &str) -> Result<Request, String> {
    serde_json::from_str(line).map_err(|e| format!("this is no request that this server knows: {e}"))
}

/// A line, with its end.
pub fn line(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string(value).expect("plain values are JSON");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_back() {
        let add =
            MemberChange::Add { id: 4, peer_addr: "h:1".into(), client_addr: "h:2".into(), observer: true };
        for request in [
            Request::Status,
            Request::TransferLeader { to: Some(2) },
            Request::Members,
            Request::ChangeMembers(add),
            Request::ForceQuorum,
            Request::Rebuild,
            Request::Restart,
            Request::Settings,
            Request::Backup { stale: true },
            Request::BackupKept { bytes: u64::MAX },
            Request::Log,
        ] {
            assert_eq!(parse(line(&request).trim_end()), Ok(request));
        }
        assert!(parse("{}").unwrap_err().contains("no request"));
        assert!(parse("\"status\"x").is_err());
        let response = Response::Status(Box::new(Status { server_id: 3, ..Status::default() }));
        assert_eq!(serde_json::from_str::<Response>(&line(&response)).unwrap(), response);
    }

    #[test]
    fn what_is_wrong_is_complained_about() {
        let well = Status { serving: true, ..Status::default() };
        assert!(well.complaints().is_empty());
        let gone = Member { id: 2, why: "refused".into(), ..Member::default() };
        let bad = Status {
            growth_refused: true,
            tree_differs: true,
            not_a_member: true,
            members: vec![gone],
            certificate_s: Some(7_200),
            ..Status::default()
        };
        assert_eq!(bad.complaints().len(), 6);
        assert!(bad.complaints()[1].contains("member add 0"));
        assert!(bad.complaints()[4].contains("ends in 2 hours"));
        let idle = Member { id: 3, idle: true, ..Member::default() };
        assert!(Status { members: vec![idle], ..well.clone() }.complaints().is_empty());
        let renewed = Status { serving: true, certificate_s: Some(30 * 86_400), ..Status::default() };
        assert!(renewed.complaints().is_empty());
    }
}
