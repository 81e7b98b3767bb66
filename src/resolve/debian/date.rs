//! Dates as Release files write them, without a clock or a time zone database.

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that the leap day comes last.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Seconds since 1970 of a date such as `Sat, 11 Jul 2026 10:16:37 UTC` (RFC 5322, section 3.3).
pub fn parse(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let text = text.split_once(',').map_or(text, |(_, rest)| rest);
    let mut words = text.split_whitespace();
    let day: i64 = words.next()?.parse().ok()?;
    let name = words.next()?;
    let month = MONTHS.iter().position(|month| *month == name)? as i64 + 1;
    let year: i64 = words.next()?.parse().ok()?;
    let clock: Vec<i64> = words
        .next()?
        .split(':')
        .map(|part| part.parse().ok())
        .collect::<Option<_>>()?;
    let &[hours, minutes, seconds] = clock.as_slice() else {
        return None;
    };
    let zone = words.next().unwrap_or("UTC");
    let in_range = (1..=31).contains(&day)
        && (1970..=9999).contains(&year)
        && (0..24).contains(&hours)
        && (0..60).contains(&minutes)
        && (0..=60).contains(&seconds);
    if !in_range || !["UTC", "GMT", "Z", "+0000"].contains(&zone) {
        return None;
    }
    Some(days(year, month, day) * 86_400 + hours * 3600 + minutes * 60 + seconds)
}

/// The day of an instant, as `2026-07-11`.
pub fn day(instant: i64) -> String {
    let mut left = instant.div_euclid(86_400);
    let mut year = 1970 + left / 366;
    while days(year + 1, 1, 1) <= left {
        year += 1;
    }
    left -= days(year, 1, 1);
    let mut month = 1;
    while month < 12 && days(year, month + 1, 1) - days(year, 1, 1) <= left {
        month += 1;
    }
    let day = left - (days(year, month, 1) - days(year, 1, 1)) + 1;
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_dates_and_prints_days() {
        for (text, seconds, printed) in [
            ("Thu, 01 Jan 1970 00:00:00 UTC", 0, "1970-01-01"),
            ("Sat, 11 Jul 2026 10:16:37 UTC", 1_783_764_997, "2026-07-11"),
            (
                "Thu, 29 Feb 2024 23:59:59 +0000",
                1_709_251_199,
                "2024-02-29",
            ),
            ("31 Dec 2099 00:00:00 GMT", 4_102_358_400, "2099-12-31"),
        ] {
            assert_eq!(parse(text), Some(seconds), "{text}");
            assert_eq!(day(seconds), printed);
        }
        for bad in [
            "",
            "Sat, 11 Jul 2026",
            "11 Foo 2026 10:16:37 UTC",
            "11 Jul 2026 10:16:37 CEST",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
