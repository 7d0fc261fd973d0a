//! Reads, answered: a pure function of a snapshot, who asks, and the request (step ④ of the walk).

use crate::identity::{self, Identity};
use crate::listings::Listings;
use warren_storage::tree::{Snapshot, TreeError, Znode};
use warren_storage::{Acl, Code, SessionId, Stat, ZPath, perms};
use warren_transport::reply::encode;
use warren_transport::{Opcode, Read, ReplyHeader, Request};

/// Bytes of the answer to one multiRead, at most (its last read may go beyond): a request of a few bytes could ask
/// for a large znode many thousand times. More is answered −8.
pub const MULTI_READ_BYTES_MAX: usize = 32 << 20;

/// Bytes of a list of names, at most. Clients refuse far less (1 MiB by default); more is answered −8.
pub const LIST_BYTES_MAX: usize = 256 << 20;

/// The watch that a read asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantsWatch {
    /// On which znode.
    pub path: ZPath,
    /// In the table of getChildren, not of getData.
    pub child: bool,
}

/// Who asks, and what every reply carries.
pub struct Asker<'a> {
    /// What the connection is authenticated as.
    pub identity: &'a Identity,
    /// Whose ephemerals are its own.
    pub session: SessionId,
    /// Comes back in the reply.
    pub xid: i32,
    /// Long lists of children, encoded.
    pub listings: &'a Listings,
    /// No ACL is checked (`skipACL`).
    pub skip_acl: bool,
}

/// Answer a read, appending one packet to `out`. Returns the watch that it asks for, if that is to be set (an
/// exists sets one on a missing znode too; a refused or failed read sets none).
///
/// # Errors
/// When the store cannot be read; nothing was appended then.
pub fn answer(
    tree: &Snapshot,
    asker: &Asker<'_>,
    request: &Request<'_>,
    out: &mut Vec<u8>,
) -> Result<Option<WantsWatch>, TreeError> {
    let zxid = tree.zxid().wire();
    let header = ReplyHeader::ok(asker.xid, zxid);
    let mut watch = None;
    let refused = match request {
        Request::GetData { path, watch: wanted } => match readable(tree, asker, path)? {
            Err(code) => Some(code),
            Ok(node) => {
                encode::data(out, header, node.data.as_deref(), &node.stat());
                watch = wants(*wanted, path, false);
                None
            }
        },
        Request::Exists { path, watch: wanted } => match tree.node(canonical(path))? {
            None => {
                watch = wants(*wanted, path, false);
                Some(Code::NoNode)
            }
            // The server asks for READ here too, whatever ZooKeeper's documentation says.
            Some(node) if !allowed(asker, &tree.acl(node.acl), perms::READ) => Some(Code::NoAuth),
            Some(node) => {
                encode::stat(out, header, &node.stat());
                watch = wants(*wanted, path, false);
                None
            }
        },
        Request::GetChildren { path, watch: wanted } | Request::GetChildren2 { path, watch: wanted } => {
            match readable(tree, asker, path)? {
                Err(code) => Some(code),
                Ok(node) => {
                    let stat = node.stat();
                    let with_stat = matches!(request, Request::GetChildren2 { .. }).then_some(&stat);
                    let path = canonical(path);
                    let whole = match asker.listings.get(path, &node) {
                        Some(names) => {
                            encode::encoded_names(out, header, &names, with_stat);
                            true
                        }
                        None => {
                            let keep = &mut |names: &[u8]| asker.listings.keep(path, &node, names);
                            list(out, header, with_stat, &mut |f| tree.children(path, f), keep)?
                        }
                    };
                    if whole {
                        watch = wants(*wanted, path, true);
                    }
                    (!whole).then_some(Code::BadArguments)
                }
            }
        }
        Request::GetAcl { path } => match tree.node(canonical(path))? {
            None => Some(Code::NoNode),
            Some(node) => {
                let acl = tree.acl(node.acl);
                if !allowed(asker, &acl, perms::READ | perms::ADMIN) {
                    Some(Code::NoAuth)
                } else if allowed(asker, &acl, perms::ADMIN) {
                    encode::acl(out, header, acl.iter().map(Acl::as_ref), &node.stat());
                    None
                } else {
                    let masked: Vec<Acl> = acl.iter().map(identity::masked).collect();
                    encode::acl(out, header, masked.iter().map(Acl::as_ref), &node.stat());
                    None
                }
            }
        },
        Request::GetAllChildrenNumber { path } => match readable(tree, asker, path)? {
            Err(code) => Some(code),
            Ok(_) => {
                let n = tree.all_children_number(canonical(path))?;
                encode::number(out, header, i32::try_from(n).unwrap_or(i32::MAX));
                None
            }
        },
        Request::GetEphemerals { prefix } => {
            let prefix = prefix.map(str::trim).filter(|p| !p.is_empty() && *p != "/").unwrap_or("");
            let each = &mut |f: Take<'_>| tree.ephemerals(asker.session, prefix, f);
            let whole = list(out, header, None, each, &mut |_| {})?;
            (!whole).then_some(Code::BadArguments)
        }
        Request::MultiRead(reads) => {
            multi_read(tree, asker, reads, header, out)?;
            None
        }
        Request::WhoAmI => {
            encode::who_am_i(out, header, asker.identity.who_am_i().iter().map(|id| id.as_ref()));
            None
        }
        _ => unreachable!("{:?} is not a read", request.opcode()),
    };
    if let Some(code) = refused {
        encode::error(out, asker.xid, zxid, code);
    }
    Ok(watch)
}

/// Is this request answered here from a snapshot?
pub fn is_read(opcode: Opcode) -> bool {
    matches!(
        opcode,
        Opcode::GetData
            | Opcode::Exists
            | Opcode::GetChildren
            | Opcode::GetChildren2
            | Opcode::GetAcl
            | Opcode::GetAllChildrenNumber
            | Opcode::GetEphemerals
            | Opcode::MultiRead
            | Opcode::WhoAmI
    )
}

/// Does this read ask for a watch?
pub fn asks_watch(request: &Request<'_>) -> bool {
    matches!(
        request,
        Request::GetData { watch: true, .. }
            | Request::Exists { watch: true, .. }
            | Request::GetChildren { watch: true, .. }
            | Request::GetChildren2 { watch: true, .. }
    )
}

/// "" and "/" are the same znode (ZooKeeper's `DataTree`).
pub(crate) fn canonical(path: &str) -> &str {
    if path.is_empty() { "/" } else { path }
}

fn wants(wanted: bool, path: &str, child: bool) -> Option<WantsWatch> {
    // A watch on what cannot be a path would never fire.
    let path = wanted.then(|| ZPath::parse(canonical(path)).ok()).flatten()?;
    Some(WantsWatch { path, child })
}

fn allowed(asker: &Asker<'_>, acl: &[Acl], perms: i32) -> bool {
    asker.skip_acl || asker.identity.allowed(acl, perms)
}

/// The node, if it is there and may be read.
fn readable(
    tree: &Snapshot,
    asker: &Asker<'_>,
    path: &str,
) -> Result<Result<std::sync::Arc<Znode>, Code>, TreeError> {
    let Some(node) = tree.node(canonical(path))? else { return Ok(Err(Code::NoNode)) };
    if !allowed(asker, &tree.acl(node.acl), perms::READ) {
        return Ok(Err(Code::NoAuth));
    }
    Ok(Ok(node))
}

/// What takes one name after the other, until it returns false.
type Take<'a> = &'a mut dyn FnMut(&str) -> bool;

/// Names as `each` tells them, straight into the packet; `keep` sees the encoded list. False, and nothing appended: there are more than
/// [`LIST_BYTES_MAX`].
fn list(
    out: &mut Vec<u8>,
    header: ReplyHeader,
    stat: Option<&Stat>,
    each: &mut dyn FnMut(Take<'_>) -> Result<(), TreeError>,
    keep: &mut dyn FnMut(&[u8]),
) -> Result<bool, TreeError> {
    let mut names = encode::Names::begin(out, header);
    let mut fits = true;
    let told = each(&mut |name| {
        names.name(name);
        fits = names.bytes() <= LIST_BYTES_MAX;
        fits
    });
    match (&told, fits) {
        (Ok(()), true) => {
            keep(names.encoded());
            names.finish(stat);
        }
        _ => names.abandon(),
    }
    told.map(|()| fits)
}

/// The names of a list within a multiRead, as far as they fit one.
fn children(tree: &Snapshot, path: &str) -> Result<Vec<String>, TreeError> {
    let (mut names, mut bytes) = (Vec::new(), 0);
    tree.children(canonical(path), &mut |name| {
        bytes += name.len() + 4;
        names.push(name.to_owned());
        bytes <= MULTI_READ_BYTES_MAX
    })?;
    Ok(names)
}

/// Each read by itself; it runs on past errors (ZooKeeper's `FinalRequestProcessor`, case multiRead).
fn multi_read(
    tree: &Snapshot,
    asker: &Asker<'_>,
    reads: &[Read<'_>],
    header: ReplyHeader,
    out: &mut Vec<u8>,
) -> Result<(), TreeError> {
    let mut multi = encode::Multi::begin(out, header);
    for read in reads {
        if multi.bytes() > MULTI_READ_BYTES_MAX {
            multi.abandon();
            encode::error(out, header.xid, header.zxid, Code::BadArguments);
            return Ok(());
        }
        let (Read::GetData { path } | Read::GetChildren { path }) = read;
        let result = match readable(tree, asker, path) {
            Ok(result) => result,
            Err(e) => {
                multi.abandon();
                return Err(e);
            }
        };
        match (result, read) {
            (Err(code), _) => multi.error(code.wire()),
            (Ok(node), Read::GetData { .. }) => multi.data(node.data.as_deref(), &node.stat()),
            (Ok(_), Read::GetChildren { path }) => match children(tree, path) {
                Ok(names) => multi.children(names.iter()),
                Err(e) => {
                    multi.abandon();
                    return Err(e);
                }
            },
        }
    }
    multi.finish();
    Ok(())
}
