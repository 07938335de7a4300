//! Words and numbers of the page: titles from names, days in words, numbers with separators, changes, addresses.
//!
//! Pure. Names and labels come from files, so nothing is taken for harmless: [`safe`] makes every text fit to be seen,
//! and maud escapes it.

use maud::{Markup, html};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::calendar::civil_from_days;
use crate::definition::reports::Unit;
use crate::plan::period::Period;
use crate::plan::reports::{Figure, Report};
use crate::reading::range::Range;
use crate::reports::figures::{Shown, decimal_text};
use crate::values::outside::{cut, is_harmful, printable};

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// Bytes that stand for themselves in a query.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The share by which the estimates of two distinct counts may differ though the counts do not: √2 times 1.6 %.
const ESTIMATE: f64 = 0.023;

/// Most columns of a text from outside on the page.
const MOST_COLUMNS: usize = 160;

/// Returns the title of a name: `unique_visits` is *Unique visits*.
pub fn title(name: &str) -> String {
    let words: Vec<String> = name.split(['_', '-']).filter(|word| !word.is_empty()).map(word).collect();
    let text = safe(&words.join(" "));
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// A word of a name, as it is written within a sentence.
fn word(word: &str) -> String {
    match word {
        "avg" => "average".to_owned(),
        "id" | "url" | "ip" => word.to_uppercase(),
        _ => word.to_owned(),
    }
}

/// Returns the title of a name within a sentence: `unique_visits` is *unique visits*.
pub fn phrase(name: &str) -> String {
    safe(&name.split(['_', '-']).filter(|word| !word.is_empty()).map(word).collect::<Vec<_>>().join(" "))
}

/// Makes a text from outside fit to be seen: no control characters, nothing that turns the line, and not too long.
pub fn safe(text: &str) -> String {
    cut(&printable(text), MOST_COLUMNS)
}

/// The same for a message, which may be longer.
pub fn told(text: &str) -> String {
    cut(&printable(text), 5 * MOST_COLUMNS)
}

/// Returns true if a text can be sent back as it is, in a field of a form.
pub fn is_harmless(text: &str) -> bool {
    !text.chars().any(is_harmful)
}

/// A text from outside. Its own direction of writing does not reach beyond it.
pub fn outside(text: &str) -> Markup {
    html! { bdi { @if text.trim().is_empty() { "(blank)" } @else { (safe(text)) } } }
}

/// Encodes a value of a query.
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

/// A day with its weekday: *Tue 25 Jun*.
pub fn day_text(day: i32) -> String {
    let weekday = WEEKDAYS[(i64::from(day) + 3).rem_euclid(7) as usize];
    format!("{weekday} {}", date_words(day))
}

/// A day without its weekday: *25 Jun*.
pub fn date_words(day: i32) -> String {
    let (_, month, date) = civil_from_days(day);
    format!("{date} {}", MONTHS[(month - 1) as usize % 12])
}

/// A day with weekday and year: *Tue 25 Jun 2024*.
pub fn full_day(day: i32) -> String {
    format!("{} {}", day_text(day), civil_from_days(day).0)
}

/// A day or an hour. Hours of one day are those of the clock: *17:00*.
pub fn period_text(period: Period) -> String {
    match period.date_and_hour() {
        (day, None) => day_text(day),
        (_, Some(hour)) => format!("{hour:02}:00"),
    }
}

/// Days in words: *29 May – 25 Jun 2024*.
pub fn range_text(range: Range) -> String {
    let ((from_year, from_month, from), (to_year, to_month, _)) =
        (civil_from_days(range.from), civil_from_days(range.to));
    match range.from == range.to {
        true => full_day(range.to),
        false if from_year != to_year => {
            format!("{} {from_year} – {} {to_year}", date_words(range.from), date_words(range.to))
        }
        false if from_month != to_month => format!("{} – {} {to_year}", date_words(range.from), date_words(range.to)),
        false => format!("{from} – {} {to_year}", date_words(range.to)),
    }
}

/// A number of days in words.
pub fn days_text(days: usize) -> String {
    counted(days as u64, "day")
}

/// A number of things: *1 file*, *3 files*.
pub fn counted(number: u64, noun: &str) -> String {
    let ending = if number == 1 {
        ""
    } else if noun.ends_with("ch") {
        "es"
    } else {
        "s"
    };
    format!("{} {noun}{ending}", grouped(&number.to_string()))
}

/// Puts a comma between groups of three digits before the point.
pub fn grouped(text: &str) -> String {
    let (sign, rest) = text.strip_prefix('-').map_or(("", text), |rest| ("−", rest));
    let (whole, places) = rest.split_once('.').map_or((rest, None), |(whole, places)| (whole, Some(places)));
    let mut grouped = sign.to_owned();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    places.map_or(grouped.clone(), |places| format!("{grouped}.{places}"))
}

/// A number with as many digits as can be read at a glance.
pub fn number_text(number: i128, places: u8) -> String {
    let value = number as f64 / 10_f64.powi(places.into());
    match value.abs() {
        1e12.. => format!("{} tn", grouped(&format!("{:.2}", value / 1e12))),
        1e10.. => format!("{} bn", grouped(&format!("{:.2}", value / 1e9))),
        1e3.. => grouped(&format!("{value:.0}")),
        1e2.. if places > 0 => trimmed(format!("{value:.1}")),
        1.0.. if places > 0 => trimmed(format!("{value:.2}")),
        _ => grouped(&decimal_text(number, places)),
    }
}

fn trimmed(text: String) -> String {
    grouped(text.trim_end_matches('0').trim_end_matches('.'))
}

/// A short number for an axis: *250k*.
pub fn short(value: f64) -> String {
    let units = [(1e12, "tn"), (1e9, "bn"), (1e6, "m"), (1e3, "k")];
    let (unit, name) = units.into_iter().find(|(unit, _)| value.abs() >= *unit).unwrap_or((1.0, ""));
    // Twice rounded: the steps of an axis have three digits at most.
    let text = format!("{:.3}", value / unit);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{}{name}", grouped(if text == "-0" { "0" } else { text }))
}

/// The exact text of a value, for programs.
pub fn exact(value: Option<Shown>) -> String {
    match value {
        Some(Shown::Number(number, places)) => decimal_text(number, places),
        Some(Shown::Time(micros)) => {
            jiff::Timestamp::from_microsecond(micros).map_or(String::new(), |at| at.to_string())
        }
        Some(Shown::Nothing) | None => String::new(),
    }
}

/// A number in its unit: seconds as a time, bytes by powers of 1,024.
pub fn in_unit(number: i128, places: u8, unit: Option<Unit>) -> String {
    let value = number as f64 / 10_f64.powi(places.into());
    match unit {
        None => number_text(number, places),
        Some(Unit::Seconds) => match value.abs() {
            360_000.0.. => format!("{} h", grouped(&format!("{:.0}", value / 3_600.0))),
            7_200.0.. if value > 0.0 => {
                let minutes = (value / 60.0).round() as i64;
                format!("{} h {} min", minutes / 60, minutes % 60)
            }
            120.0.. if value > 0.0 => format!("{} min {} s", value as i64 / 60, value as i64 % 60),
            _ => format!("{} s", number_text(number, places)),
        },
        Some(Unit::Bytes) => {
            let units = [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
            match units.into_iter().find(|(unit, _)| value.abs() >= *unit as f64) {
                Some((unit, name)) => format!("{} {name}", grouped(&format!("{:.1}", value / unit as f64))),
                None => format!("{} B", number_text(number, places)),
            }
        }
    }
}

/// The number by which the values of a chart are divided, and the words for that unit.
pub fn chart_unit(unit: Option<Unit>, greatest: f64) -> (f64, &'static str) {
    match (unit, greatest) {
        (None, _) => (1.0, ""),
        (Some(Unit::Seconds), 7_200.0..) => (3_600.0, ", in hours"),
        (Some(Unit::Seconds), 120.0..) => (60.0, ", in minutes"),
        (Some(Unit::Seconds), _) => (1.0, ", in seconds"),
        (Some(Unit::Bytes), 1_073_741_824.0..) => (1_073_741_824.0, ", in GiB"),
        (Some(Unit::Bytes), 1_048_576.0..) => (1_048_576.0, ", in MiB"),
        (Some(Unit::Bytes), 1_024.0..) => (1_024.0, ", in KiB"),
        (Some(Unit::Bytes), _) => (1.0, ", in bytes"),
    }
}

/// A value as text: what is not known is a dash.
pub fn value_text(value: Option<Shown>, unit: Option<Unit>) -> String {
    match value {
        Some(Shown::Number(number, places)) => in_unit(number, places, unit),
        Some(Shown::Time(micros)) => jiff::Timestamp::from_microsecond(micros).map_or("–".to_owned(), time_of),
        Some(Shown::Nothing) | None => "–".to_owned(),
    }
}

/// A value with its exact text beside it for programs.
pub fn value(value: Option<Shown>, unit: Option<Unit>) -> Markup {
    html! {
        @match value {
            Some(Shown::Number(..)) => data value=(exact(value)) { (value_text(value, unit)) },
            Some(Shown::Time(_)) => time datetime=(exact(value)) { (value_text(value, unit)) },
            Some(Shown::Nothing) | None => span.none { (value_text(value, unit)) span.hidden { "none" } },
        }
    }
}

/// A point in time (UTC), with its day.
pub fn time_of(at: jiff::Timestamp) -> String {
    format!("{}, {} UTC", full_day(crate::calendar::day_of(at.as_microsecond())), clock(at))
}

/// The time of day (UTC) of a point in time.
pub fn clock(at: jiff::Timestamp) -> String {
    at.strftime("%H:%M:%S").to_string()
}

/// A time in words: *47 s*, *3 min*, *2 h 5 min*.
pub fn duration(seconds: i64) -> String {
    let of = |seconds: i64, unit: i64, name: &str, rest: i64, rest_name: &str| match seconds % unit / rest {
        0 => format!("{} {name}", grouped(&(seconds / unit).to_string())),
        more => format!("{} {name} {more} {rest_name}", grouped(&(seconds / unit).to_string())),
    };
    match seconds.max(0) {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => of(seconds, 3_600, "h", 60, "min"),
        seconds => of(seconds, 86_400, "days", 3_600, "h"),
    }
}

/// A fraction as a percentage.
pub fn percent(fraction: f64) -> String {
    let percent = fraction * 100.0;
    match percent.abs() {
        1e4.. => format!("{} %", short(percent)),
        100.0.. => format!("{} %", grouped(&format!("{percent:.0}"))),
        0.05.. => format!("{percent:.1} %"),
        0.0 => "0 %".to_owned(),
        _ => "below 0.1 %".to_owned(),
    }
}

/// Bounds that say how far the estimate of a distinct count may be off; `None` if it is exact.
pub fn estimate(value: Option<Shown>, between: Option<[u64; 2]>) -> Option<f64> {
    let ([low, high], Shown::Number(number, 0)) = (between?, value?) else { return None };
    (low < high && number > 0).then(|| {
        let number = number as f64;
        (high as f64 - number).max(number - low as f64) / number
    })
}

/// The way in which a measure has changed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// By this fraction.
    By(f64),
    /// By less than estimates can tell.
    AboutAsMany,
    /// That is not known.
    Unknown,
}

/// Judges the change of a measure. That of an estimate, or of a ratio with one, is told only if it is greater than the
/// estimates' own error.
pub fn change_of(report: &Report, measure: usize, change: Option<f64>, between: &[Option<[u64; 2]>]) -> Change {
    let is_estimate = |measure: usize| between.get(measure).copied().flatten().is_some_and(|[low, high]| low < high);
    let is_estimated = match report.measures.get(measure).map(|measure| measure.figure) {
        Some(Figure::Ratio { of, by, .. }) => is_estimate(of) || is_estimate(by),
        _ => is_estimate(measure),
    };
    match change.filter(|change| change.is_finite()) {
        None => Change::Unknown,
        Some(change) if is_estimated && change.abs() < ESTIMATE => Change::AboutAsMany,
        Some(change) => Change::By(change),
    }
}

impl Change {
    /// The change for people, never by colour alone.
    pub fn shown(self) -> Markup {
        html! {
            @match self {
                Change::Unknown => span.none { "–" span.hidden { "change not known" } },
                Change::AboutAsMany => span.same { "about as many" },
                Change::By(by) if by.abs() < 0.0005 => span.same { "unchanged" },
                Change::By(by) => {
                    @let (class, mark, word) = if by > 0.0 { ("up", "▲", "more") } else { ("down", "▼", "less") };
                    span.(class) {
                        span.mark aria-hidden="true" { (mark) } " " (percent(by.abs())) span.hidden { " " (word) }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::parse_date;
    use crate::reports::figures::tests::report;

    fn range(from: &str, to: &str) -> String {
        range_text(Range { from: parse_date(from).unwrap(), to: parse_date(to).unwrap() })
    }

    #[test]
    fn titles_are_made_of_names() {
        assert_eq!(title("unique_users"), "Unique users");
        assert_eq!(title("avg_listening_time_per_user"), "Average listening time per user");
        assert_eq!(title("track_id"), "Track ID");
        assert_eq!(phrase("track-genre"), "track genre");
        assert_eq!(title("_"), "");
    }

    #[test]
    fn days_are_told_with_no_more_than_is_needed() {
        assert_eq!(range("2024-06-25", "2024-06-25"), "Tue 25 Jun 2024");
        assert_eq!(range("2024-06-01", "2024-06-25"), "1 – 25 Jun 2024");
        assert_eq!(range("2024-05-29", "2024-06-25"), "29 May – 25 Jun 2024");
        assert_eq!(range("2023-12-30", "2024-01-05"), "30 Dec 2023 – 5 Jan 2024");
        assert_eq!(day_text(0), "Thu 1 Jan");
        assert_eq!(day_text(-1), "Wed 31 Dec");
    }

    #[test]
    fn numbers_are_read_at_a_glance() {
        assert_eq!(number_text(7_064_783, 0), "7,064,783");
        assert_eq!(number_text(39_856_900_700, 3), "39,856,901");
        assert_eq!(number_text(882_786, 3), "882.8");
        assert_eq!(number_text(-1_234_567, 2), "−12,346");
        assert_eq!(number_text(2_500, 3), "2.5");
        assert_eq!(number_text(5, 3), "0.005");
        assert_eq!(number_text(12_345_678_901_234, 0), "12.35 tn");
        assert_eq!(["0", "999", "1000", "1234567.5"].map(grouped), ["0", "999", "1,000", "1,234,567.5"]);
        assert_eq!([0.0, 250.0, 1_500.0, 400_000.0, 2.5e6].map(short), ["0", "250", "1.5k", "400k", "2.5m"]);
        assert_eq!([47, 3_599, 7_500, 180_000].map(duration), ["47 s", "59 min", "2 h 5 min", "2 days 2 h"]);
        assert_eq!([0.168, 0.0, 0.0001, 1.5, 345.0].map(percent), ["16.8 %", "0 %", "below 0.1 %", "150 %", "34.5k %"]);
        assert_eq!(counted(1, "batch") + &counted(2_000, "batch"), "1 batch2,000 batches");
    }

    /// The report has a distinct count as measure 4 and a ratio by it as 5.
    #[test]
    fn a_change_within_the_error_of_estimates_is_none() {
        let report = report();
        let mut between = vec![None; 6];
        assert_eq!(change_of(&report, 4, Some(0.02), &between), Change::By(0.02), "it is exact");
        between[4] = Some([900, 1_100]);
        assert_eq!(change_of(&report, 4, Some(0.02), &between), Change::AboutAsMany);
        assert_eq!(change_of(&report, 5, Some(-0.02), &between), Change::AboutAsMany);
        assert_eq!(change_of(&report, 4, Some(-0.03), &between), Change::By(-0.03));
        assert_eq!(change_of(&report, 0, Some(0.02), &between), Change::By(0.02));
        assert_eq!(change_of(&report, 0, Some(f64::NAN), &between), Change::Unknown);
        assert_eq!(estimate(Some(Shown::Number(1_000, 0)), between[4]), Some(0.1));
        assert_eq!(estimate(Some(Shown::Number(1_000, 0)), Some([1_000, 1_000])), None);
    }

    #[test]
    fn texts_from_outside_are_made_harmless() {
        assert_eq!(outside(" ").into_string(), "<bdi>(blank)</bdi>", "a link must have a text");
        assert_eq!(outside("<b>\u{202e}\0&").into_string(), "<bdi>&lt;b&gt;\u{fffd}\u{fffd}&amp;</bdi>");
        assert!(safe(&"x".repeat(512)).chars().count() <= MOST_COLUMNS);
        assert_eq!(encoded("a/b?c#d%e&f=\"é"), "a%2Fb%3Fc%23d%25e%26f%3D%22%C3%A9");
    }
}
