//! ACLs as they are typed and shown.

use warren_storage::{Acl, perms};

/// Letters of permissions, in the order in which they are shown.
const LETTERS: [(char, i32); 5] = [
    ('c', perms::CREATE),
    ('d', perms::DELETE),
    ('r', perms::READ),
    ('w', perms::WRITE),
    ('a', perms::ADMIN),
];

/// Why it is no ACL. Other than zkCli, which drops what it cannot read and may so leave nothing, all of it is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AclError {
    /// Two colons at least.
    #[error("{0:?} is not of the form SCHEME:ID:PERMS, such as world:anyone:r or digest:USER:HASH:cdrwa")]
    Form(String),
    /// Not among c, d, r, w, a.
    #[error("{0:?} is no permission; c creates children, d deletes them, r reads, w writes, a sets the ACL")]
    Permission(char),
}

/// `SCHEME:ID:PERMS`, and more behind commas.
pub fn parse(text: &str) -> Result<Vec<Acl>, AclError> {
    text.split(',').map(entry).collect()
}

fn entry(text: &str) -> Result<Acl, AclError> {
    let form = || AclError::Form(text.to_owned());
    let (scheme, rest) = text.split_once(':').ok_or_else(form)?;
    let (id, letters) = rest.rsplit_once(':').ok_or_else(form)?;
    let mut perms = 0;
    for letter in letters.chars() {
        let (_, bit) =
            LETTERS.iter().find(|(known, _)| *known == letter).ok_or(AclError::Permission(letter))?;
        perms |= bit;
    }
    Ok(Acl::new(perms, scheme, id))
}

/// The letters of permissions.
pub fn letters(perms: i32) -> String {
    LETTERS.iter().filter(|(_, bit)| perms & bit != 0).map(|(letter, _)| letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_refused_as_a_whole() {
        assert_eq!(
            parse("world:anyone:r,digest:a:b=:cdrwa,ip:::1:"),
            Ok(vec![
                Acl::new(1, "world", "anyone"),
                Acl::new(31, "digest", "a:b="),
                Acl::new(0, "ip", "::1")
            ])
        );
        assert_eq!(parse("auth::cdrwa"), Ok(vec![Acl::new(31, "auth", "")]));
        assert_eq!(parse("world:anyone:r,x"), Err(AclError::Form("x".into())));
        assert_eq!(parse("world:anyone:rx"), Err(AclError::Permission('x')));
        assert_eq!((letters(31), letters(3)), ("cdrwa".into(), "rw".into()));
    }
}
