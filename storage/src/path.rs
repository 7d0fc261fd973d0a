//! Paths of znodes and the rules they obey (ZooKeeper's `PathUtils.validatePath`).

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// A valid absolute path. It is valid because it exists: the only ways to one are [`ZPath::parse`] and the
/// verbs below. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZPath(Arc<str>);

/// Why a string is not a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The empty string.
    #[error("a path must not be empty")]
    Empty,
    /// It does not begin with `/`.
    #[error("a path must start with /")]
    NotAbsolute,
    /// It ends with `/` and is not the root.
    #[error("a path must not end with /")]
    TrailingSlash,
    /// Two slashes in a row.
    #[error("a path must not have an empty element")]
    EmptyElement,
    /// `.` or `..` as an element.
    #[error("a path must not have . or .. as an element")]
    Relative,
    /// A character of the ranges that ZooKeeper forbids.
    #[error("character {0:#x} is not allowed in a path")]
    Character(u32),
}

/// Check a string against the rules of [`ZPath`] without making one.
///
/// Forbidden are U+0000–001F, 007F–009F, D800–F8FF and everything from FFF0 on: ZooKeeper looks at UTF-16 units, and
/// what lies above FFFF is two surrogates there.
pub fn validate(path: &str) -> Result<(), PathError> {
    if path.is_empty() {
        return Err(PathError::Empty);
    }
    if !path.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    if path.len() == 1 {
        return Ok(());
    }
    if path.ends_with('/') {
        return Err(PathError::TrailingSlash);
    }
    for element in path[1..].split('/') {
        match element {
            "" => return Err(PathError::EmptyElement),
            "." | ".." => return Err(PathError::Relative),
            _ => {}
        }
    }
    for c in path.chars() {
        let c = c as u32;
        if c <= 0x1f || (0x7f..=0x9f).contains(&c) || (0xd800..=0xf8ff).contains(&c) || c >= 0xfff0 {
            return Err(PathError::Character(c));
        }
    }
    Ok(())
}

/// The path of the parent, textually: everything before the last `/`, or `/` for a child of the root.
/// `None` for the root itself and for strings without a `/`.
pub fn parent_of(path: &str) -> Option<&str> {
    if path.len() <= 1 {
        return None;
    }
    match path.rfind('/') {
        Some(0) => Some("/"),
        Some(at) => Some(&path[..at]),
        None => None,
    }
}

/// The last element of a path; empty for the root.
pub fn name_of(path: &str) -> &str {
    match path.rfind('/') {
        Some(at) => &path[at + 1..],
        None => path,
    }
}

impl ZPath {
    /// The path in `s`, or which rule it breaks.
    pub fn parse(s: &str) -> Result<ZPath, PathError> {
        validate(s)?;
        Ok(ZPath(Arc::from(s)))
    }

    /// `/`.
    pub fn root() -> ZPath {
        ZPath(Arc::from("/"))
    }

    /// A path that is known to be valid because it came from our own store or table.
    ///
    /// # Panics
    /// In debug builds, when it is not.
    pub fn trusted(s: &str) -> ZPath {
        debug_assert!(validate(s).is_ok(), "not a path: {s:?}");
        ZPath(Arc::from(s))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The parent's path; `None` for the root.
    pub fn parent(&self) -> Option<&str> {
        parent_of(&self.0)
    }

    /// The last element; empty for the root.
    pub fn name(&self) -> &str {
        name_of(&self.0)
    }

    /// How many elements; 0 for the root.
    pub fn depth(&self) -> usize {
        if self.0.len() == 1 { 0 } else { self.0.bytes().filter(|b| *b == b'/').count() }
    }
}

impl Borrow<str> for ZPath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl std::ops::Deref for ZPath {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ZPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ZPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_of_path_utils() {
        for good in ["/", "/a", "/a/b", "/a.b/..c", "/…"] {
            assert_eq!(validate(good), Ok(()), "{good:?}");
        }
        for (bad, why) in [
            ("", PathError::Empty),
            ("a", PathError::NotAbsolute),
            ("/a/", PathError::TrailingSlash),
            ("//", PathError::TrailingSlash),
            ("/a//b", PathError::EmptyElement),
            ("/a/./b", PathError::Relative),
            ("/..", PathError::Relative),
            ("/a\u{0}", PathError::Character(0)),
            ("/a\u{1f}", PathError::Character(0x1f)),
            ("/a\u{9f}", PathError::Character(0x9f)),
            ("/\u{f8ff}", PathError::Character(0xf8ff)),
            ("/\u{fff0}", PathError::Character(0xfff0)),
            ("/\u{20000}", PathError::Character(0x20000)),
        ] {
            assert_eq!(validate(bad), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn parents_and_names() {
        let p = ZPath::parse("/a/b").unwrap();
        assert_eq!((p.parent(), p.name(), p.depth()), (Some("/a"), "b", 2));
        let a = ZPath::parse("/a").unwrap();
        assert_eq!((a.parent(), a.name(), a.depth()), (Some("/"), "a", 1));
        assert_eq!((ZPath::root().parent(), ZPath::root().name(), ZPath::root().depth()), (None, "", 0));
    }
}
