//! Tiles: the first measures of a period at a glance. Each has its value, its change, its line, and a note that says
//! what the value is made of.

use maud::{Markup, html};

use crate::plan::reports::{Figure, Merge, Report};
use crate::reading::answer::{Point, Series};
use crate::reports::figures::Shown;
use crate::web::chart::sparkline;
use crate::web::page::links::View;
use crate::web::page::text::{change_of, estimate, in_unit, percent, phrase, title, value};

/// Most tiles.
pub const MOST_TILES: usize = 4;

/// Most points of a tile's line.
const MOST_POINTS: usize = 100;

/// A value as a number, without what is below its digits.
pub fn plain(value: Option<Shown>) -> Option<f64> {
    match value? {
        Shown::Number(number, places) => Some(number as f64 / 10_f64.powi(places.into())),
        Shown::Time(_) | Shown::Nothing => None,
    }
}

/// Returns true for a measure that a chart can have.
pub fn is_number(report: &Report, measure: usize) -> bool {
    report.measures.get(measure).is_some_and(|measure| !matches!(measure.figure, Figure::Time { .. }))
}

/// The number of points at the end that are not over.
pub fn open_at_end(points: &[Point]) -> usize {
    points.iter().rev().take_while(|point| !point.is_whole).count()
}

/// The tiles of a series, with the lines of it or of its hours. Each leads to its chart.
pub fn tiles(view: &View, series: &Series, hours: Option<&Series>, charted: usize) -> Markup {
    let measures = series.report().measures.len().min(MOST_TILES);
    html! {
        ul #tiles.tiles aria-label="Figures of the period" {
            @for measure in 0..measures { (tile(view, series, hours, measure, measure == charted)) }
        }
    }
}

/// The line of a measure: that of the same name, where it is of another report.
fn line(series: &Series, name: &str) -> Markup {
    let Some(measure) = series.report().measures.iter().position(|measure| measure.name == name) else {
        return Markup::default();
    };
    let value = |point: &Point| plain(point.values.get(measure).copied().flatten()).filter(|_| point.is_counted);
    let open = open_at_end(&series.points);
    // Of what is not over, only the first has begun.
    let begun = &series.points[..series.points.len() - open.saturating_sub(1)];
    let ahead = std::iter::repeat_n(f64::NAN, open.saturating_sub(1));
    let values: Vec<f64> = begun.iter().map(|point| value(point).unwrap_or(f64::NAN)).chain(ahead).collect();
    sparkline(&values, open.min(1), MOST_POINTS)
}

fn tile(view: &View, series: &Series, hours: Option<&Series>, measure: usize, is_charted: bool) -> Markup {
    let report = series.report();
    let name = &report.measures[measure].name;
    let total = series.totals.get(measure).copied().flatten();
    let between = series.between.get(measure).copied().flatten();
    let off = estimate(total, between);
    let change = change_of(report, measure, series.change.get(measure).copied().flatten(), &series.between);
    let is_link = !view.frame.is_standalone && is_number(report, measure);
    html! {
        li.tile.on[is_charted] {
            h2 {
                @if is_link {
                    @let to = View { measure: (measure > 0).then_some(name), ..view.clone() };
                    a href=(to.href()) aria-current=[is_charted.then_some("true")] { (title(name)) }
                } @else { (title(name)) }
            }
            p.value {
                @if off.is_some() { span.about { span aria-hidden="true" { "≈ " } span.hidden { "about " } } }
                (value(total, report.measures[measure].unit))
            }
            p.change { @if series.against.is_some() { (change.shown()) } }
            (line(hours.unwrap_or(series), name))
            p.note { (note(series, measure, off)) }
        }
    }
}

/// The note of a tile: a mean for a sum, the error for an estimate, its parts for a ratio.
fn note(series: &Series, measure: usize, off: Option<f64>) -> String {
    let report = series.report();
    match report.measures[measure].figure {
        Figure::Distinct { .. } => match off {
            Some(off) => format!("within {}", percent(off)),
            None => "exact".to_owned(),
        },
        Figure::Ratio { of, by, .. } => {
            format!("{} ÷ {}", phrase(&report.measures[of].name), phrase(&report.measures[by].name))
        }
        Figure::Number { slot, .. } if report.slots[slot].merge == Merge::Add => mean(series, measure)
            .map_or(String::new(), |mean| {
                format!("{mean} {} on average", if report.is_hourly { "an hour" } else { "a day" })
            }),
        Figure::Number { .. } | Figure::Time { .. } => String::new(),
    }
}

/// The mean of the points that are over, if there are several.
fn mean(series: &Series, measure: usize) -> Option<String> {
    let whole = series.points.iter().filter(|point| point.is_whole && point.is_counted);
    let numbers: Vec<(i128, u8)> = whole
        .filter_map(|point| match point.values.get(measure).copied().flatten()? {
            Shown::Number(number, places) => Some((number, places)),
            Shown::Time(_) | Shown::Nothing => None,
        })
        .collect();
    let (_, places) = numbers.first().filter(|_| numbers.len() > 1)?;
    let sum: i128 = numbers.iter().map(|(number, _)| number).sum();
    let unit = series.report().measures[measure].unit;
    Some(in_unit(sum.checked_mul(100)? / numbers.len() as i128, places.checked_add(2)?, unit))
}
