//! Bytes for the eye: the table that zkCli prints for `get -x` (netty's), and what may be shown on a terminal as it is.

use std::fmt::Write as _;

/// Bytes in a row.
const ROW: usize = 16;
const RULE: &str = "+--------+-------------------------------------------------+----------------+";

/// A table of the bytes, without a newline at its end; nothing for no bytes.
pub fn table(data: &[u8]) -> String {
    let mut out = String::new();
    if data.is_empty() {
        return out;
    }
    let _ = writeln!(out, "         +-------------------------------------------------+");
    let _ = writeln!(out, "         |  0  1  2  3  4  5  6  7  8  9  a  b  c  d  e  f |");
    let _ = writeln!(out, "{RULE}");
    for (n, row) in data.chunks(ROW).enumerate() {
        let _ = write!(out, "|{:08x}|", n * ROW);
        for at in 0..ROW {
            match row.get(at) {
                Some(byte) => _ = write!(out, " {byte:02x}"),
                None => out.push_str("   "),
            }
        }
        out.push_str(" |");
        for at in 0..ROW {
            out.push(match row.get(at) {
                Some(byte @ 0x20..0x7f) => char::from(*byte),
                Some(_) => '.',
                None => ' ',
            });
        }
        out.push_str("|\n");
    }
    out.push_str(RULE);
    out
}

/// The text, if a terminal shows it as it is: nothing in it moves the cursor or changes colours.
pub fn text(data: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(data).ok()?;
    text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t')).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_sixteen() {
        let shown = table(b"0123456789abcdef\x00\xff");
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), 6);
        assert_eq!(lines[3], "|00000000| 30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66 |0123456789abcdef|");
        assert_eq!(lines[4], "|00000010| 00 ff                                           |..              |");
        assert!(lines[2] == RULE && lines[5] == RULE && table(b"").is_empty());
    }

    #[test]
    fn what_moves_the_cursor_is_no_text() {
        assert_eq!(text("zwölf\n\t".as_bytes()), Some("zwölf\n\t"));
        assert_eq!((text(b"\x1b[2J"), text(b"\xff"), text(b"a\r")), (None, None, None));
    }
}
