//! Why a command was not carried out.

use crate::cli::Exit;
use serde_json::{Value, json};
use warren_storage::Code;

/// Why a command was not carried out. The first words are zkCli's where it has any.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The server refused.
    #[error("{}", refused(*.code, .path))]
    Refused {
        /// Why.
        code: Code,
        /// Of which znode, as it was named.
        path: String,
    },
    /// The server refused, with a number that is no code of ZooKeeper's.
    #[error("the server refused with the unknown code {0}")]
    Unknown(i32),
    /// The server's answer makes no sense.
    #[error("the server's answer makes no sense: {0}")]
    Malformed(String),
    /// The connection went before the answer came.
    #[error("the connection was lost before the answer came")]
    Lost,
    /// There is no connection.
    #[error("not connected: {0}")]
    Unconnected(String),
    /// The one who waited gave up.
    #[error("interrupted; what was asked for may be carried out all the same")]
    Interrupted,
    /// What was typed makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Refused here, for a reason that is said.
    #[error("{0}")]
    Told(String),
}

impl Failure {
    /// A refusal.
    pub fn refused(code: Code, path: &str) -> Failure {
        Failure::Refused { code, path: path.to_owned() }
    }

    /// Was it this refusal?
    pub fn is(&self, wanted: Code) -> bool {
        matches!(self, Failure::Refused { code, .. } if *code == wanted)
    }

    /// How scripts are told.
    pub fn exit(&self) -> Exit {
        match self {
            Failure::Lost | Failure::Unconnected(_) => Exit::Unreachable,
            Failure::Usage(_) => Exit::Usage,
            _ => Exit::Degraded,
        }
    }

    /// For scripts, with what can be done about it.
    pub fn json(&self, hints: &[String]) -> Value {
        let mut object = json!({ "error": self.to_string(), "hints": hints });
        if let Failure::Refused { code, path } = self {
            object["code"] = json!(format!("{code:?}"));
            object["path"] = json!(path);
        }
        object
    }
}

fn refused(code: Code, path: &str) -> String {
    match code {
        Code::NoNode => format!("Node does not exist: {path}"),
        Code::NodeExists => format!("Node already exists: {path}"),
        Code::NotEmpty => format!("Node not empty: {path}"),
        Code::NoChildrenForEphemerals => format!("Ephemerals cannot have children: {path}"),
        Code::BadVersion => format!("version No is not valid : {path}"),
        Code::NoAuth => format!("Insufficient permission : {path}"),
        Code::InvalidAcl => format!("Acl is not valid : {path}"),
        Code::BadArguments => format!("Arguments are not valid : {path}"),
        Code::QuotaExceeded => format!("Quota has exceeded : {path}"),
        Code::NotReadOnly => format!("Not a read-only call: {path}"),
        Code::NoWatcher => format!("No such watcher: {path}"),
        Code::ReconfigInProgress => "Another reconfiguration is in progress".to_owned(),
        Code::NewConfigNoQuorum => {
            "No quorum of the new configuration is connected and up to date with the leader".to_owned()
        }
        code => format!("{code}: {path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_speak_as_zkcli_does() {
        let failure = Failure::refused(Code::NoAuth, "/a");
        assert_eq!(failure.to_string(), "Insufficient permission : /a");
        assert!(failure.is(Code::NoAuth) && !failure.is(Code::NoNode) && !Failure::Lost.is(Code::NoAuth));
        let json = failure.json(&["addauth".into()]);
        assert_eq!((&json["code"], &json["hints"][0]), (&json!("NoAuth"), &json!("addauth")));
        assert_eq!(Failure::refused(Code::ThrottledOp, "/a").to_string(), "throttled: /a");
    }

    #[test]
    fn scripts_are_told_apart() {
        assert_eq!(Failure::refused(Code::NoNode, "/").exit(), Exit::Degraded);
        assert_eq!(Failure::Unconnected(String::new()).exit(), Exit::Unreachable);
        assert_eq!(Failure::Usage(String::new()).exit(), Exit::Usage);
    }
}
