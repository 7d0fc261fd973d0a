//! How a certificate names its server: a URI among its alternative names, `warren://ENSEMBLE/server/ID`.

use super::ServerId;
use std::fmt;

/// Longest name of an ensemble, bytes.
pub const ENSEMBLE_NAME_BYTES_MAX: usize = 64;
const SCHEME: &str = "warren://";
const SERVER: &str = "/server/";

/// Which server of which ensemble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerName {
    /// The ensemble; [`check_ensemble_name`] holds.
    pub ensemble: String,
    /// Not 0.
    pub server: ServerId,
}

/// Why a name is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The ensemble's.
    #[error(
        "an ensemble's name has 1 to {ENSEMBLE_NAME_BYTES_MAX} letters, digits, dots, dashes and underscores, and begins with a \
         letter or digit; {0:?} does not"
    )]
    Ensemble(String),
    /// The URI.
    #[error("{0:?} is not of the form warren://ENSEMBLE/server/ID, ID from 1 to 255")]
    Uri(String),
}

/// Is this a name that an ensemble may have? It stands in a URI unescaped.
pub fn check_ensemble_name(name: &str) -> Result<(), NameError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let starts_well = name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
    if starts_well && name.len() <= ENSEMBLE_NAME_BYTES_MAX && name.bytes().all(plain) {
        return Ok(());
    }
    Err(NameError::Ensemble(name.chars().take(ENSEMBLE_NAME_BYTES_MAX).collect()))
}

impl PeerName {
    /// From a URI of a certificate. One name has one spelling, so that two texts never mean one server.
    pub fn parse(uri: &str) -> Result<PeerName, NameError> {
        let fault = || NameError::Uri(uri.chars().take(2 * ENSEMBLE_NAME_BYTES_MAX).collect());
        let (ensemble, id) =
            uri.strip_prefix(SCHEME).and_then(|rest| rest.split_once(SERVER)).ok_or_else(fault)?;
        check_ensemble_name(ensemble).map_err(|_| fault())?;
        let server: ServerId = id.parse().map_err(|_| fault())?;
        if server == 0 || server.to_string() != id {
            return Err(fault());
        }
        Ok(PeerName { ensemble: ensemble.to_owned(), server })
    }

    /// Does a URI claim to be such a name?
    pub fn is_meant(uri: &str) -> bool {
        uri.starts_with(SCHEME)
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}{SERVER}{}", self.ensemble, self.server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_spelling() {
        let name = PeerName { ensemble: "prod-1.eu_west".into(), server: 255 };
        assert_eq!(name.to_string(), "warren://prod-1.eu_west/server/255");
        assert_eq!(PeerName::parse(&name.to_string()), Ok(name));
        for uri in [
            "",
            "warren://",
            "warren:///server/1",
            "warren://a/server/",
            "warren://a/server/0",
            "warren://a/server/01",
            "warren://a/server/+1",
            "warren://a/server/256",
            "warren://a/server/1/",
            "warren://a/b/server/1",
            "warren://a%20b/server/1",
            "warren://-a/server/1",
            "Warren://a/server/1",
            "http://a/server/1",
            &format!("warren://{}/server/1", "a".repeat(ENSEMBLE_NAME_BYTES_MAX + 1)),
        ] {
            assert!(PeerName::parse(uri).is_err(), "{uri}");
        }
    }

    #[test]
    fn an_ensembles_name_needs_no_escapes() {
        let longest = "a".repeat(ENSEMBLE_NAME_BYTES_MAX);
        for good in ["a", "0", "prod.eu-1_b", longest.as_str()] {
            assert_eq!(check_ensemble_name(good), Ok(()), "{good}");
        }
        let too_long = format!("{longest}a");
        for bad in ["", ".", "-a", "a/b", "a b", "ä", too_long.as_str()] {
            assert!(check_ensemble_name(bad).is_err(), "{bad}");
        }
    }
}
