//! What happens beside the answers, in words.

use super::session::News;
use crate::cli::Output;
use serde_json::json;

/// A line or two.
pub(super) fn text(news: &News, output: Output) -> String {
    match (news, output) {
        (News::Connected { server, session, is_new, read_only }, Output::Text) => {
            let session = match is_new {
                true => format!("session {session:#x}"),
                false => format!("the same session {session:#x}"),
            };
            let read_only = if *read_only { ", read-only: it has no leader" } else { "" };
            format!("connected to {server}, {session}{read_only}")
        }
        (News::Connected { server, session, is_new, read_only }, Output::Json) => json!({
            "connected": server,
            "session": format!("{session:#x}"),
            "is_new": is_new,
            "read_only": read_only,
        })
        .to_string(),
        (News::Lost { server, why }, Output::Text) => {
            format!("connection to {server} lost: {why}; looking for a server")
        }
        (News::Lost { server, why }, Output::Json) => json!({ "lost": server, "why": why }).to_string(),
        (News::Expired, Output::Text) => {
            "the session is expired: its ephemerals and watches are gone; a new one begins".to_owned()
        }
        (News::Expired, Output::Json) => json!({ "expired": true }).to_string(),
        (News::Event { kind, path, zxid }, Output::Text) => {
            format!("WATCHER::\nWatchedEvent state:SyncConnected type:{kind:?} path:{path} zxid: {zxid}")
        }
        (News::Event { kind, path, zxid }, Output::Json) => {
            json!({ "event": format!("{kind:?}"), "path": path, "zxid": format!("{zxid:#x}") }).to_string()
        }
    }
}
