//! How the values of `zoo.cfg` are read.

use super::Draft;
use super::table::{CLIENT_TLS, SASL};
use crate::words::Word;

/// Marks a reason of [`Does::Takes`] as a refusal of what was asked for, rather than of how it was written.
pub(super) const REFUSED: &str = "refused: ";

pub(super) fn set<T>(place: &mut T, value: T) -> Result<(), String> {
    *place = value;
    Ok(())
}

/// As ZooKeeper reads its own switches, other than Java's properties: anything else is an error.
pub(super) fn boolean(value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("`{value}` is neither `true` nor `false`")),
    }
}

/// As `Integer.parseInt`.
pub(super) fn integer(value: &str) -> Result<i32, String> {
    value.parse().map_err(|_| format!("`{value}` is not a whole number"))
}

/// As `Integer.decode`, which Java properties go through: decimal, `0x…`, `#…`, or octal with a leading 0. Where
/// ZooKeeper falls back to the default in silence, this refuses.
pub(super) fn decoded(value: &str) -> Result<i32, String> {
    let refuse = || format!("`{value}` is not a whole number");
    let (sign, digits) = match value.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", value.strip_prefix('+').unwrap_or(value)),
    };
    let hex = digits.strip_prefix("0x").or(digits.strip_prefix("0X")).or(digits.strip_prefix('#'));
    let (digits, radix) = match (hex, digits.strip_prefix('0')) {
        (Some(hex), _) => (hex, 16),
        (None, Some(octal)) if !octal.is_empty() => (octal, 8),
        _ => (digits, 10),
    };
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(refuse());
    }
    i32::from_str_radix(&format!("{sign}{digits}"), radix).map_err(|_| refuse())
}

pub(super) fn positive(value: i32) -> Result<u32, String> {
    u32::try_from(value).ok().filter(|value| *value > 0).ok_or_else(|| format!("{value} is not above 0"))
}

/// A limit of which 0 and less is none.
pub(super) fn ceiling(value: i32) -> u32 {
    value.max(0) as u32
}

pub(super) fn port(value: &str) -> Result<u16, String> {
    integer(value)?.try_into().map_err(|_| format!("{value} is not a port (0 to 65535)"))
}

/// Without the brackets that belong to `HOST:PORT`. Java binds every interface, IPv6 included, for either wildcard.
pub(super) fn bare_host(value: &str) -> String {
    match value.trim().trim_start_matches('[').trim_end_matches(']') {
        "0.0.0.0" | "::" => "*".to_owned(),
        host => host.to_owned(),
    }
}

/// Operators raise it for large znodes as often as for many children.
pub(super) fn packet(draft: &mut Draft, value: &str) -> Result<(), String> {
    let bytes = positive(decoded(value)?)?;
    let data = draft.config.limits.znode_bytes_max;
    if bytes > data {
        draft.warnings.push(format!(
            "jute.maxbuffer: requests may be larger, but a znode's data stays at most {data} bytes"
        ));
    }
    set(&mut draft.config.limits.packet_bytes_max, bytes)
}

pub(super) fn skip_acl(draft: &mut Draft, value: &str) -> Result<(), String> {
    if value != "yes" && value != "no" {
        draft.warnings.push(format!("skipACL: `{value}` is not `yes`, so ACLs are checked, as in ZooKeeper"));
    }
    set(&mut draft.config.security.skip_acl, value == "yes")
}

pub(super) fn auth_provider(_: &mut Draft, value: &str) -> Result<(), String> {
    match value.rsplit('.').next().unwrap_or_default() {
        "DigestAuthenticationProvider" | "IPAuthenticationProvider" => Ok(()), // They are there anyway.
        "SASLAuthenticationProvider" => Err(format!("{REFUSED}{SASL}")),
        "X509AuthenticationProvider" => Err(format!("{REFUSED}{CLIENT_TLS}")),
        _ => Err(format!("{REFUSED}{value} is not known: znodes that its ids protect would be out of reach")),
    }
}

pub(super) fn peer_type(draft: &mut Draft, value: &str) -> Result<(), String> {
    let observes = match value.to_ascii_lowercase().as_str() {
        "observer" => true,
        "participant" => false,
        _ => return Err(format!("`{value}` is neither `participant` nor `observer`")),
    };
    set(&mut draft.ensemble.observes, Some(observes))
}

pub(super) fn election_alg(_: &mut Draft, value: &str) -> Result<(), String> {
    match integer(value)? {
        3 => Ok(()),
        other => Err(format!("{other} is none that ZooKeeper has left; it is 3, and means nothing here")),
    }
}

pub(super) fn whitelist(draft: &mut Draft, value: &str) -> Result<(), String> {
    let mut words = Vec::new();
    for word in value.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        if word == "*" {
            words = vec!["*".to_owned()];
            break;
        }
        match Word::from_name(word) {
            Some(_) => words.push(word.to_owned()),
            None => draft.warnings.push(format!("4lw.commands.whitelist: Warren has no command `{word}`")),
        }
    }
    set(&mut draft.config.four_letter_words.whitelist, words)
}
