//! Facts as the AdminServer's JSON, with the keys that ZooKeeper's has.

use crate::words::{
    ConfFacts, ConnectionFacts, EnviFacts, ExpirySet, Mode, QuorumFacts, ServerFacts, envi_lines,
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use warren_storage::{Member, MemberRole, Members, Zxid};

/// What a command tells, without `command` and `error`.
pub type Data = Map<String, Value>;

/// ZooKeeper's number of the digest's version: this is how znodes are summed.
const DIGEST_VERSION: i32 = 2;

/// The answer of a command that was asked for by this name.
pub fn reply(command: &str, error: Option<&str>, mut data: Data) -> String {
    data.insert("command".into(), command.into());
    // A command's own error stands.
    data.entry("error").or_insert(error.into());
    serde_json::to_string_pretty(&data).expect("plain values are JSON") + "\n"
}

fn object(value: Value) -> Data {
    match value {
        Value::Object(data) => data,
        other => unreachable!("{other} is no object"),
    }
}

/// `configuration`.
pub fn configuration(facts: &ConfFacts) -> Data {
    object(json!({
        "client_port": facts.client_port,
        "data_dir": facts.data_dir,
        "data_log_dir": facts.log_dir,
        "tick_time": facts.tick_ms,
        "max_client_cnxns": facts.connections_per_address_max,
        "min_session_timeout": facts.timeout_ms_min,
        "max_session_timeout": facts.timeout_ms_max,
        "server_id": facts.server_id,
        "client_port_listen_backlog": facts.listen_backlog,
    }))
}

/// `connections`.
pub fn connections(all: &[ConnectionFacts]) -> Data {
    let all: Vec<Value> = all.iter().map(connection).collect();
    object(json!({ "connections": all, "secure_connections": [] }))
}

fn brief(facts: &ConnectionFacts) -> Value {
    json!({
        "remote_socket_address": facts.peer.to_string(),
        "interest_ops": facts.interest,
        "outstanding_requests": facts.queued,
        "packets_received": facts.received,
        "packets_sent": facts.sent,
    })
}

fn connection(facts: &ConnectionFacts) -> Value {
    let mut told = brief(facts);
    if let Some(session) = &facts.session {
        let more = object(json!({
            "session_id": session.id,
            "last_operation": session.last_op,
            "established": session.established_ms,
            "session_timeout": session.timeout_ms,
            "last_cxid": session.last_cxid.map_or(-1, i64::from),
            "last_zxid": session.last_zxid,
            "last_response_time": session.last_response_ms,
            "last_latency": session.last_ms,
            "min_latency": session.latency.min,
            "avg_latency": session.latency.avg as u64,
            "max_latency": session.latency.max,
        }));
        told.as_object_mut().expect("it was made as one").extend(more);
    }
    told
}

/// `dirs`, in bytes.
pub fn dirs(data_bytes: u64, log_bytes: u64) -> Data {
    object(json!({ "datadir_size": data_bytes, "logdir_size": log_bytes }))
}

/// `dump`. Who does not decide about expiry tells no times.
pub fn dump(expiring: &[ExpirySet<i64>], ephemerals: &[(i64, Vec<String>)]) -> Data {
    let expiring: Data =
        expiring.iter().map(|set| (set.expires_ms.to_string(), json!(set.members))).collect();
    let ephemerals: Data = ephemerals.iter().map(|(id, paths)| (id.to_string(), json!(paths))).collect();
    object(json!({ "expiry_time_to_session_ids": expiring, "session_id_to_ephemeral_paths": ephemerals }))
}

/// `environment`.
pub fn environment(facts: &EnviFacts) -> Data {
    envi_lines(facts).into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect()
}

/// `hash`.
pub fn hash(digests: &[(Zxid, u64)]) -> Data {
    let digest = |(zxid, digest): &(Zxid, u64)| json!({ "zxid": zxid.wire(), "digest_version": DIGEST_VERSION, "digest": digest });
    object(json!({ "digests": digests.iter().map(digest).collect::<Vec<_>>() }))
}

/// `last_snapshot`: of the checkpoint, with the time in seconds since 1970.
pub fn last_snapshot(zxid: Zxid, timestamp_s: i64) -> Data {
    object(json!({ "zxid": format!("{:x}", zxid.wire()), "timestamp": timestamp_s }))
}

/// `leader`.
pub fn leader(mode: Mode, leader: Option<u8>, members: &Members) -> Data {
    if mode == Mode::Standalone {
        return object(json!({ "error": "server is not initialized" }));
    }
    let ip = leader.and_then(|id| members.get(id)).map_or("", |member| host(&member.peer_addr));
    object(json!({
        "is_leader": mode == Mode::Leader,
        "leader_id": leader.map_or(-1, i64::from),
        "leader_ip": ip,
    }))
}

fn host(addr: &str) -> &str {
    addr.rsplit_once(':').map_or(addr, |(host, _)| host.trim_start_matches('[').trim_end_matches(']'))
}

/// `monitor`: what `mntr` tells, without `zk_`, and numbers as such.
pub fn monitor(mntr: &str) -> Data {
    let value = |text: &str| match (text.parse::<i64>(), text.parse::<f64>()) {
        (Ok(whole), _) => json!(whole),
        (_, Ok(number)) if number.is_finite() => json!(number),
        _ => json!(text),
    };
    mntr.lines()
        .filter_map(|line| line.strip_prefix("zk_")?.split_once('\t'))
        .map(|(name, text)| (name.to_owned(), value(text)))
        .collect()
}

/// `observers`: those that this server feeds, each with whether it has all that is committed here.
pub fn observers(fed: &[(u8, bool)], members: &Members) -> Data {
    let observer = |(id, synced): &(u8, bool)| {
        let addr = members.get(*id).map_or("", |member| member.peer_addr.as_str());
        json!({ "sid": id, "remote_socket_address": addr, "synced": synced })
    };
    let synced = fed.iter().filter(|(_, synced)| *synced).count();
    object(json!({
        "synced_observers": synced,
        "observers": fed.iter().map(observer).collect::<Vec<_>>(),
    }))
}

/// What `server_stats` tells beside [`ServerFacts`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct More {
    /// Since it began to serve.
    pub uptime_ms: i64,
    /// Files of the tree, bytes.
    pub data_bytes: u64,
    /// Files of the log, bytes.
    pub log_bytes: u64,
    /// Failed attempts to authenticate.
    pub auth_failed: u64,
}

/// `server_stats`.
pub fn server_stats(facts: &ServerFacts, more: More) -> Data {
    let ServerFacts { mode, latency, zxid, .. } = facts;
    // Sizes of single answers are not kept; −1 is ZooKeeper's word for none.
    let responses = sizes((-1, -1, -1));
    let mut told = object(json!({
        "version": crate::version::full(),
        "read_only": *mode == Mode::ReadOnly,
        "server_stats": {
            "packets_sent": facts.packets_sent,
            "packets_received": facts.packets_received,
            "fsync_threshold_exceed_count": 0,
            "client_response_stats": responses,
            "auth_failed_count": more.auth_failed,
            "non_mtlsremote_conn_count": 0,
            "non_mtlslocal_conn_count": 0,
            "provider_null": false,
            "uptime": more.uptime_ms,
            "server_state": mode.name(),
            "outstanding_requests": facts.outstanding,
            "min_latency": latency.min,
            "avg_latency": latency.avg,
            "max_latency": latency.max,
            "data_dir_size": more.data_bytes,
            "log_dir_size": more.log_bytes,
            "last_processed_zxid": zxid,
            "num_alive_client_connections": facts.connections,
        },
        "client_response": responses,
        "node_count": facts.znodes,
    }));
    if let Some(proposals) = facts.proposal_bytes {
        told.insert("proposal_stats".into(), sizes(proposals));
    }
    told
}

fn sizes((last, min, max): (i64, i64, i64)) -> Value {
    json!({ "last_buffer_size": last, "min_buffer_size": min, "max_buffer_size": max })
}

/// `stats`.
pub fn stats(facts: &ServerFacts, more: More, all: &[ConnectionFacts]) -> Data {
    let mut told = server_stats(facts, more);
    told.insert("connections".into(), all.iter().map(brief).collect());
    told.insert("secure_connections".into(), json!([]));
    told
}

/// `voting_view`; empty where a server stands alone.
pub fn voting_view(members: &Members) -> Data {
    let view = |member: &Member| {
        let told = json!({
            "server_addresses": [member.peer_addr],
            "election_addresses": [election(&member.peer_addr)],
            "client_address": member.client_addr,
            "learner_type": "participant",
        });
        (member.id.to_string(), told)
    };
    let config: Data = members.voters().map(view).collect();
    object(json!({ "current_config": config }))
}

/// As the server's line in the configuration says; nothing listens there.
fn election(peer_addr: &str) -> String {
    match peer_addr.parse::<crate::config::Address>() {
        Ok(addr) => {
            let port = crate::config::server_line::election_port(addr.port);
            crate::config::Address::new(addr.host, port).to_string()
        }
        Err(_) => peer_addr.to_owned(),
    }
}

/// `watches`.
pub fn watches(by_session: &BTreeMap<i64, Vec<String>>) -> Data {
    let told: Data = by_session.iter().map(|(id, paths)| (id.to_string(), json!(paths))).collect();
    object(json!({ "session_id_to_watched_paths": told }))
}

/// `watches_by_path`.
pub fn watches_by_path(by_path: &BTreeMap<String, Vec<i64>>) -> Data {
    let told: Data = by_path.iter().map(|(path, ids)| (path.clone(), json!(ids))).collect();
    object(json!({ "path_to_session_ids": told }))
}

/// `watch_summary`.
pub fn watch_summary(connections: usize, paths: usize, watches: u64) -> Data {
    object(json!({ "num_connections": connections, "num_paths": paths, "num_total_watches": watches }))
}

/// `zabstate`.
pub fn zabstate(
    mode: Mode,
    server_id: u8,
    leader: Option<u8>,
    zxid: Zxid,
    quorum: Option<&QuorumFacts>,
    members: &Members,
) -> Data {
    let (Some(_), Some(own)) = (quorum, members.get(server_id)) else {
        return object(json!({ "voting": false, "zabstate": "" }));
    };
    let state = match leader {
        Some(_) => "broadcast",
        None => "election",
    };
    object(json!({
        "myid": server_id,
        "is_leader": mode == Mode::Leader,
        "quorum_address": own.peer_addr,
        "election_address": election(&own.peer_addr),
        "client_address": own.client_addr,
        "voting": own.role == MemberRole::Voter,
        "last_zxid": format!("0x{:x}", zxid.wire()),
        "zab_epoch": zxid.epoch(),
        "zab_counter": zxid.counter(),
        "zabstate": state,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::{LatencyMs, SessionFacts};

    fn keys(data: &Data) -> String {
        data.keys().map(String::as_str).collect::<Vec<_>>().join(" ")
    }

    fn server(mode: Mode) -> ServerFacts {
        ServerFacts {
            mode,
            latency: LatencyMs { min: 0, avg: 1.5, max: 9 },
            packets_received: 3,
            packets_sent: 4,
            connections: 1,
            outstanding: 0,
            zxid: 0x1_0000_0002,
            znodes: 5,
            proposal_bytes: (mode == Mode::Leader).then_some((1, 2, 3)),
        }
    }

    fn ensemble() -> Members {
        let member = |id: u8, role| Member {
            id,
            disk: 1,
            role,
            peer_addr: format!("10.0.0.{id}:2182"),
            client_addr: format!("10.0.0.{id}:2181"),
        };
        let servers =
            vec![member(1, MemberRole::Voter), member(2, MemberRole::Voter), member(3, MemberRole::Observer)];
        Members { servers, ..Members::default() }
    }

    /// As ZooKeeper 3.9.5 answers each of them, but for the order of keys.
    #[test]
    fn keys_are_zookeepers() {
        let stats = server_stats(&server(Mode::Leader), More::default());
        assert_eq!(keys(&stats), "client_response node_count proposal_stats read_only server_stats version");
        assert_eq!(
            keys(stats["server_stats"].as_object().unwrap()),
            "auth_failed_count avg_latency client_response_stats data_dir_size fsync_threshold_exceed_count \
             last_processed_zxid log_dir_size max_latency min_latency non_mtlslocal_conn_count \
             non_mtlsremote_conn_count num_alive_client_connections outstanding_requests packets_received packets_sent \
             provider_null server_state uptime"
        );
        assert!(!keys(&server_stats(&server(Mode::Follower), More::default())).contains("proposal_stats"));
        let connection = ConnectionFacts {
            peer: "[::1]:7".parse().unwrap(),
            interest: 1,
            queued: 0,
            received: 1,
            sent: 2,
            session: Some(SessionFacts {
                id: 7,
                last_op: "PING",
                established_ms: 8,
                timeout_ms: 9,
                last_cxid: None,
                last_zxid: 1,
                last_response_ms: 2,
                last_ms: 3,
                latency: LatencyMs::default(),
            }),
        };
        let told = connections(std::slice::from_ref(&connection));
        assert_eq!(
            keys(told["connections"][0].as_object().unwrap()),
            "avg_latency established interest_ops last_cxid last_latency last_operation last_response_time last_zxid \
             max_latency min_latency outstanding_requests packets_received packets_sent remote_socket_address session_id \
             session_timeout"
        );
        assert_eq!(told["connections"][0]["remote_socket_address"], "[::1]:7");
        let told = self::stats(&server(Mode::Standalone), More::default(), &[connection]);
        assert!(told["connections"][0].get("session_id").is_none(), "stats tells connections in brief");
        assert_eq!(
            keys(&zabstate(Mode::Standalone, 1, None, Zxid(0), None, &Members::default())),
            "voting zabstate"
        );
    }

    #[test]
    fn an_ensemble_is_told() {
        let members = ensemble();
        let told = voting_view(&members);
        let config = told["current_config"].as_object().unwrap();
        assert_eq!(keys(config), "1 2");
        assert_eq!(config["1"]["election_addresses"], json!(["10.0.0.1:3182"]));
        let told = leader(Mode::Follower, Some(2), &members);
        assert_eq!((&told["leader_ip"], &told["is_leader"]), (&json!("10.0.0.2"), &json!(false)));
        assert_eq!(leader(Mode::Standalone, None, &members)["error"], "server is not initialized");
        let told = observers(&[(3, true)], &members);
        assert_eq!((&told["synced_observers"], &told["observers"][0]["sid"]), (&json!(1), &json!(3)));
    }

    #[test]
    fn an_answer_has_its_command_and_its_error() {
        let told: Value = serde_json::from_str(&reply("ruok", None, Data::new())).unwrap();
        assert_eq!(told, json!({ "command": "ruok", "error": null }));
        let alone = leader(Mode::Standalone, None, &Members::default());
        let told: Value = serde_json::from_str(&reply("lead", None, alone)).unwrap();
        assert_eq!(told["error"], "server is not initialized");
    }

    #[test]
    fn metrics_are_numbers() {
        let told = monitor("zk_version\t3.9.5, built\nzk_znode_count\t5\nzk_avg_latency\t0.25\n");
        assert_eq!(
            Value::from(told),
            json!({ "version": "3.9.5, built", "znode_count": 5, "avg_latency": 0.25 })
        );
    }
}
