//! Numbers in the short forms of the table: durations, sizes, rates.

/// A duration in seconds, in at most six characters: `13ms`, `4.2s`, `1m21s`, `3h05m`, `12d4h`.
pub(super) fn duration(seconds: f64) -> String {
    if seconds < 0.9995 {
        return format!("{:.0}ms", seconds.max(0.0) * 1000.0);
    }
    if seconds < 59.95 {
        return format!("{seconds:.1}s");
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive, and a cast stays within the type"
    )]
    let whole = seconds.round() as u64;
    let (minutes, hours, days) = (whole / 60, whole / 3600, whole / 86400);
    match whole {
        0..3600 => format!("{minutes}m{:02}s", whole % 60),
        3600..86400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

/// A size in bytes, with the units of the settings: `512B`, `11.8M`.
#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
pub(super) fn size(bytes: u64) -> String {
    let mut number = bytes as f64;
    for unit in ["B", "K", "M", "G"] {
        if number < 1023.95 {
            return match unit {
                "B" => format!("{bytes}B"),
                _ => format!("{number:.1}{unit}"),
            };
        }
        number /= 1024.0;
    }
    format!("{number:.1}T")
}

/// Increase per second between two readings; `None` without time between them, or after a restart,
/// where the counter is smaller than before.
pub(super) fn rate(before: f64, now: f64, seconds: f64) -> Option<f64> {
    (seconds > 0.0 && now >= before).then(|| (now - before) / seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        for (seconds, text) in [
            (0.0, "0ms"),
            (0.0134, "13ms"),
            (0.9996, "1.0s"),
            (4.23, "4.2s"),
            (59.96, "1m00s"),
            (81.2, "1m21s"),
            (3599.6, "1h00m"),
            (11100.0, "3h05m"),
            (1_051_200.0, "12d4h"),
        ] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn sizes_have_one_digit_after_the_point() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.0K"),
            (12_345_678, "11.8M"),
            (1 << 30, "1.0G"),
            (1 << 41, "2.0T"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn rates_need_time_and_no_restart() {
        for (before, now, seconds, expected) in [
            (100.0, 150.0, 2.0, Some(25.0)),
            (100.0, 100.0, 1.0, Some(0.0)),
            (100.0, 5.0, 1.0, None),
            (100.0, 150.0, 0.0, None),
        ] {
            assert_eq!(
                rate(before, now, seconds),
                expected,
                "{before} {now} {seconds}"
            );
        }
    }
}
