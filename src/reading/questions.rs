//! How questions are answered: which items and lists are read, and what is made of them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::plan::Plan;
use crate::plan::period::Period;
use crate::plan::reports::{Figure, Merge, Report};
use crate::reading::answer::{Exactness, Point, Row, Series, SeriesQuestion, Top, TopQuestion, Values};
use crate::reading::moment::Moment;
use crate::reading::range::Range;
use crate::reading::ranking::{Listed, candidates, ranked};
use crate::reading::reader::{Reader, ReadingError, total_key};
use crate::reports::figures::{Figures, Key, Labels, Shown, shown};
use crate::reports::item::ReportItem;
use crate::reports::store::ReadCost;
use crate::reports::top_lists::{ListKey, TopList};

/// Items that are looked up for each row that is asked for, to show that a ranking is exact.
const LOOKED_UP: usize = 5;

type Items = HashMap<Key, Arc<ReportItem>>;

/// Returns the days or hours of a report in a range, the earliest first.
pub fn periods_of(plan: &Plan, report: &Report, range: Range) -> Vec<Period> {
    range.each().flat_map(|day| plan.periods_of(report, day)).collect()
}

impl Reader {
    /// Answers a question about one item.
    pub async fn series(
        &self,
        moment: &Moment,
        question: SeriesQuestion,
        cost: &ReadCost,
    ) -> Result<Series, ReadingError> {
        let plan = Arc::clone(&moment.plan);
        let report = &plan.reports[question.report];
        let against = question.range.against(question.against);
        let periods = periods_of(&plan, report, question.range);
        let before = against.map_or(Vec::new(), |range| periods_of(&plan, report, range));
        let key = |period: &Period| Key { report: question.report, id: question.id.clone(), period: *period };
        let keys = periods.iter().chain(&before).map(key).collect();
        let items = self.items(moment, keys, cost).await?;
        let of = OneItem { moment, report, index: question.report, id: &question.id, items: &items, under: None };
        let first = self.first_day(moment, against, cost).await?;
        let whole = periods.iter().filter(|period| moment.is_over(**period)).count();
        let totals = of.together(&periods);
        let labels = of.labels(&periods, &before);
        let change = match against.filter(|range| is_complete(*range, first)) {
            None => vec![None; report.measures.len()],
            Some(_) => {
                // As many of the earlier ones: those that have the same place.
                let now = of.together(&periods[..whole]);
                let then = of.together(&before[..whole.min(before.len())]);
                changes(&shown(&then, report), &shown(&now, report))
            }
        };
        Ok(Series {
            against,
            as_of: moment.as_of.clone(),
            labels,
            points: of.points(&periods),
            between: between(&totals, report),
            totals: shown(&totals, report),
            before_totals: against.map(|_| shown(&of.together(&before), report)),
            before: of.points_from(&before, first),
            change,
            whole,
            plan: Arc::clone(&plan),
            question,
        })
    }

    /// Answers a question about the greatest items.
    pub async fn top(&self, moment: &Moment, question: TopQuestion, cost: &ReadCost) -> Result<Top, ReadingError> {
        let periods = periods_of(&moment.plan, &moment.plan.reports[question.report], question.range);
        self.top_of(moment, question, periods, cost).await
    }

    /// Answers a question about the greatest items of some of its days or hours.
    pub async fn top_of(
        &self,
        moment: &Moment,
        question: TopQuestion,
        periods: Vec<Period>,
        cost: &ReadCost,
    ) -> Result<Top, ReadingError> {
        let plan = Arc::clone(&moment.plan);
        let report = &plan.reports[question.report];
        let merge = report.top_slot().map_or(Merge::Add, |slot| report.slots[slot].merge);
        let list = |period: Period| match &question.under {
            Some((label, text)) => ListKey::under(report, &report.labels[*label].name, text, period),
            None => ListKey::of_all(report, period),
        };
        let keys: Vec<ListKey> = periods.iter().map(|&period| list(period)).collect();
        let lists = self.lists(moment, keys.clone(), cost).await?;
        let lists: Vec<Arc<TopList>> = keys.iter().filter_map(|key| lists.get(key).cloned()).collect();
        let keep = report.top.as_ref().map_or(0, |top| top.keep);
        let listed: Vec<Listed<'_>> = lists.iter().map(|list| listed(list, keep)).collect();
        let is_one = listed.len() == 1;
        let most = if is_one { question.limit } else { question.limit * LOOKED_UP };
        let found = candidates(&listed, merge, most);
        let many = found.ids.len() + usize::from(found.others.is_some());

        let to_look_up = found.ids.iter().map(|id| absent_from(id, &listed, &periods, keep).map(move |at| (id, at)));
        let key = |id: &str, period: Period| Key { report: question.report, id: id.to_owned(), period };
        let keys: BTreeSet<Key> = to_look_up.flatten().map(|(id, period)| key(id, period)).collect();
        let unlisted = self.items(moment, keys, cost).await?;
        let figure = |id: &str| {
            let mut sum = merge.neutral();
            for (list, &period) in listed.iter().zip(&periods) {
                let entry = list.entries.iter().find(|(one, _)| *one == id).map(|&(_, figure)| figure);
                let item = || {
                    let item = unlisted.get(&key(id, period)).filter(|item| is_under(item, &question))?;
                    item.figures.top(report)
                };
                if let Some(figure) = entry.or_else(item) {
                    merge.merge(&mut sum, figure);
                }
            }
            sum
        };
        let mut known: Vec<(String, i64)> = found.ids.iter().map(|id| (id.clone(), figure(id))).collect();
        let missing = ranked(&mut known, found.others, question.limit);
        // A list of one day is exact by itself, whatever comes after its end.
        let missing = missing.filter(|_| !is_one);
        let exactness = match missing {
            _ if lists.iter().any(|list| list.rebuilding) => Exactness::Rebuilding,
            None => Exactness::Exact,
            Some(most) => Exactness::MissingAtMost(Shown::Number(most.into(), places(report))),
        };
        let truncated = many > known.len();
        let ids: Vec<String> = known.into_iter().map(|(id, _)| id).collect();
        let rows = self.rows(moment, &question, &periods, ids, cost).await?;
        let against = question.range.against(question.against);
        Ok(Top { plan: Arc::clone(&plan), against, as_of: moment.as_of.clone(), exactness, truncated, rows, question })
    }

    /// The first day with rows, if something is compared and it is known. Days before it are no days with nothing, and
    /// no change is said against days of which some are.
    async fn first_day(
        &self,
        moment: &Moment,
        against: Option<Range>,
        cost: &ReadCost,
    ) -> Result<Option<i32>, ReadingError> {
        match against {
            Some(_) => self.edge(moment, false, cost).await,
            None => Ok(None),
        }
    }

    /// Reads the items of a ranking's rows.
    async fn rows(
        &self,
        moment: &Moment,
        question: &TopQuestion,
        periods: &[Period],
        ids: Vec<String>,
        cost: &ReadCost,
    ) -> Result<Vec<Row>, ReadingError> {
        let report = &moment.plan.reports[question.report];
        let against = question.range.against(question.against);
        let before = against.map_or(Vec::new(), |range| periods_of(&moment.plan, report, range));
        let whole_item = whole_of(&moment.plan, question);
        let of_row = |id: &String| {
            let id = id.clone();
            periods.iter().chain(&before).map(move |&period| Key { report: question.report, id: id.clone(), period })
        };
        let of_whole = whole_item
            .iter()
            .flat_map(|(index, id)| periods.iter().map(|&period| Key { report: *index, id: id.clone(), period }));
        let keys = ids.iter().flat_map(of_row).chain(of_whole).collect();
        let items = self.items(moment, keys, cost).await?;
        let measure = report.top.as_ref().map_or(0, |top| top.measure);
        let whole_total = whole_item.and_then(|(index, id)| {
            let of_whole = &moment.plan.reports[index];
            let of = OneItem { moment, report: of_whole, index, id: &id, items: &items, under: None };
            let same = of_whole.measures.iter().position(|it| it.name == report.measures[measure].name)?;
            as_number(shown(&of.together(periods), of_whole).get(same).copied().flatten())
        });
        let over = periods.iter().filter(|period| moment.is_over(**period)).count();
        let first = self.first_day(moment, against, cost).await?;
        let compared = against.filter(|range| is_complete(*range, first));
        let row = |id: String| {
            let under = Some(question);
            let of = OneItem { moment, report, index: question.report, id: &id, items: &items, under };
            let totals = of.together(periods);
            let values = shown(&totals, report);
            let change = compared.and_then(|_| {
                let now = shown(&of.together(&periods[..over]), report);
                let then = shown(&of.together(&before[..over.min(before.len())]), report);
                changes(&then, &now).get(measure).copied().flatten()
            });
            let share = whole_total.filter(|&whole| whole > 0.0);
            Row {
                labels: of.labels(periods, &before),
                between: between(&totals, report),
                points: of.tops(periods),
                change,
                share: share.and_then(|whole| Some(as_number(values.get(measure).copied().flatten())? / whole)),
                values,
                id,
            }
        };
        Ok(ids.into_iter().map(row).collect())
    }

    /// Returns the last day, or the first, that has rows; `None` if there is none, or if the definition has no report
    /// that could tell.
    pub async fn edge(&self, moment: &Moment, is_last: bool, cost: &ReadCost) -> Result<Option<i32>, ReadingError> {
        let plan = &moment.plan;
        if let Some(day) = self.kept_edge(moment, is_last) {
            return Ok(day);
        }
        let Some(report) = plan.definition.days_report() else { return Ok(None) };
        let period = self.reports(plan).edge(report, is_last, cost).await?;
        let day = period.map(|period| plan.day_of(period));
        self.keep_edge(moment, is_last, day);
        Ok(day)
    }
}

/// True if a change may be said against these days: none of them is before the first day with rows.
fn is_complete(against: Range, first: Option<i32>) -> bool {
    first.is_none_or(|first| first <= against.from)
}

/// The places of a report's ranking measure.
fn places(report: &Report) -> u8 {
    report.top.as_ref().map_or(0, |top| report.measures[top.measure].figure.places())
}

fn listed(list: &TopList, keep: usize) -> Listed<'_> {
    let entries = list.entries.iter().filter_map(|entry| Some((entry.id.as_str(), entry.figure?)));
    Listed { entries: entries.collect(), is_full: list.entries.len() >= keep }
}

/// The periods in which an item may have rows although the list lacks it.
fn absent_from<'l>(
    id: &'l str,
    listed: &'l [Listed<'l>],
    periods: &'l [Period],
    keep: usize,
) -> impl Iterator<Item = Period> + use<'l> {
    let may_have = move |list: &Listed<'_>| list.is_full && keep > 0 && !list.entries.iter().any(|(one, _)| *one == id);
    listed.iter().zip(periods).filter(move |(list, _)| may_have(list)).map(|(_, &period)| period)
}

/// The item that a ranking is a part of: that of all rows, or that of the text which its items are under.
fn whole_of(plan: &Plan, question: &TopQuestion) -> Option<(usize, String)> {
    let report = &plan.reports[question.report];
    let measure = &report.measures[report.top.as_ref()?.measure].name;
    let has_persons = |of_report: usize| plan.definition.reports[of_report].has_persons();
    // A report of persons is read only where one is asked for.
    let is_open = |other: usize| !has_persons(other) || has_persons(question.report);
    let is_whole = |other: &Report, key: Option<&str>| {
        other.is_hourly == report.is_hourly
            && other.measures.iter().any(|it| it.name == *measure)
            && match key {
                None => other.key.is_none(),
                Some(name) => other.key.is_some() && other.key_attribute == name,
            }
    };
    let find = |key| (0..plan.reports.len()).find(|&other| is_open(other) && is_whole(&plan.reports[other], key));
    match &question.under {
        None => find(None).map(|index| (index, total_key(index, 0).id)),
        Some((label, text)) => Some((find(Some(report.labels[*label].name.as_str()))?, text.clone())),
    }
}

/// True if an item has the text that a question is about.
fn is_under(item: &ReportItem, question: &TopQuestion) -> bool {
    question.under.as_ref().is_none_or(|(label, text)| item.labels.texts(*label).any(|one| one == text))
}

/// The items of one id.
struct OneItem<'a> {
    moment: &'a Moment,
    report: &'a Report,
    index: usize,
    id: &'a str,
    items: &'a Items,
    /// Only the periods in which the item is under this question's text.
    under: Option<&'a TopQuestion>,
}

impl OneItem<'_> {
    fn at(&self, period: Period) -> Option<&ReportItem> {
        let key = Key { report: self.index, id: self.id.to_owned(), period };
        let item = self.items.get(&key).map(Arc::as_ref).filter(|_| self.moment.plan.counts(self.index, period))?;
        self.under.is_none_or(|question| is_under(item, question)).then_some(item)
    }

    /// The figures of periods together.
    fn together(&self, periods: &[Period]) -> Figures {
        let figures: Vec<&Figures> = periods.iter().filter_map(|&period| Some(&self.at(period)?.figures)).collect();
        Figures::of_all(figures.into_iter(), self.report)
    }

    fn points(&self, periods: &[Period]) -> Vec<Point> {
        let point = |&period: &Period| {
            let is_counted = self.moment.plan.counts(self.index, period);
            let values = match self.at(period) {
                Some(item) => shown(&item.figures, self.report),
                None => vec![None; self.report.measures.len()],
            };
            Point { period, values, is_whole: self.moment.is_over(period), is_counted }
        };
        periods.iter().map(point).collect()
    }

    /// The points of a comparison: what is before the first day was not counted.
    fn points_from(&self, periods: &[Period], first: Option<i32>) -> Vec<Point> {
        let mut points = self.points(periods);
        for point in &mut points {
            if first.is_some_and(|first| self.moment.plan.day_of(point.period) < first) {
                *point = Point { is_counted: false, values: vec![None; self.report.measures.len()], ..*point };
            }
        }
        points
    }

    /// The ranking measure by period.
    fn tops(&self, periods: &[Period]) -> Vec<i64> {
        let top = |&period: &Period| self.at(period).and_then(|item| item.figures.top(self.report)).unwrap_or(0);
        periods.iter().map(top).collect()
    }

    /// The labels of the latest item that has rows.
    fn labels(&self, periods: &[Period], before: &[Period]) -> Labels {
        let mut latest = periods.iter().rev().chain(before.iter().rev()).filter_map(|&period| self.at(period));
        latest.find(|item| item.version > 0).map(|item| item.labels.clone()).unwrap_or_default()
    }
}

/// The bounds of distinct counts, in the order of the measures.
fn between(figures: &Figures, report: &Report) -> Vec<Option<[u64; 2]>> {
    let of = |figure: Figure| match figure {
        Figure::Distinct { sketch } => Some(figures.distinct.get(sketch)?.as_ref()?.between()),
        Figure::Number { .. } | Figure::Time { .. } | Figure::Ratio { .. } => None,
    };
    report.measures.iter().map(|measure| of(measure.figure)).collect()
}

/// A number for the eye: shares and changes are approximate.
pub fn as_number(value: Option<Shown>) -> Option<f64> {
    match value? {
        Shown::Number(number, places) => Some(number as f64 / 10_f64.powi(places.into())),
        Shown::Time(_) | Shown::Nothing => None,
    }
}

/// The change of each measure as a fraction of the earlier value; `None` where there is none to compare with.
fn changes(then: &Values, now: &Values) -> Vec<Option<f64>> {
    let change = |(then, now): (&Option<Shown>, &Option<Shown>)| {
        let (then, now) = (as_number(*then).filter(|then| *then > 0.0)?, as_number(*now)?);
        Some((now - then) / then)
    };
    then.iter().zip(now).map(change).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::Definition;

    #[test]
    fn changes_are_of_numbers_that_there_were() {
        let number = |number| Some(Shown::Number(number, 1));
        let then = vec![number(100), number(0), None, Some(Shown::Nothing), Some(Shown::Time(5))];
        let now = vec![number(150), number(7), number(1), number(1), Some(Shown::Time(9))];
        assert_eq!(changes(&then, &now), [Some(0.5), None, None, None, None]);
    }

    #[test]
    fn a_ranking_is_a_part_of_the_report_that_has_its_measure() {
        let plan = Plan::built_in().unwrap();
        let tracks = plan.report_named("tracks").unwrap();
        let genre = plan.reports[tracks].labels.iter().position(|label| label.name == "track_genre").unwrap();
        let question = |under| TopQuestion {
            report: tracks,
            under,
            range: Range { from: 1, to: 1 },
            against: Default::default(),
            limit: 1,
        };
        let genres = plan.report_named("genres").unwrap();
        assert_eq!(whole_of(&plan, &question(Some((genre, "jazz".into())))), Some((genres, "jazz".into())));
        // Whoever asks for tracks may not be allowed to read a report of persons.
        let mut definition = Definition::clone(&plan.definition);
        definition.reports[genres].is_personal = true;
        let plan = Plan::of(definition).unwrap();
        assert_eq!(whole_of(&plan, &question(Some((genre, "jazz".into())))), None);
    }
}
