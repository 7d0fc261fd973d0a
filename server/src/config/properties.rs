//! Java's properties, as `java.util.Properties.load` reads them: what `zoo.cfg` is written in.

use super::ConfigError;

/// One assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Property {
    /// Where it begins, from 1.
    pub(crate) line: usize,
    /// Unescaped.
    pub(crate) key: String,
    /// Unescaped; not trimmed at its end.
    pub(crate) value: String,
}

/// Java takes every byte for a Latin-1 character. Operators write UTF-8, so that is tried first.
pub(crate) fn decode(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
    }
}

/// All assignments in their order; a key may come twice.
pub(crate) fn parse(text: &str) -> Result<Vec<Property>, ConfigError> {
    logical_lines(text).into_iter().map(|(line, text)| property(line, &text)).collect()
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\x0c')
}

/// Joins lines that end in an odd number of backslashes with the next one, whose leading blanks go. Empty lines and
/// comments go too; a comment is never continued.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut pending: Option<(usize, String)> = None;
    let unix = text.replace("\r\n", "\n").replace('\r', "\n");
    for (index, natural) in unix.split('\n').enumerate() {
        let natural = natural.trim_start_matches(is_blank);
        let fresh = pending.as_ref().is_none_or(|(_, begun)| begun.is_empty());
        if fresh && natural.starts_with(['#', '!']) {
            pending = None;
            continue;
        }
        let (line, mut whole) = pending.take().unwrap_or((index + 1, String::new()));
        let backslashes = natural.len() - natural.trim_end_matches('\\').len();
        if backslashes % 2 == 1 {
            whole.push_str(&natural[..natural.len() - 1]);
            pending = Some((line, whole));
        } else {
            whole.push_str(natural);
            if !whole.is_empty() {
                lines.push((line, whole));
            }
        }
    }
    lines.extend(pending.filter(|(_, whole)| !whole.is_empty()));
    lines
}

/// The key ends at the first `=`, `:` or blank that is not escaped; one `=` or `:` with the blanks around it parts
/// it from the value.
fn property(line: usize, text: &str) -> Result<Property, ConfigError> {
    let mut escaped = false;
    let end = text.char_indices().find(|&(_, c)| {
        let ends = !escaped && (matches!(c, '=' | ':') || is_blank(c));
        escaped = c == '\\' && !escaped;
        ends
    });
    let (key, rest) = text.split_at(end.map_or(text.len(), |(at, _)| at));
    let rest = rest.trim_start_matches(is_blank);
    let value = rest.strip_prefix(['=', ':']).unwrap_or(rest).trim_start_matches(is_blank);
    Ok(Property { line, key: unescape(line, key)?, value: unescape(line, value)? })
}

fn unescape(line: usize, text: &str) -> Result<String, ConfigError> {
    let mut units: Vec<u16> = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let c = match c {
            '\\' => match chars.next() {
                Some('u') => {
                    let digits =
                        chars.as_str().get(..4).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
                    let unit = digits.and_then(|hex| u16::from_str_radix(hex, 16).ok());
                    let reason =
                        || ConfigError::Syntax { line, reason: "\\u needs four hex digits".to_owned() };
                    units.push(unit.ok_or_else(reason)?);
                    chars = chars.as_str()[4..].chars();
                    continue;
                }
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('f') => '\x0c',
                Some(other) => other,
                None => continue,
            },
            plain => plain,
        };
        units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
    }
    Ok(String::from_utf16_lossy(&units))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(usize, String, String)> {
        parse(text)
            .unwrap()
            .into_iter()
            .map(|property| (property.line, property.key, property.value))
            .collect()
    }

    fn one(text: &str) -> (String, String) {
        let mut all = read(text);
        assert_eq!(all.len(), 1, "{text:?} is {all:?}");
        let (_, key, value) = all.remove(0);
        (key, value)
    }

    /// Each checked against `java.util.Properties`.
    #[test]
    fn separators_blanks_and_escapes_are_javas() {
        for (text, key, value) in [
            ("a=b", "a", "b"),
            ("a = b ", "a", "b "),
            ("  a\t:\t b", "a", "b"),
            ("a b=c", "a", "b=c"),
            ("a==b", "a", "=b"),
            ("a = = b", "a", "= b"),
            ("a", "a", ""),
            ("=b", "", "b"),
            ("a\\=b=c", "a=b", "c"),
            ("a\\ b c", "a b", "c"),
            ("a=x\\ty\\q\\\\", "a", "x\tyq\\"),
            ("p=\\u00e9\\uD83D\\uDE00", "p", "é😀"),
            ("a=b\\\n   c", "a", "bc"),
            ("a=b\\\\\nc=d".split_once('\n').unwrap().0, "a", "b\\"),
            ("a=b\\\n#c", "a", "b#c"),
            ("a=b\\\n\n", "a", "b"),
            ("a=b\\", "a", "b"),
            ("\\\na=b", "a", "b"),
            ("a=1#2", "a", "1#2"),
            ("a=b\rc\\", "a", "b"),
        ] {
            if text.contains('\r') {
                assert_eq!(read(text)[0], (1, key.into(), value.into()), "{text:?}");
            } else {
                assert_eq!(one(text), (key.into(), value.into()), "{text:?}");
            }
        }
    }

    #[test]
    fn comments_and_empty_lines_are_skipped_and_lines_are_counted() {
        let text = "# c \\\na=1\r\n\r\n ! d\n\t\nb=2\\\n  3\nc=4";
        let expected = [(2, "a", "1"), (6, "b", "23"), (8, "c", "4")];
        assert_eq!(read(text), expected.map(|(line, key, value)| (line, key.into(), value.into())));
    }

    #[test]
    fn a_continued_line_may_be_empty_or_begin_like_a_comment() {
        for (text, expected) in [
            ("a=b\\\n\nc=d", vec![(1, "a", "b"), (3, "c", "d")]),
            ("a=b\\\n   \nc=d", vec![(1, "a", "b"), (3, "c", "d")]),
            ("\\\n#x\na=b", vec![(3, "a", "b")]),
            ("\\\n\na=b", vec![(3, "a", "b")]),
            ("#x\\\na=b", vec![(2, "a", "b")]),
            ("a\\\r\n  b=c", vec![(1, "ab", "c")]),
        ] {
            let expected: Vec<_> =
                expected.into_iter().map(|(n, k, v)| (n, k.to_owned(), v.to_owned())).collect();
            assert_eq!(read(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_broken_escape_is_refused_with_its_line() {
        for text in ["x=1\ny=\\u12", "x=1\ny=\\u12g4", "x=1\ny=\\u+123", "x=1\ny=\\u12é"] {
            assert_eq!(parse(text).unwrap_err().to_string(), "line 2: \\u needs four hex digits");
        }
    }

    #[test]
    fn bytes_are_utf8_or_latin1() {
        assert_eq!(decode("dataDir=/é".as_bytes()), "dataDir=/é");
        assert_eq!(decode(b"dataDir=/\xe9"), "dataDir=/é");
    }
}
