//! Addresses. They are relative, and all that a page shows is in its own.

use crate::calendar::date_text;
use crate::reading::range::{Against, Range};
use crate::web::page::text::encoded;
use crate::web::page::{Days, Frame, Under};

/// A page, as it is named by its address.
#[derive(Debug, Clone)]
pub struct View<'a> {
    /// The frame.
    pub frame: &'a Frame,
    /// The report and the id, if it is the page of an item.
    pub item: Option<(&'a str, &'a str)>,
    /// The days.
    pub range: Range,
    /// The comparison.
    pub against: Against,
    /// The filter.
    pub under: Option<(&'a str, &'a str)>,
    /// The measure of the chart.
    pub measure: Option<&'a str>,
    /// The last day of a page that is asked for none.
    pub default_to: i32,
}

impl<'a> View<'a> {
    /// The view of some days of all rows.
    pub fn of(frame: &'a Frame, days: &Days, measure: Option<&'a str>) -> Self {
        View {
            frame,
            item: None,
            range: days.range,
            against: days.against,
            under: None,
            measure,
            default_to: days.default_to(frame.today),
        }
    }

    /// The same of one item.
    #[must_use]
    pub fn item(&self, report: &'a str, id: &'a str) -> Self {
        View { item: Some((report, id)), under: None, measure: None, ..self.clone() }
    }

    /// The same over other days.
    #[must_use]
    pub fn over(&self, range: Range) -> Self {
        View { range, ..self.clone() }
    }

    /// The same under a filter.
    #[must_use]
    pub fn under(&self, under: Option<&'a Under>) -> Self {
        View { under: under.map(|under| (&*under.label, &*under.text)), ..self.clone() }
    }

    /// All items with a text in a label.
    #[must_use]
    pub fn with(&self, label: &'a str, text: &'a str) -> Self {
        View { item: None, under: Some((label, text)), measure: None, ..self.clone() }
    }

    /// The path without a query.
    pub fn path(&self) -> String {
        format!("{}{}", self.frame.root, if self.item.is_some() { "item" } else { "" })
    }

    /// The address. Days that end where they do without being asked for are not named, so that they move on.
    pub fn href(&self) -> String {
        let mut query = Vec::new();
        if let Some((report, id)) = self.item {
            query.push(format!("report={}&id={}", encoded(report), encoded(id)));
        }
        query.push(format!("days={}", self.range.days()));
        if self.range.to != self.default_to {
            query.push(format!("to={}", date_text(self.range.to)));
        }
        if self.against != Against::default() {
            query.push(format!("against={}", self.against.name()));
        }
        query.extend(self.under.map(|(label, text)| format!("under={}:{}", encoded(label), encoded(text))));
        query.extend(self.measure.map(|measure| format!("measure={}", encoded(measure))));
        format!("{}?{}", self.path(), query.join("&"))
    }

    /// The address of a ranking, or of an item's figures by day, in a format of the API.
    pub fn data(&self, kind: &str, report: &str, of: &[(&str, &str)], format: &str) -> String {
        let mut query: Vec<String> =
            of.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
        query.push(format!("from={}&to={}", date_text(self.range.from), date_text(self.range.to)));
        if self.against != Against::default() {
            query.push(format!("against={}", self.against.name()));
        }
        query.push(format!("format={format}"));
        format!("{}api/v1/{kind}/{}?{}", self.frame.root, encoded(report), query.join("&"))
    }
}
