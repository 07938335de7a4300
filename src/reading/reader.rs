//! The reader: it asks the tables, and answers questions.
//!
//! Everything that it reads it keeps as long as the ledger shows that it holds ([`crate::reading::moment`]); so a
//! question about days that no batch has touched costs one look at the ledger, shared by all who ask within two
//! seconds. Covered by tests/pipeline/reading.rs.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};

use crate::aws::Clients;
use crate::aws::error::{AwsError, Kind};
use crate::ledger::{DefinitionError, Ledger, Touched};
use crate::plan::Plan;
use crate::plan::period::Period;
use crate::protocol::{Registry, State};
use crate::reading::answer::AsOf;
use crate::reading::kept::{Kept, Mark, Piece, PieceKey, no_item};
use crate::reading::moment::{Ledgered, Marks, Moment, marking};
use crate::reports::figures::Key;
use crate::reports::item::{ReportItem, parse_item};
use crate::reports::store::{READ_ITEMS, ReadCost, Reports};
use crate::reports::top_lists::{ListKey, TopList};
use crate::telemetry::progress::Progress;

/// The time for which a look at the ledger is shared.
const LOOK: Duration = Duration::from_secs(2);
/// The time after a change before which reads may still show what was before it: they are eventually consistent.
const SETTLES: Duration = Duration::from_secs(5);
/// The greatest number of records that are read to find the last batch that was done.
const RECORDS: usize = 10;
/// Reads at the same time for one question.
const CONCURRENT_READS: usize = 8;

/// The error of a question.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadingError {
    /// A call failed.
    #[error(transparent)]
    Aws(#[from] Arc<AwsError>),
    /// The definition in force cannot be used.
    #[error(transparent)]
    Definition(Arc<DefinitionError>),
}

impl From<AwsError> for ReadingError {
    fn from(error: AwsError) -> Self {
        ReadingError::Aws(Arc::new(error))
    }
}

impl From<DefinitionError> for ReadingError {
    fn from(error: DefinitionError) -> Self {
        match error {
            DefinitionError::Aws(error) => error.into(),
            other => ReadingError::Definition(Arc::new(other)),
        }
    }
}

/// A reader of one pipeline's figures. Clones share what is kept.
#[derive(Debug, Clone)]
pub struct Reader(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clients: Clients,
    table_prefix: String,
    ledger: Ledger,
    kept: Kept,
    /// The last look at the ledger. Whoever looks holds the lock, and others wait for the result.
    moment: tokio::sync::Mutex<Option<Arc<Moment>>>,
    /// The marks that were read, and the number of their moment.
    marks: Mutex<(u64, Marks)>,
    /// The first and the last day with rows, as far as they were read, and the number of their moment.
    edges: Mutex<(u64, [Option<Option<i32>>; 2])>,
}

impl Reader {
    /// A reader of the tables with this prefix, which keeps so many bytes, each piece for at most so long.
    pub fn new(clients: Clients, table_prefix: String, kept_bytes: u64, max_age: Duration) -> Self {
        let ledger = Ledger::new(clients.dynamodb.clone(), &table_prefix, String::new());
        let (kept, marks) = (Kept::new(kept_bytes, max_age), Mutex::new((0, Marks::new())));
        let (moment, edges) = (tokio::sync::Mutex::new(None), Mutex::new((0, [None; 2])));
        Reader(Arc::new(Inner { clients, table_prefix, ledger, kept, moment, marks, edges }))
    }

    /// The pipeline's ledger.
    pub fn ledger(&self) -> &Ledger {
        &self.0.ledger
    }

    /// Returns the moment: of now, or of less than two seconds ago.
    pub async fn moment(&self, cost: &ReadCost) -> Result<Arc<Moment>, ReadingError> {
        let mut last = self.0.moment.lock().await;
        if let Some(moment) = last.as_ref().filter(|moment| moment.seen.elapsed() < LOOK) {
            return Ok(Arc::clone(moment));
        }
        let moment = Arc::new(self.look(last.as_deref(), cost).await?);
        *last = Some(Arc::clone(&moment));
        Ok(moment)
    }

    /// Reads what the ledger says now.
    async fn ledger_now(&self, cost: &ReadCost) -> Result<(Registry, Touched), AwsError> {
        let ledger = &self.0.ledger;
        let found = futures::future::try_join(ledger.registry(), ledger.touched()).await?;
        cost.count(2);
        cost.count(2);
        Ok(found)
    }

    /// Looks at the ledger, and makes a moment of it.
    async fn look(&self, last: Option<&Moment>, cost: &ReadCost) -> Result<Moment, ReadingError> {
        let seen = Instant::now();
        let (registry, touched) = self.ledger_now(cost).await?;
        let ledgered = Ledgered::of(&registry, touched.times);
        let plan = match last.filter(|last| !last.ledgered.is_redefined(&ledgered)) {
            Some(last) => Arc::clone(&last.plan),
            None => {
                self.0.kept.clear();
                self.0.ledger.plan_in_force(&registry.definition).await?
            }
        };
        // A rebuild changes items one after the other: what was read meanwhile may have the day's mark of its end.
        if last.is_some_and(|last| last.ledgered.is_touched(&ledgered)) {
            self.0.kept.clear();
        }
        let now = jiff::Timestamp::now();
        let (today, this_hour) = (plan.zone.day_of(now.as_microsecond()), Period::hour_of(now.as_microsecond()));
        // Figures that are settled stay until the ledger changes, and what is over until the hour does.
        let is_same = |last: &&Moment| last.is_settled && last.ledgered == ledgered && last.this_hour == this_hour;
        let (number, as_of) = match last.filter(is_same) {
            Some(last) => (last.number, last.as_of.clone()),
            None => (last.map_or(1, |last| last.number + 1), self.as_of(&ledgered, cost).await?),
        };
        let changed_at = as_of.at.max(touched.at);
        let is_over = changed_at.is_none_or(|at| now.duration_since(at).unsigned_abs() >= SETTLES);
        let is_settled = is_over && !ledgered.is_updating();
        let marking = marking(&plan);
        Ok(Moment { is_settled, ledgered, number, plan, as_of, seen, marking, today, this_hour })
    }

    /// Finds the last batch that was done.
    async fn as_of(&self, ledgered: &Ledgered, cost: &ReadCost) -> Result<AsOf, ReadingError> {
        let updating = ledgered.is_updating();
        for batch in ledgered.finished().take(RECORDS) {
            cost.count(2);
            if let Some(record) = self.0.ledger.record(batch).await?
                && record.state == State::Done
            {
                return Ok(AsOf { batch: Some(batch), at: Some(record.finished_at), updating });
            }
        }
        Ok(AsOf { batch: None, at: None, updating })
    }

    /// The report tables, with a plan.
    pub fn reports(&self, plan: &Arc<Plan>) -> Reports {
        let Inner { clients, table_prefix, .. } = &*self.0;
        Reports::new(clients.dynamodb.clone(), Arc::clone(plan), table_prefix.clone(), 1, None, Progress::default())
    }

    /// Returns items; one that is not there has no rows.
    pub async fn items(
        &self,
        moment: &Moment,
        keys: BTreeSet<Key>,
        cost: &ReadCost,
    ) -> Result<HashMap<Key, Arc<ReportItem>>, ReadingError> {
        let marks = self.marks(moment, keys.iter().map(|key| key.period), cost).await?;
        let (mut found, mut missing) = (HashMap::new(), Vec::new());
        for key in keys {
            match self.0.kept.get(&PieceKey::Item(key.clone()), marks.of(moment, key.period)).await {
                Some(Piece::Item(item)) => drop(found.insert(key, item)),
                _ => missing.push(key),
            }
        }
        let reports = self.reports(&moment.plan);
        let groups: Vec<Vec<Key>> = missing.chunks(READ_ITEMS).map(<[Key]>::to_vec).collect();
        let mut read: HashMap<Key, Arc<ReportItem>> = futures::stream::iter(groups)
            .map(|group| {
                let reports = &reports;
                async move {
                    let mut items = reports.look_up(&group, cost).await?;
                    let of_key = |key: Key| {
                        let report = &moment.plan.reports[key.report];
                        let item = match items.remove(&key) {
                            Some(item) => parse_item(report, &item).map_err(|problem| foreign(reports, &key, problem)),
                            None => Ok(no_item(report)),
                        };
                        item.map(|item| (key, Arc::new(item)))
                    };
                    group.into_iter().map(of_key).collect::<Result<Vec<_>, AwsError>>()
                }
            })
            .buffer_unordered(CONCURRENT_READS)
            .try_concat()
            .await?
            .into_iter()
            .collect();
        let pieces = read.iter().map(|(key, item)| {
            (PieceKey::Item(key.clone()), marks.of(moment, key.period), Piece::Item(Arc::clone(item)))
        });
        self.keep(moment, pieces.collect(), cost).await?;
        found.extend(read.drain());
        Ok(found)
    }

    /// Returns lists; one that is not there is empty.
    pub async fn lists(
        &self,
        moment: &Moment,
        keys: Vec<ListKey>,
        cost: &ReadCost,
    ) -> Result<HashMap<ListKey, Arc<TopList>>, ReadingError> {
        let marks = self.marks(moment, keys.iter().map(|key| key.period), cost).await?;
        let (mut found, mut missing) = (HashMap::new(), Vec::new());
        for key in keys {
            match self.0.kept.get(&PieceKey::List(key.clone()), marks.of(moment, key.period)).await {
                Some(Piece::List(list)) => drop(found.insert(key, list)),
                _ => missing.push(key),
            }
        }
        let reports = self.reports(&moment.plan);
        let groups: Vec<Vec<ListKey>> = missing.chunks(READ_ITEMS).map(<[ListKey]>::to_vec).collect();
        let read: Vec<_> = futures::stream::iter(groups)
            .map(|group| {
                let reports = &reports;
                async move { reports.look_up_lists(&group, cost).await }
            })
            .buffer_unordered(CONCURRENT_READS)
            .try_collect()
            .await?;
        let mut pieces = Vec::new();
        for (key, list) in read.into_iter().flatten() {
            let list = list.map(Arc::new).map_err(|cause| AwsError {
                operation: "dynamodb:BatchGetItem",
                resource: reports.lists_table(),
                kind: Kind::Refused,
                cause,
            })?;
            let mark = marks.of(moment, key.period);
            pieces.push((PieceKey::List(key.clone()), mark, Piece::List(Arc::clone(&list))));
            found.insert(key, list);
        }
        self.keep(moment, pieces, cost).await?;
        Ok(found)
    }

    /// Keeps pieces, if the ledger has not changed since the moment: else they may be older than the marks of their
    /// days, or of a batch that is not carried out to its end.
    async fn keep(
        &self,
        moment: &Moment,
        pieces: Vec<(PieceKey, Mark, Piece)>,
        cost: &ReadCost,
    ) -> Result<(), ReadingError> {
        if pieces.is_empty() || !moment.is_settled {
            return Ok(());
        }
        let (registry, touched) = self.ledger_now(cost).await?;
        if Ledgered::of(&registry, touched.times) == moment.ledgered {
            for (key, mark, piece) in pieces {
                self.0.kept.put(key, mark, piece).await;
            }
        }
        Ok(())
    }

    /// Returns the last day with rows, or the first, if it was read at this moment.
    pub(super) fn kept_edge(&self, moment: &Moment, is_last: bool) -> Option<Option<i32>> {
        let kept = self.0.edges.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.0 == moment.number { kept.1[usize::from(is_last)] } else { None }
    }

    /// Keeps the last day with rows, or the first, as long as the moment.
    pub(super) fn keep_edge(&self, moment: &Moment, is_last: bool, day: Option<i32>) {
        let mut kept = self.0.edges.lock().unwrap_or_else(PoisonError::into_inner);
        if moment.is_settled && kept.0 < moment.number {
            *kept = (moment.number, [None; 2]);
        }
        if moment.is_settled && kept.0 == moment.number {
            kept.1[usize::from(is_last)] = Some(day);
        }
    }

    /// Reads the marks of days beforehand, once for several questions at the same time.
    pub async fn prepare(
        &self,
        moment: &Moment,
        days: impl Iterator<Item = i32>,
        cost: &ReadCost,
    ) -> Result<(), ReadingError> {
        self.marks(moment, days.map(Period::Day), cost).await.map(drop)
    }

    /// Reads the marks of periods' days. They hold for their moment: one that is not settled lasts as long as a look.
    async fn marks(
        &self,
        moment: &Moment,
        periods: impl Iterator<Item = Period>,
        cost: &ReadCost,
    ) -> Result<MarksOfDays, ReadingError> {
        let Some(report) = moment.marking else { return Ok(MarksOfDays(Marks::new())) };
        let mut marks = {
            let kept = self.0.marks.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.0 == moment.number { kept.1.clone() } else { Marks::new() }
        };
        let is_marked = |day: &i32| moment.plan.counts(report, Period::Day(*day));
        let days: BTreeSet<i32> = periods.map(|period| moment.plan.day_of(period)).filter(is_marked).collect();
        let missing: Vec<Key> =
            days.iter().filter(|day| !marks.contains_key(day)).map(|&day| total_key(report, day)).collect();
        if missing.is_empty() {
            return Ok(MarksOfDays(marks));
        }
        let reports = self.reports(&moment.plan);
        for group in missing.chunks(READ_ITEMS) {
            let found = reports.look_up(group, cost).await?;
            for key in group {
                let item = found.get(key).map(|item| parse_item(&moment.plan.reports[report], item));
                // An item that somebody else wrote marks nothing, and is an error where it is asked for.
                let version = item.and_then(Result::ok).map_or(0, |item| item.version);
                marks.insert(moment.plan.day_of(key.period), version);
            }
        }
        let mut kept = self.0.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.0 < moment.number {
            *kept = (moment.number, Marks::new());
        }
        if kept.0 == moment.number {
            kept.1.extend(marks.iter().map(|(&day, &version)| (day, version)));
        }
        Ok(MarksOfDays(marks))
    }
}

/// The marks of the days of a question.
struct MarksOfDays(Marks);

impl MarksOfDays {
    fn of(&self, moment: &Moment, period: Period) -> Mark {
        let version = self.0.get(&moment.plan.day_of(period));
        version.map_or(Mark::Moment(moment.number), |&version| Mark::Version(version))
    }
}

/// The key of a day's item of all rows.
pub fn total_key(report: usize, day: i32) -> Key {
    Key { report, id: crate::definition::reports::ALL.1.to_owned(), period: Period::Day(day) }
}

fn foreign(reports: &Reports, key: &Key, problem: String) -> AwsError {
    let resource = format!("{}/{} {}", reports.table(key.report), key.id, key.period);
    let cause = format!("the item is not what this program writes: {problem}; music-streams verify says more");
    AwsError { operation: "dynamodb:BatchGetItem", resource, kind: Kind::Refused, cause }
}
