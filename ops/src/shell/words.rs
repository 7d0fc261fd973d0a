//! A typed line as words, and words as they are typed: zkCli's quoting, with what it leaves open refused.
//!
//! A quote means something at the beginning of a word only, so `set /a {"b":1}` needs none. A word in double quotes may
//! hold `\"`; nothing else is special.

/// A word of a line, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Without its quotes.
    pub text: String,
    /// Where it begins in the line, its quote included, bytes.
    pub start: usize,
    /// The quote that it began with, if that is not closed.
    pub open: Option<char>,
}

/// A quote without its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {0} at the beginning of a word has no end; quotes inside a word need none")]
pub struct Unclosed(pub char);

/// The words of a line that may still be typed: the last one may be open.
pub fn scan(line: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut chars = line.char_indices().peekable();
    while let Some((start, first)) = chars.next() {
        if first.is_whitespace() {
            continue;
        }
        let mut text = String::new();
        let mut open = None;
        match first {
            '"' | '\'' => {
                open = Some(first);
                while let Some((_, c)) = chars.next() {
                    if c == first {
                        open = None;
                        break;
                    }
                    match (c, first, chars.peek()) {
                        ('\\', '"', Some((_, '"'))) => {
                            chars.next();
                            text.push('"');
                        }
                        _ => text.push(c),
                    }
                }
            }
            _ => {
                text.push(first);
                while let Some((_, c)) = chars.next_if(|(_, c)| !c.is_whitespace()) {
                    text.push(c);
                }
            }
        }
        words.push(Word { text, start, open });
    }
    words
}

/// The words of a whole line.
pub fn split(line: &str) -> Result<Vec<String>, Unclosed> {
    let words = scan(line);
    match words.last().and_then(|word| word.open) {
        Some(quote) => Err(Unclosed(quote)),
        None => Ok(words.into_iter().map(|word| word.text).collect()),
    }
}

/// A word as it must be typed; in this quote, if one is open already.
pub fn quoted(text: &str, open: Option<char>) -> String {
    let plain = !text.is_empty() && !text.starts_with(['"', '\'']) && !text.contains(char::is_whitespace);
    match open {
        None if plain => text.to_owned(),
        Some('\'') if !text.contains('\'') => format!("'{text}'"),
        _ => format!("\"{}\"", text.replace('"', "\\\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_mean_something_at_the_beginning_of_a_word() {
        for (line, words) in [
            ("", vec![]),
            ("  ls   / ", vec!["ls", "/"]),
            (r#"set /a "two words""#, vec!["set", "/a", "two words"]),
            (r#"set /a {"b":1}"#, vec!["set", "/a", r#"{"b":1}"#]),
            (r#"set /a '{"b": 1}'"#, vec!["set", "/a", r#"{"b": 1}"#]),
            (r#"set /a "say \"x\" C:\d""#, vec!["set", "/a", r#"say "x" C:\d"#]),
            (r#"set /a """#, vec!["set", "/a", ""]),
            ("set /a it's", vec!["set", "/a", "it's"]),
            (r#""a"b"#, vec!["a", "b"]),
        ] {
            assert_eq!(split(line), Ok(words.into_iter().map(String::from).collect()), "{line}");
        }
        assert_eq!(split("get 'a b"), Err(Unclosed('\'')));
    }

    #[test]
    fn what_is_quoted_is_read_back() {
        for text in ["/a", "/a b", "", "/it's", "\"x\" y", "'", "a\\b c"] {
            assert_eq!(split(&quoted(text, None)), Ok(vec![text.to_owned()]), "{text}");
            for open in ['"', '\''] {
                assert_eq!(split(&quoted(text, Some(open))), Ok(vec![text.to_owned()]), "{text}");
            }
        }
        assert_eq!(quoted("/a", None), "/a");
    }

    #[test]
    fn an_open_word_tells_where_it_begins() {
        let words = scan("get \"/a b");
        assert_eq!(words[1], Word { text: "/a b".into(), start: 4, open: Some('"') });
    }
}
