//! Charts: figures as SVG for the page, and as block characters for a terminal.
//!
//! Pure. Positions are percentages, so that a chart fills the room that it has while texts, hatches, corners and lines
//! keep their size; colours are the stylesheet's.

use maud::{Markup, html};

/// Most bars of a chart.
pub const MOST_BARS: usize = 400;
/// About as many steps as an axis has.
const STEPS: f64 = 4.0;

/// A bar.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bar {
    /// Its value, if there is one.
    pub value: Option<f64>,
    /// The state of its period.
    pub state: BarState,
}

/// The state of a bar's period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarState {
    /// It is over.
    Whole,
    /// It is not over, so its bar will grow.
    Open,
    /// It has not begun.
    Ahead,
    /// It was not counted: an empty place is not a 0.
    Uncounted,
}

/// The range of a chart's values, in even steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    /// The least value: 0, or below.
    pub low: f64,
    /// The greatest value: above the least.
    pub high: f64,
    step: f64,
}

impl Scale {
    /// The scale of some values, with 0 in it. Steps are whole numbers where values are.
    pub fn of(values: impl Iterator<Item = f64>, is_whole: bool) -> Self {
        let finite = values.filter(|value| value.is_finite());
        let (low, high) = finite.fold((0.0_f64, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
        let span = if high > low { high - low } else { STEPS };
        let power = 10_f64.powf((span / STEPS).log10().floor());
        let steps = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|step| step * power);
        let fits = |step: &f64| *step >= span / STEPS * 0.999 && (!is_whole || step.fract() == 0.0);
        let step = steps.into_iter().find(fits).unwrap_or(1.0);
        let (low, high) = ((low / step).floor() * step, (high / step).ceil() * step);
        Scale { low, high: if high > low { high } else { low + step }, step }
    }

    /// The values at the lines, the least first.
    pub fn ticks(&self) -> Vec<f64> {
        let steps = ((self.high - self.low) / self.step).round() as usize;
        (0..=steps.min(20)).map(|step| self.low + self.step * step as f64).collect()
    }

    /// The distance of a value from the top, in percent.
    fn depth(&self, value: f64) -> f64 {
        (100.0 * (self.high - value) / (self.high - self.low)).clamp(0.0, 100.0)
    }
}

/// A number of percents in an attribute.
fn percent(value: f64) -> String {
    format!("{}%", place(value))
}

fn place(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// Bars side by side, and a dashed line for what they are compared with. The labels stand below the bars that they
/// belong to.
pub fn bars(bars: &[Bar], before: &[Option<f64>], scale: &Scale, labels: &[(usize, String)]) -> Markup {
    let bars = &bars[bars.len().saturating_sub(MOST_BARS)..];
    let slot = 100.0 / bars.len().max(1) as f64;
    let base = scale.depth(0.0);
    let middle = |at: usize| slot * (at as f64 + 0.5);
    html! {
        svg.plot aria-hidden="true" focusable="false" {
            defs {
                pattern #hatch width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)" {
                    rect.hatch-ground width="6" height="6" {}
                    rect.hatch-line width="2" height="6" {}
                }
            }
            @for tick in scale.ticks() {
                @let y = percent(scale.depth(tick));
                line.base[tick == 0.0].grid[tick != 0.0] x1="0" x2="100%" y1=(y) y2=(y) {}
            }
            rect.cursor width=(percent(slot)) height="100%" x="0" y="0" {}
            @for (at, bar) in bars.iter().enumerate() {
                (one_bar(bar, at, slot, base, scale))
            }
            (line(before, bars.len(), scale))
        }
        svg.days aria-hidden="true" focusable="false" {
            @for (index, (at, label)) in labels.iter().rev().enumerate() {
                @let class = (index % 2 == 1).then_some("odd");
                text class=[class] x=(percent(middle(*at))) y="14" text-anchor="middle" { (label) }
            }
        }
    }
}

/// A bar in its slot.
fn one_bar(bar: &Bar, at: usize, slot: f64, base: f64, scale: &Scale) -> Markup {
    // A gap that is seen beside wide bars and does not eat narrow ones.
    let (x, width) = (slot * (at as f64 + 0.14), slot * 0.72);
    let top = bar.value.map_or(base, |value| scale.depth(value));
    let (y, height) = if top < base { (top, base - top) } else { (base, top - base) };
    html! {
        @match (bar.state, bar.value) {
            (BarState::Uncounted, _) => {
                // A band without gaps, as it is no bar.
                rect.uncounted x=(percent(slot * at as f64)) width=(percent(slot)) y="0" height="100%" {}
            }
            (_, None) | (BarState::Ahead, _) => {}
            (BarState::Whole, Some(_)) => {
                rect.bar x=(percent(x)) width=(percent(width)) y=(percent(y)) height=(percent(height)) rx="1.5" {}
            }
            (BarState::Open, Some(_)) => {
                rect.open x=(percent(x)) width=(percent(width)) y=(percent(y)) height=(percent(height)) rx="1.5"
                    fill="url(#hatch)" {}
            }
        }
    }
}

/// The line of the values that bars are compared with, in pieces where some have none.
fn line(values: &[Option<f64>], bars: usize, scale: &Scale) -> Markup {
    let slot = 100.0 / bars.max(1) as f64;
    let point = |(at, value): (usize, &Option<f64>)| {
        value.map(|value| format!("{},{}", place(slot * (at as f64 + 0.5)), place(scale.depth(value))))
    };
    let points: Vec<Option<String>> = values.iter().take(bars).enumerate().map(point).collect();
    let pieces = points.split(Option::is_none).filter(|piece| !piece.is_empty());
    let pieces: Vec<String> =
        pieces.map(|piece| piece.iter().flatten().cloned().collect::<Vec<_>>().join(" ")).collect();
    html! {
        @if !pieces.is_empty() {
            svg width="100%" height="100%" viewBox="0 0 100 100" preserveAspectRatio="none" {
                @for points in &pieces {
                    // Below it the same in the colour of the ground, so that it is seen before bars too.
                    polyline.halo points=(points) {}
                    polyline.before points=(points) {}
                }
            }
        }
    }
}

/// Means of neighbours, so that there are at most so many values. Those at the end that are not over stay as they are.
fn thinned(values: &[f64], open: usize, most: usize) -> Vec<f64> {
    let (whole, open) = values.split_at(values.len().saturating_sub(open));
    let each = whole.len().div_ceil(most.max(1)).max(1);
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    // The last chunk is a whole one, and the first may be short: it is the end that is looked at.
    let mut means: Vec<f64> = whole.rchunks(each).map(mean).collect();
    means.reverse();
    means.extend(open);
    means
}

/// A line without axes of at most so many points. What is not over yet is dotted, so that it is not taken for a fall.
pub fn sparkline(values: &[f64], open: usize, most: usize) -> Markup {
    let values = &thinned(values, open, most);
    let finite = || values.iter().copied().filter(|value| value.is_finite());
    let (low, high) = finite().fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
    // From 0, if the values are not all far from it: half the height of a line is then half of the value.
    let low = if low >= 0.0 && low < high * 0.75 { 0.0 } else { low };
    let span = if high > low { high - low } else { 1.0 };
    let step = 100.0 / values.len().saturating_sub(1).max(1) as f64;
    let short = |value: f64| format!("{value:.1}").trim_end_matches(".0").to_owned();
    let point = |(at, value): (usize, &f64)| {
        format!("{},{}", short(step * at as f64), short(94.0 - 88.0 * (value - low) / span))
    };
    let points: Vec<String> = values.iter().enumerate().filter(|(_, value)| value.is_finite()).map(point).collect();
    let whole = points.len().saturating_sub(open);
    html! {
        @if points.len() > 1 {
            svg.spark viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true" focusable="false" {
                @if whole > 1 {
                    polyline points=(points[..whole].join(" ")) {}
                }
                @if open > 0 {
                    polyline.so-far points=(points[whole.saturating_sub(1)..].join(" ")) {}
                }
            }
        }
    }
}

/// A bar that lies behind a text, as long as the fraction.
pub fn share(fraction: f64) -> Markup {
    let width = if fraction.is_finite() { fraction.clamp(0.0, 1.0) * 100.0 } else { 0.0 };
    html! {
        svg.share aria-hidden="true" focusable="false" {
            rect width=(percent(width)) height="100%" rx="3" {}
        }
    }
}

/// The places of labels below bars: about `most` at most, evenly spread from the last bar on.
pub fn label_places(bars: usize, most: usize) -> Vec<usize> {
    let every = match bars.div_ceil(most.max(1)).max(1) {
        // Weeks are easier to follow than five days.
        every @ 3..=7 if bars > 20 => every.max(7),
        every @ 8..=14 => every.max(14),
        every => every,
    };
    let mut places: Vec<usize> = (0..bars).rev().step_by(every).collect();
    // The first one too, if its label has room.
    if places.last().is_some_and(|&first| first > every / 2) {
        places.push(0);
    }
    places.reverse();
    places
}

/// Returns a character for each value, of a height between that of the least, or 0, and that of the greatest.
pub fn blocks(values: &[i64]) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let low = values.iter().copied().min().unwrap_or(0).min(0);
    let high = values.iter().copied().max().unwrap_or(0);
    let span = i128::from(high) - i128::from(low);
    let block = |value: &i64| {
        let above = i128::from(*value) - i128::from(low);
        // Only the greatest value has the highest block, and only what is 0 or next to it has the lowest.
        let height = if span > 0 { (above * 7 + span / 2) / span } else { 0 };
        BLOCKS[usize::try_from(height).unwrap_or(0).min(7)]
    };
    values.iter().map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(value: f64) -> Bar {
        Bar { value: Some(value), state: BarState::Whole }
    }

    #[test]
    fn blocks_are_as_high_as_values() {
        assert_eq!(blocks(&[0, 1, 2, 3, 4, 5, 6, 7]), "▁▂▃▄▅▆▇█");
        assert_eq!(blocks(&[5, 5]), "██");
        assert_eq!(blocks(&[0, 0]), "▁▁");
        assert_eq!(blocks(&[-7, 0]), "▁█");
        assert_eq!(blocks(&[i64::MIN, i64::MAX]), "▁█");
        assert_eq!(blocks(&[]), "");
    }

    #[test]
    fn an_axis_has_round_steps() {
        let ticks = |values: &[f64], is_whole| Scale::of(values.iter().copied(), is_whole).ticks();
        assert_eq!(ticks(&[342_427.0], true), [0.0, 100_000.0, 200_000.0, 300_000.0, 400_000.0]);
        assert_eq!(ticks(&[3.0], true), [0.0, 1.0, 2.0, 3.0]);
        assert_eq!(ticks(&[1.0], true), [0.0, 1.0]);
        assert_eq!(ticks(&[], true), [0.0, 1.0]);
        assert_eq!(ticks(&[-5.0, 15.0], true), [-5.0, 0.0, 5.0, 10.0, 15.0]);
        assert_eq!(ticks(&[0.9], false), [0.0, 0.25, 0.5, 0.75, 1.0]);
    }

    #[test]
    fn a_bar_reaches_its_value() {
        let scale = Scale::of([80.0, 40.0].into_iter(), true);
        assert_eq!(scale.high, 80.0);
        let svg = bars(&[whole(80.0), whole(40.0)], &[Some(20.0), None], &scale, &[(1, "b".to_owned())]).into_string();
        assert!(svg.contains(r#"x="7%" width="36%" y="0%" height="100%""#), "{svg}");
        assert!(svg.contains(r#"x="57%" width="36%" y="50%" height="50%""#), "{svg}");
        assert!(svg.contains(r#"points="25,75""#), "{svg}");
        assert!(svg.contains(r#"x="75%" y="14" text-anchor="middle">b<"#), "{svg}");
    }

    #[test]
    fn what_is_open_is_hatched_and_what_was_not_counted_is_no_zero() {
        let scale = Scale::of([4.0].into_iter(), true);
        let open = Bar { state: BarState::Open, ..whole(4.0) };
        let uncounted = Bar { value: Some(0.0), state: BarState::Uncounted };
        let svg = bars(&[uncounted, open], &[], &scale, &[]).into_string();
        assert!(
            svg.contains(r#"class="open""#) && svg.contains(r#"class="uncounted""#) && !svg.contains(r#"class="bar""#)
        );
    }

    #[test]
    fn there_are_at_most_so_many_bars_and_labels() {
        let many = vec![whole(1.0); 1_000];
        let svg = bars(&many, &[], &Scale::of([1.0].into_iter(), true), &[]).into_string();
        assert_eq!(svg.matches(r#"class="bar""#).count(), MOST_BARS);
        assert_eq!(label_places(28, 8), [0, 6, 13, 20, 27]);
        assert_eq!(label_places(7, 8), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(label_places(0, 8), Vec::<usize>::new());
    }

    #[test]
    fn a_short_line_has_the_means_of_a_long_one() {
        assert_eq!(thinned(&[1.0, 2.0, 4.0, 6.0, 8.0, 9.0], 1, 3), [1.0, 3.0, 7.0, 9.0]);
        assert_eq!(thinned(&[1.0, 2.0], 0, 8), [1.0, 2.0]);
        assert_eq!(thinned(&[], 3, 8), Vec::<f64>::new());
        let svg = sparkline(&[0.0, 10.0, 5.0], 1, 9).into_string();
        assert!(svg.contains(r#"<polyline points="0,94 50,6">"#), "{svg}");
        assert!(svg.contains(r#"<polyline class="so-far" points="50,6 100,50">"#), "{svg}");
        assert_eq!(sparkline(&[1.0], 0, 9).into_string(), "", "a point is no line");
    }

    proptest! {
        #[test]
        fn every_chart_stays_within_its_room(values in prop::collection::vec(-1e15..1e15_f64, 0..50), is_whole: bool) {
            let scale = Scale::of(values.iter().copied(), is_whole);
            prop_assert!(scale.low < scale.high);
            for value in values {
                prop_assert!((scale.low..=scale.high).contains(&value), "{} in {:?}", value, scale);
            }
            prop_assert!(scale.ticks().len() <= 8, "{:?}", scale);
        }
    }
}
