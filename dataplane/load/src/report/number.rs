//! Numbers as people read them: few digits, a unit that is written once, and nothing where nothing
//! was measured.

use time::OffsetDateTime;

/// What stands where a number is absent. Never `0`: zero is a result.
pub(super) const ABSENT: &str = "–";

/// Four significant digits, without an exponent, thousands apart; [`ABSENT`] if it is no number.
pub(super) fn figure(value: f64) -> String {
    significant(value, 4)
}

/// Three significant digits: for times and clocks, whose spread is larger than that.
pub(super) fn short(value: f64) -> String {
    significant(value, 3)
}

fn significant(value: f64, digits: i32) -> String {
    if !value.is_finite() {
        return ABSENT.to_owned();
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    // The exponent of the rounded number: 9.9996 has one digit more before the point than it seems.
    let exponent = value.abs().log10().floor();
    let unit = 10f64.powf(exponent - f64::from(digits - 1));
    let rounded = (value / unit).round() * unit;
    let exponent = rounded.abs().log10().floor();
    // Below 10^-9 of a unit nothing here is told apart any more.
    let decimals = (f64::from(digits - 1) - exponent).clamp(0.0, 9.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 9")]
    let decimals = decimals as usize;
    grouped(&format!("{rounded:.decimals$}"))
}

/// A count with its thousands apart.
pub(super) fn count(value: u64) -> String {
    grouped(&value.to_string())
}

/// Separates thousands with commas, from 1,000 on.
fn grouped(digits: &str) -> String {
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |rest| ("-", rest));
    let (whole, fraction) = digits.find('.').map_or((digits, ""), |at| digits.split_at(at));
    let mut out = String::from(sign);
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out + fraction
}

/// Packets per second in Mpps, without the unit.
pub(super) fn mpps(rate_pps: f64) -> String {
    figure(rate_pps / 1e6)
}

/// The same of a rate that may be absent.
pub(super) fn mpps_or_absent(rate_pps: Option<f64>) -> String {
    rate_pps.map_or_else(|| ABSENT.to_owned(), mpps)
}

/// Nanoseconds in microseconds, without the unit.
#[expect(clippy::cast_precision_loss, reason = "exact below 2^53 ns, which are 104 days")]
pub(super) fn us(time_ns: u64) -> String {
    short(time_ns as f64 / 1e3)
}

/// A signed difference of nanoseconds in microseconds, with its sign.
#[expect(clippy::cast_precision_loss, reason = "exact below 2^53 ns, which are 104 days")]
pub(super) fn us_difference(time_ns: Option<i64>) -> String {
    match time_ns {
        None => ABSENT.to_owned(),
        Some(ns) if ns > 0 => format!("+{}", short(ns as f64 / 1e3)),
        Some(ns) => short(ns as f64 / 1e3),
    }
}

/// A share (0 to 1) in percent, with the sign.
pub(super) fn percent(share: f64) -> String {
    if !share.is_finite() {
        return ABSENT.to_owned();
    }
    format!("{} %", trimmed(&short(share * 100.0)))
}

/// A number that is often round, as a length of a run or a share that was asked for: 1, not 1.000.
pub(super) fn round(value: f64) -> String {
    trimmed(&figure(value)).to_owned()
}

fn trimmed(digits: &str) -> &str {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits }
}

/// Day and minute in UTC.
pub(super) fn date(unix_s: u64) -> String {
    let moment =
        i64::try_from(unix_s).ok().and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
    moment.map_or_else(
        || "date unknown".to_owned(),
        |at| {
            let (month, minute) = (u8::from(at.month()), at.minute());
            format!("{}-{month:02}-{:02} {:02}:{minute:02} UTC", at.year(), at.day(), at.hour())
        },
    )
}

/// The middle one of the finite values (the mean of the two middle ones); none of none.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut finite: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    finite.sort_by(f64::total_cmp);
    let middle = finite.len() / 2;
    let upper = finite.get(middle).copied()?;
    if finite.len() % 2 == 1 {
        return Some(upper);
    }
    finite.get(middle - 1).map(|lower| f64::midpoint(*lower, upper))
}

/// Lowest and highest of the finite values; none of fewer than two.
pub(super) fn spread(values: &[f64]) -> Option<(f64, f64)> {
    let finite = || values.iter().copied().filter(|value| value.is_finite());
    if finite().count() < 2 {
        return None;
    }
    Some((finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_significant_digits_and_never_makes_a_zero() {
        for (value, text) in [
            (0.0, "0"),
            (14.880_95, "14.88"),
            (1.021_49, "1.021"),
            (0.050_124, "0.05012"),
            (9.999_96, "10.00"),
            (0.000_02, "0.00002000"),
            (1_234_567.0, "1,235,000"),
            (-1234.56, "-1,235"),
            (f64::NAN, ABSENT),
            (f64::INFINITY, ABSENT),
        ] {
            assert_eq!(figure(value), text, "{value}");
        }
        assert_eq!(us_difference(Some(1500)), "+1.50");
        assert_eq!(us_difference(Some(-1500)), "-1.50");
        assert_eq!(us_difference(None), ABSENT);
        assert_eq!(percent(0.005), "0.5 %");
        assert_eq!(percent(0.9), "90 %");
        assert_eq!(percent(0.0), "0 %");
        assert_eq!((round(60.0).as_str(), round(0.25).as_str()), ("60", "0.25"));
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(999), "999");
    }

    #[test]
    fn writes_dates_and_survives_impossible_ones() {
        assert_eq!(date(1_763_676_000), "2025-11-20 22:00 UTC");
        assert_eq!(date(u64::MAX), "date unknown");
    }

    #[test]
    fn takes_the_median_of_what_is_a_number() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[f64::NAN]), None);
        assert_eq!(median(&[3.0, f64::NAN, 1.0]), Some(2.0));
        assert_eq!(median(&[5.0, 1.0, 3.0]), Some(3.0));
        assert_eq!(spread(&[1.0]), None);
        assert_eq!(spread(&[2.0, 1.0, f64::NAN]), Some((1.0, 2.0)));
    }
}
