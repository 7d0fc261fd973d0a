//! What a command says, for people and for scripts.

use super::{acl, hexdump, time};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::fmt::Write as _;
use warren_storage::{Acl, Stat};

/// How data are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As text; on a terminal that it would upset as a hexdump.
    Plain,
    /// As the bytes that they are, with nothing behind them.
    Raw,
    /// In base64.
    Base64,
    /// As a hexdump.
    Hex,
}

/// What a command says. Long ones say many.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// It is done, which zkCli does not mention; the names are for scripts.
    Done(Value),
    /// A line of text; for scripts, what it holds.
    Line(String, Value),
    /// A new znode.
    Created(String),
    /// get, config.
    Data {
        /// Of this znode.
        path: String,
        /// `None` is null.
        data: Option<Vec<u8>>,
        /// If it was asked for.
        stat: Option<Stat>,
        /// How it is shown.
        form: Form,
    },
    /// ls; in order.
    Children {
        /// Of this znode.
        path: String,
        /// Their names.
        names: Vec<String>,
        /// If it was asked for.
        stat: Option<Stat>,
    },
    /// stat, and -s of others.
    Stat(String, Stat),
    /// getAcl.
    Acl {
        /// Of this znode.
        path: String,
        /// Line by line.
        acl: Vec<Acl>,
        /// If it was asked for.
        stat: Option<Stat>,
    },
}

impl Answer {
    /// For people, with a newline at its end; bytes, since data are. `terminal`: is it a terminal that reads them?
    pub fn text(&self, terminal: bool) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Answer::Done(_) => {}
            Answer::Line(text, _) => line(&mut out, text),
            Answer::Created(path) => line(&mut out, &format!("Created {path}")),
            Answer::Data { data, stat: with, form, .. } => {
                match (data, form) {
                    (None, Form::Raw) => {}
                    (None, _) => line(&mut out, "null"),
                    (Some(data), Form::Raw) => out.extend_from_slice(data),
                    (Some(data), Form::Base64) => line(&mut out, &STANDARD.encode(data)),
                    (Some(data), Form::Hex) => line(&mut out, &hexdump::table(data)),
                    (Some(data), Form::Plain) if terminal && hexdump::text(data).is_none() => {
                        line(&mut out, &hexdump::table(data));
                    }
                    (Some(data), Form::Plain) => {
                        out.extend_from_slice(data);
                        out.push(b'\n');
                    }
                }
                out.extend(with.iter().flat_map(|stat| stat_text(stat).into_bytes()));
            }
            Answer::Children { names, stat, .. } => {
                line(&mut out, &format!("[{}]", names.join(", ")));
                out.extend(stat.iter().flat_map(|stat| stat_text(stat).into_bytes()));
            }
            Answer::Stat(_, stat) => out.extend(stat_text(stat).into_bytes()),
            Answer::Acl { acl, stat, .. } => {
                for Acl { perms, id } in acl {
                    line(&mut out, &format!("'{},'{}\n: {}", id.scheme, id.id, acl::letters(*perms)));
                }
                out.extend(stat.iter().flat_map(|stat| stat_text(stat).into_bytes()));
            }
        }
        out
    }

    /// For scripts: one object.
    pub fn json(&self) -> Value {
        match self {
            Answer::Done(what) | Answer::Line(_, what) => what.clone(),
            Answer::Created(path) => json!({ "created": path }),
            Answer::Data { path, data, stat, .. } => {
                let (data, encoding) = match data.as_deref().map(|data| (std::str::from_utf8(data), data)) {
                    None => (Value::Null, Value::Null),
                    Some((Ok(text), _)) => (json!(text), json!("utf-8")),
                    Some((Err(_), data)) => (json!(STANDARD.encode(data)), json!("base64")),
                };
                with_stat(json!({ "path": path, "data": data, "encoding": encoding }), stat.as_ref())
            }
            Answer::Children { path, names, stat } => {
                with_stat(json!({ "path": path, "children": names }), stat.as_ref())
            }
            Answer::Stat(path, stat) => with_stat(json!({ "path": path }), Some(stat)),
            Answer::Acl { path, acl, stat } => {
                let entries: Vec<Value> = acl
                    .iter()
                    .map(|Acl { perms, id }| {
                        json!({ "scheme": id.scheme, "id": id.id, "perms": acl::letters(*perms) })
                    })
                    .collect();
                with_stat(json!({ "path": path, "acl": entries }), stat.as_ref())
            }
        }
    }
}

fn line(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
    out.push(b'\n');
}

fn with_stat(mut object: Value, stat: Option<&Stat>) -> Value {
    if let Some(stat) = stat {
        object["stat"] = stat_json(stat);
    }
    object
}

/// Line by line, as zkCli prints it.
fn stat_text(stat: &Stat) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "cZxid = {:#x}", stat.czxid);
    let _ = writeln!(out, "ctime = {}", time::date(stat.ctime));
    let _ = writeln!(out, "mZxid = {:#x}", stat.mzxid);
    let _ = writeln!(out, "mtime = {}", time::date(stat.mtime));
    let _ = writeln!(out, "pZxid = {:#x}", stat.pzxid);
    let _ = writeln!(out, "cversion = {}", stat.cversion);
    let _ = writeln!(out, "dataVersion = {}", stat.version);
    let _ = writeln!(out, "aclVersion = {}", stat.aversion);
    let _ = writeln!(out, "ephemeralOwner = {:#x}", stat.ephemeral_owner);
    let _ = writeln!(out, "dataLength = {}", stat.data_length);
    let _ = writeln!(out, "numChildren = {}", stat.num_children);
    out
}

/// Zxids and sessions are text: not every reader of JSON has 64 bits for a number.
fn stat_json(stat: &Stat) -> Value {
    json!({
        "czxid": format!("{:#x}", stat.czxid),
        "ctime_ms": stat.ctime,
        "mzxid": format!("{:#x}", stat.mzxid),
        "mtime_ms": stat.mtime,
        "pzxid": format!("{:#x}", stat.pzxid),
        "cversion": stat.cversion,
        "version": stat.version,
        "aversion": stat.aversion,
        "ephemeral_owner": format!("{:#x}", stat.ephemeral_owner),
        "data_length": stat.data_length,
        "num_children": stat.num_children,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(answer: &Answer) -> String {
        String::from_utf8(answer.text(true)).unwrap()
    }

    #[test]
    fn a_stat_is_as_zkcli_prints_it() {
        let stat = Stat { czxid: 0x1f, ephemeral_owner: -1, data_length: 4, version: 2, ..Stat::default() };
        let text = shown(&Answer::Stat("/a".into(), stat));
        assert_eq!(
            text,
            "cZxid = 0x1f\nctime = Thu Jan 01 00:00:00 UTC 1970\nmZxid = 0x0\nmtime = Thu Jan 01 00:00:00 UTC 1970\n\
             pZxid = 0x0\ncversion = 0\ndataVersion = 2\naclVersion = 0\nephemeralOwner = 0xffffffffffffffff\n\
             dataLength = 4\nnumChildren = 0\n"
        );
        let json = Answer::Stat("/a".into(), stat).json();
        assert_eq!((&json["path"], &json["stat"]["czxid"]), (&json!("/a"), &json!("0x1f")));
    }

    #[test]
    fn data_are_shown_in_the_form_that_was_asked_for() {
        let data = |data: &[u8], form| Answer::Data {
            path: "/a".into(),
            data: Some(data.to_vec()),
            stat: None,
            form,
        };
        assert_eq!(shown(&data(b"x", Form::Plain)), "x\n");
        assert_eq!(shown(&data(b"x", Form::Raw)), "x");
        assert_eq!(shown(&data(b"x", Form::Base64)), "eA==\n");
        assert!(shown(&data(b"x", Form::Hex)).contains("78"));
        // A terminal is spared what would upset it; a file gets what there is.
        assert!(shown(&data(b"\x1b[2J", Form::Plain)).contains("|.[2J"));
        assert_eq!(data(b"\x1b\xff", Form::Plain).text(false), b"\x1b\xff\n");
        assert_eq!(
            data(b"\xff", Form::Plain).json(),
            json!({ "path": "/a", "data": "/w==", "encoding": "base64" })
        );
        let null = Answer::Data { path: "/a".into(), data: None, stat: None, form: Form::Plain };
        assert_eq!((shown(&null), &null.json()["data"]), ("null\n".into(), &Value::Null));
    }

    #[test]
    fn lists_are_as_zkcli_prints_them() {
        let names = vec!["a".into(), "b".into()];
        let children = Answer::Children { path: "/".into(), names, stat: None };
        assert_eq!(shown(&children), "[a, b]\n");
        assert_eq!(children.json(), json!({ "path": "/", "children": ["a", "b"] }));
        let acl = Answer::Acl { path: "/".into(), acl: Acl::open(), stat: None };
        assert_eq!(shown(&acl), "'world,'anyone\n: cdrwa\n");
        assert_eq!(acl.json()["acl"][0]["perms"], json!("cdrwa"));
    }
}
