//! Sizes, cores, lengths of time and instants.

use super::mistake::Mistake;
use super::values::shorten;

const SIZE_UNITS: &[(&str, u64)] = &[
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

const DURATION_UNITS: &[(char, u64)] = &[
    ('d', 86_400_000),
    ('h', 3_600_000),
    ('m', 60_000),
    ('s', 1_000),
];

/// Longest timeout: 30 days, in milliseconds.
const MAX_DURATION: u64 = 30 * 86_400_000;

/// Bytes from an amount such as `4000MB`, `1.5GiB`, of which a process can live.
pub(super) fn size(text: &str) -> Result<u64, Mistake> {
    let bytes = amount(text)?;
    if bytes < 1 << 20 {
        return Err(Mistake::whole(
            format!("`{}` is too little memory for any process", shorten(text)),
            "less than 1 MiB",
        )
        .help(SIZE_HELP));
    }
    Ok(bytes)
}

/// Bytes from an amount such as `20GB`, as the command line has it.
///
/// # Errors
/// What is wrong with it.
pub fn bytes(text: &str) -> Result<u64, String> {
    amount(text).map_err(|_| {
        format!(
            "`{}` is not an amount of bytes such as 500MB or 20GB (kB, MB, GB, TB; KiB, MiB, GiB, TiB)",
            shorten(text)
        )
    })
}

/// Milliseconds from a length of time such as `30d` or `12h`, as the command line has it; also none at all.
///
/// # Errors
/// What is wrong with it.
pub fn age(text: &str) -> Result<u64, String> {
    let some = Some(text).filter(|text| !text.is_empty());
    some.and_then(|text| length(text).ok()).ok_or_else(|| {
        format!(
            "`{}` is not a length of time such as 30d or 12h (d, h, m, s in this order)",
            shorten(text)
        )
    })
}

const SIZE_HELP: &str =
    "write an amount of memory such as \"4000MB\" or \"2GiB\" (kB, MB, GB, TB; KiB, MiB, GiB, TiB)";

fn amount(text: &str) -> Result<u64, Mistake> {
    let split = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let help = SIZE_HELP;
    let bad = || {
        Mistake::whole(
            format!("`{}` is not an amount of memory", shorten(text)),
            "not an amount of memory",
        )
        .help(help)
    };
    let unit = unit.trim_start();
    let Some((_, factor)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) else {
        let range = (text.len() - unit.len())..text.len();
        return Err(match (number.is_empty(), unit.is_empty()) {
            (true, _) => bad(),
            (_, true) => Mistake::whole(
                format!("`{}` has no unit", shorten(text)),
                "bytes, megabytes or gigabytes?",
            )
            .help(help),
            _ => Mistake::at(
                range,
                format!("`{}` is not a unit of memory", shorten(unit)),
                "unknown unit",
            )
            .help(help),
        });
    };
    decimal(number, *factor).ok_or_else(bad)
}

/// Thousandths of a core from `1500m`, `2` or `1.5`.
pub(super) fn cpu(text: &str) -> Result<u64, Mistake> {
    let help = "write cores such as \"2\" or thousandths of a core such as \"1500m\"";
    let bad = |label: &str| {
        Mistake::whole(
            format!("`{}` is not a number of cores", shorten(text)),
            label.to_owned(),
        )
        .help(help)
    };
    let millis = match text.strip_suffix('m') {
        Some(millis) if !millis.contains('.') => decimal(millis, 1),
        Some(_) => None,
        None if text
            .rsplit_once('.')
            .is_some_and(|(_, fraction)| fraction.len() > 3) =>
        {
            None
        }
        None => decimal(text, 1000),
    };
    match millis {
        Some(0) => Err(bad("nothing can run on no core")),
        Some(millis) if millis <= 10_000_000 => Ok(millis),
        Some(_) => Err(bad("more than 10000 cores")),
        None => Err(bad("not a number of cores")),
    }
}

/// `number × factor`, exactly, where `number` is decimal digits with at most one point.
fn decimal(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |part: &str| {
        !part.is_empty() && part.len() <= 18 && part.bytes().all(|b| b.is_ascii_digit())
    };
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let parts = whole.parse::<u128>().ok()? * scale + fraction.parse::<u128>().ok()?;
    u64::try_from(parts * u128::from(factor) / scale).ok()
}

const DURATION_HELP: &str =
    "write a time such as \"90s\", \"1h\" or \"1h30m\" (d, h, m, s in this order)";

fn no_duration(text: &str, range: std::ops::Range<usize>, label: &str) -> Mistake {
    let message = format!("`{}` is not a length of time", shorten(text));
    Mistake::at(range, message, label.to_owned()).help(DURATION_HELP)
}

/// Milliseconds from `90s`, `1h`, `1h30m`, `2d`: how long something may take.
pub(super) fn duration(text: &str) -> Result<u64, Mistake> {
    match length(text)? {
        0 => Err(no_duration(text, 0..text.len(), "no time at all")),
        total if total > MAX_DURATION => {
            Err(no_duration(text, 0..text.len(), "longer than 30 days"))
        }
        total => Ok(total),
    }
}

fn length(text: &str) -> Result<u64, Mistake> {
    let bad = |range, label| no_duration(text, range, label);
    let mut units = DURATION_UNITS.iter();
    let mut total = 0_u64;
    let mut at = 0;
    while at < text.len() {
        let len = text[at..].bytes().take_while(u8::is_ascii_digit).count();
        let Some(unit) = text[at + len..].chars().next() else {
            return Err(bad(at..text.len(), "the unit is missing"));
        };
        let end = at + len + unit.len_utf8();
        let Some((_, factor)) = units.find(|(name, _)| *name == unit) else {
            return Err(bad(at + len..end, "not one of d, h, m, s in this order"));
        };
        let part = text[at..at + len]
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(*factor));
        let Some(sum) = part.and_then(|part| total.checked_add(part)) else {
            return Err(bad(at..end, "not a number"));
        };
        total = sum;
        at = end;
    }
    Ok(total)
}

/// An RFC 3339 instant in UTC from a timestamp, or from a date (its end in UTC, so that the day itself counts).
pub(super) fn instant(text: &str) -> Result<String, Mistake> {
    let bad = |label: &str| {
        Mistake::whole(
            format!("`{}` is not an RFC 3339 date or timestamp", shorten(text)),
            label.to_owned(),
        )
        .help("write a date such as \"2024-06-30\" or a timestamp such as \"2024-06-30T12:00:00Z\"")
    };
    let (date, time) = match text.split_once(['T', 't', ' ']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let day = days(date).ok_or_else(|| bad("not a day of the calendar"))?;
    let (seconds, fraction) = match time {
        None => ((day + 1) * 86_400, String::new()),
        Some(time) => {
            let (seconds, fraction) =
                time_of_day(time).ok_or_else(|| bad("not a time with `Z` or an offset"))?;
            (day * 86_400 + seconds, fraction)
        }
    };
    let out_of_range = || bad("outside the years 1970 to 9999");
    if !(0..253_402_300_800).contains(&seconds) {
        return Err(out_of_range());
    }
    Ok(format!("{}{fraction}Z", civil(seconds)))
}

/// Days since 1970-01-01 of a `YYYY-MM-DD` date.
fn days(date: &str) -> Option<i64> {
    let parts: Vec<i64> = numbers(date, '-', &[4, 2, 2])?;
    let (year, month, day) = (parts[0], parts[1], parts[2]);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    ((1..=length).contains(&day)).then(|| days_from_civil(year, month, day))
}

/// Seconds of a `HH:MM:SS[.fff](Z|±HH:MM)` time in UTC, and its fraction with the point, without trailing zeros.
fn time_of_day(time: &str) -> Option<(i64, String)> {
    let zone = time.find(['Z', 'z', '+', '-'])?;
    let offset = match &time[zone..] {
        "Z" | "z" => 0,
        text => {
            let parts = numbers(&text[1..], ':', &[2, 2])?;
            let sign = if text.starts_with('-') { -1 } else { 1 };
            (parts[0] <= 23 && parts[1] <= 59)
                .then_some(sign * (parts[0] * 3600 + parts[1] * 60))?
        }
    };
    let (clock, fraction) = time[..zone].split_once('.').unwrap_or((&time[..zone], "0"));
    let parts = numbers(clock, ':', &[2, 2, 2])?;
    let good = parts[0] <= 23 && parts[1] <= 59 && parts[2] <= 59;
    let digits =
        !fraction.is_empty() && fraction.len() <= 9 && fraction.bytes().all(|b| b.is_ascii_digit());
    let fraction = match fraction.trim_end_matches('0') {
        "" => String::new(),
        kept => format!(".{kept}"),
    };
    (good && digits).then_some((
        parts[0] * 3600 + parts[1] * 60 + parts[2] - offset,
        fraction,
    ))
}

fn numbers(text: &str, separator: char, widths: &[usize]) -> Option<Vec<i64>> {
    let parts: Vec<&str> = text.split(separator).collect();
    let good = parts.len() == widths.len()
        && parts
            .iter()
            .zip(widths)
            .all(|(part, width)| part.len() == *width && part.bytes().all(|b| b.is_ascii_digit()));
    good.then(|| parts.iter().filter_map(|part| part.parse().ok()).collect())
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar; years begin in March so that leap days come last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let shifted = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    shifted * 365 + shifted.div_euclid(4) - shifted.div_euclid(100)
        + shifted.div_euclid(400)
        + day_of_year
        - 719_468
}

fn civil(seconds: i64) -> String {
    let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let mut year = 1970 + day / 366;
    while days_from_civil(year + 1, 1, 1) <= day {
        year += 1;
    }
    let mut month = 1;
    while month < 12 && days_from_civil(year, month + 1, 1) <= day {
        month += 1;
    }
    let day = day - days_from_civil(year, month, 1) + 1;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_takes_any_amount_and_any_length() {
        assert_eq!(bytes("20GB"), Ok(20_000_000_000));
        assert_eq!(bytes("0B"), Ok(0));
        assert_eq!(age("90d"), Ok(90 * 86_400_000));
        assert_eq!(age("0s"), Ok(0));
        for bad in ["", "20", "GB", "-1GB", "1.2.3GB", "1e9B"] {
            assert!(bytes(bad).unwrap_err().contains("20GB"), "{bad}");
        }
        for bad in ["", "14", "d", "-1d", "1s2d", "99999999999999999d", "2w"] {
            assert!(age(bad).unwrap_err().contains("30d"), "{bad}");
        }
    }

    #[test]
    fn amounts_are_exact() {
        for (text, bytes) in [
            ("4000MB", 4_000_000_000),
            ("1.5GiB", 1_610_612_736),
            ("2 GB", 2_000_000_000),
            ("1048576B", 1 << 20),
        ] {
            assert_eq!(size(text).unwrap(), bytes, "{text}");
        }
        for bad in [
            "",
            "4000",
            "MB",
            "4XB",
            "0MB",
            "1..5GB",
            "-1GB",
            "99999999999999999TB",
            "1e3MB",
        ] {
            assert!(size(bad).is_err(), "{bad}");
        }
        for (text, millis) in [("1500m", 1500), ("2", 2000), ("0.5", 500), ("1.125", 1125)] {
            assert_eq!(cpu(text).unwrap(), millis, "{text}");
        }
        for bad in ["", "m", "0", "1.5m", "-1", "two", "1.0001", "99999999"] {
            assert!(cpu(bad).is_err(), "{bad}");
        }
        for (text, millis) in [
            ("90s", 90_000),
            ("1h", 3_600_000),
            ("1h30m", 5_400_000),
            ("2d", 172_800_000),
        ] {
            assert_eq!(duration(text).unwrap(), millis, "{text}");
        }
        for bad in [
            "",
            "1",
            "0s",
            "30m1h",
            "1h1h",
            "1ü",
            "ü",
            "31d",
            "99999999999999999999s",
            "h",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn instants_are_utc_and_a_date_counts_to_its_end() {
        for (text, utc) in [
            ("2024-06-30", "2024-07-01T00:00:00Z"),
            ("2023-12-31", "2024-01-01T00:00:00Z"),
            ("2024-02-28", "2024-02-29T00:00:00Z"),
            ("2024-06-30T12:00:00Z", "2024-06-30T12:00:00Z"),
            ("2024-06-30t12:00:00.1200+02:30", "2024-06-30T09:30:00.12Z"),
            ("2024-01-01T00:30:00+01:00", "2023-12-31T23:30:00Z"),
        ] {
            assert_eq!(instant(text).unwrap(), utc, "{text}");
        }
        for bad in [
            "",
            "2024",
            "2023-02-29",
            "2024-13-01",
            "2024-1-1",
            "2024-06-30T12:00:00",
            "2024-06-30T24:00:00Z",
            "2024-06-30T12:00:00+2:00",
            "1969-01-01",
            "9999-12-31",
            "yesterday",
        ] {
            assert!(instant(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_day_of_four_centuries_reads_back() {
        for day in (0..146_097).step_by(7) {
            let text = civil(day * 86_400);
            assert_eq!(days(&text[..10]), Some(day), "{text}");
        }
    }
}
