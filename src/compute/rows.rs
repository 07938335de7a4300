//! Rows: the good rows of a batch by column, in codes, integers and times.
//!
//! Pure. Rows can be split by day and by hour, and into parts whose dictionaries are small.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use foldhash::fast::RandomState;

use crate::compute::names::{Dictionary, Names};
use crate::input::parsed::Parsed;
use crate::plan::Plan;
use crate::plan::columns::Kind;
use crate::plan::period::{MICROS_PER_HOUR, Period};
use crate::plan::zone::Zone;

/// Good rows by column.
#[derive(Debug, Clone)]
pub struct Rows {
    /// By code column.
    pub codes: Vec<Vec<u32>>,
    /// By integer column; [`crate::plan::NO_NUMBER`] for no value.
    pub ints: Vec<Vec<i64>>,
    /// Microseconds since the Unix epoch.
    pub times: Vec<i64>,
    /// Codes of the rows' source files.
    pub sources: Vec<u32>,
}

impl Rows {
    /// Returns no rows, with room for `rows`: untouched memory costs nothing, whereas growing memory is copied.
    pub fn with_capacity(plan: &Plan, rows: usize) -> Self {
        Rows {
            codes: plan.codes.iter().map(|_| Vec::with_capacity(rows)).collect(),
            ints: plan.ints.iter().map(|_| Vec::with_capacity(rows)).collect(),
            times: Vec::with_capacity(rows),
            sources: Vec::with_capacity(rows),
        }
    }

    /// Adds the rows of a block, and assigns codes to its new ids.
    pub fn append(&mut self, block: &Parsed, source: u32, dictionary: &mut Dictionary) {
        for (column, (codes, of_block)) in self.codes.iter_mut().zip(&block.codes).enumerate() {
            dictionary.append(column, of_block, &block.new_ids[column], codes);
        }
        for (ints, of_block) in self.ints.iter_mut().zip(&block.ints) {
            ints.extend_from_slice(of_block);
        }
        self.times.extend_from_slice(&block.times);
        self.sources.resize(self.times.len(), source);
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Returns true if there are no rows.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// Drops all rows from position `length` on.
    pub fn truncate(&mut self, length: usize) {
        self.codes.iter_mut().for_each(|codes| codes.truncate(length));
        self.ints.iter_mut().for_each(|ints| ints.truncate(length));
        self.times.truncate(length);
        self.sources.truncate(length);
    }

    /// Removes and returns the rows from position `start` on.
    pub fn split_off(&mut self, start: usize) -> Rows {
        Rows {
            codes: self.codes.iter_mut().map(|codes| codes.split_off(start)).collect(),
            ints: self.ints.iter_mut().map(|ints| ints.split_off(start)).collect(),
            times: self.times.split_off(start),
            sources: self.sources.split_off(start),
        }
    }

    /// Returns the rows in parts, each with about `text_bytes` of text in its dictionaries at most: nearly always one
    /// part.
    pub fn in_parts(&self, text_bytes: usize, names: &Names) -> Vec<Cow<'_, Rows>> {
        // Nearly always all texts that there are fit.
        if names.most_text_bytes() <= text_bytes {
            return vec![Cow::Borrowed(self)];
        }
        let columns = columns_of_texts(names);
        let mut seen: Vec<Vec<bool>> = columns
            .iter()
            .map(|&column| vec![false; self.codes[column].iter().max().map_or(0, |&code| code as usize + 1)])
            .collect();
        let mut bytes = 0;
        for (&column, seen) in columns.iter().zip(&mut seen) {
            for &code in &self.codes[column] {
                if !std::mem::replace(&mut seen[code as usize], true) {
                    bytes += names.text_bytes(column, code);
                }
            }
        }
        if bytes <= text_bytes {
            return vec![Cow::Borrowed(self)];
        }
        seen.iter_mut().for_each(|seen| seen.fill(false));
        let (mut parts, mut start, mut bytes) = (Vec::new(), 0, 0);
        for row in 0..self.len() {
            let mut of_row = 0;
            for (&column, seen) in columns.iter().zip(&mut seen) {
                let code = self.codes[column][row];
                if !std::mem::replace(&mut seen[code as usize], true) {
                    of_row += names.text_bytes(column, code);
                }
            }
            bytes += of_row;
            if of_row > 0 && bytes > text_bytes {
                parts.push(start..row);
                start = row;
                bytes = 0;
                for (&column, seen) in columns.iter().zip(&mut seen) {
                    seen.fill(false);
                    seen[self.codes[column][row] as usize] = true;
                    bytes += names.text_bytes(column, self.codes[column][row]);
                }
            }
        }
        parts.push(start..self.len());
        parts.into_iter().filter(|part| !part.is_empty()).map(|part| Cow::Owned(self.part(part))).collect()
    }

    fn part(&self, rows: Range<usize>) -> Rows {
        Rows {
            codes: self.codes.iter().map(|codes| codes[rows.clone()].to_vec()).collect(),
            ints: self.ints.iter().map(|ints| ints[rows.clone()].to_vec()).collect(),
            times: self.times[rows.clone()].to_vec(),
            sources: self.sources[rows].to_vec(),
        }
    }

    /// Returns rows of the same columns, with room for so many.
    fn like(&self, rows: usize) -> Rows {
        Rows {
            codes: self.codes.iter().map(|_| Vec::with_capacity(rows)).collect(),
            ints: self.ints.iter().map(|_| Vec::with_capacity(rows)).collect(),
            times: Vec::with_capacity(rows),
            sources: Vec::with_capacity(rows),
        }
    }

    fn extend_from(&mut self, other: &Rows, rows: Range<usize>) {
        for (codes, others) in self.codes.iter_mut().zip(&other.codes) {
            codes.extend_from_slice(&others[rows.clone()]);
        }
        for (ints, others) in self.ints.iter_mut().zip(&other.ints) {
            ints.extend_from_slice(&others[rows.clone()]);
        }
        self.times.extend_from_slice(&other.times[rows.clone()]);
        self.sources.extend_from_slice(&other.sources[rows]);
    }

    /// Splits the rows by day, in the order in which the days first occur among them.
    pub fn by_day(self, zone: &Zone) -> Vec<(i32, Rows)> {
        // Neighbouring rows mostly share their day and are moved together.
        let mut runs = Vec::new();
        let mut days: Vec<(i32, usize)> = Vec::new();
        let mut place_of: HashMap<i32, usize, RandomState> = HashMap::default();
        let (mut zone, mut start) = (zone.days(), 0);
        while let Some(&first) = self.times.get(start) {
            let day = zone.day_of(first);
            let others = self.times[start..].iter().take_while(|&&time| zone.day_of(time) == day);
            let end = start + others.count();
            let place = *place_of.entry(day).or_insert_with(|| {
                days.push((day, 0));
                days.len() - 1
            });
            days[place].1 += end - start;
            runs.push((place, start..end));
            start = end;
        }
        if let [(day, _)] = days[..] {
            return vec![(day, self)];
        }
        let mut split: Vec<_> = days.into_iter().map(|(day, length)| (day, self.like(length))).collect();
        for (place, run) in runs {
            split[place].1.extend_from(&self, run);
        }
        split
    }

    /// Splits the rows of a day by hour (UTC), in the order of the hours, without their sources.
    pub fn by_hour(&self) -> Vec<(Period, Cow<'_, Rows>)> {
        let hours = || self.times.iter().map(|time| time.div_euclid(MICROS_PER_HOUR));
        let (Some(first), Some(last)) = (hours().min(), hours().max()) else { return Vec::new() };
        let hour = |place: usize| Period::hour_of((first + place as i64) * MICROS_PER_HOUR);
        if first == last {
            return vec![(hour(0), Cow::Borrowed(self))];
        }
        // A day has some 25 hours.
        let mut rows_of: Vec<Vec<u32>> = vec![Vec::new(); (last - first) as usize + 1];
        for (row, of_row) in (0..).zip(hours()) {
            rows_of[(of_row - first) as usize].push(row);
        }
        let taken = |rows: &[u32]| Rows {
            codes: self.codes.iter().map(|codes| at(codes, rows)).collect(),
            ints: self.ints.iter().map(|ints| at(ints, rows)).collect(),
            times: at(&self.times, rows),
            sources: Vec::new(),
        };
        let hours = rows_of.iter().enumerate().filter(|(_, rows)| !rows.is_empty());
        hours.map(|(place, rows)| (hour(place), Cow::Owned(taken(rows)))).collect()
    }
}

/// Returns the values of some rows.
fn at<T: Copy>(values: &[T], rows: &[u32]) -> Vec<T> {
    rows.iter().map(|&row| values[row as usize]).collect()
}

/// Returns the code columns from whose codes texts follow that are worth counting: few values are no matter.
fn columns_of_texts(names: &Names) -> Vec<usize> {
    let plan = names.plan();
    let has_texts = |column: usize| {
        let mut attributes = plan.attributes.iter().enumerate().filter(|(_, it)| it.code == column && it.has_codes);
        plan.codes[column].kind == Kind::Text
            || attributes.any(|(index, _)| !names.references().values(index).are_few())
    };
    (0..plan.codes.len()).filter(|&column| has_texts(column)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::fixtures::{self, Cell, Cells};
    use crate::plan::period::MICROS_PER_HOUR;
    use crate::reference::References;
    use std::collections::HashSet;
    use std::sync::Arc;

    #[tokio::test]
    async fn rows_whose_dictionaries_would_be_large_are_parted() {
        let plan = Plan::built_in().unwrap();
        let songs: String =
            (0..1000).map(|song| format!("s{song:03},{},X,pop,1\n", "n".repeat(500) + &song.to_string())).collect();
        let songs = format!("track_id,track_name,artists,track_genre,duration_ms\n{songs}");
        let users = "user_id,user_country\n1,Peru\n2,Ghana\n";
        let references = References::parse(&plan, vec![songs.as_bytes(), users.as_bytes()]).await.unwrap();
        let mut dictionary = Dictionary::of(Arc::clone(&plan), Arc::new(references));
        let cells = (0..5000).map(|row| vec![1.into(), Cell::Text(format!("s{:03}", row * 7 % 1000)), 0.into()]);
        let rows = fixtures::rows(&mut dictionary, &cells.collect::<Vec<Cells>>());
        let names = dictionary.names();
        assert_eq!(rows.in_parts(1 << 20, names).len(), 1, "each name once in a dictionary, however many rows have it");
        let parts = rows.in_parts(100_000, names);
        let tracks = |rows: &Rows| rows.codes[1].clone();
        assert_eq!(parts.iter().flat_map(|part| tracks(part)).collect::<Vec<_>>(), tracks(&rows));
        assert_eq!(parts.iter().map(|part| part.len()).sum::<usize>(), rows.len());
        for part in &parts {
            let distinct: HashSet<u32> = tracks(part).into_iter().collect();
            assert!(distinct.iter().map(|&track| names.text_bytes(1, track)).sum::<usize>() <= 100_000);
        }
        assert!(parts.len() < 60, "{}", parts.len());
        assert_eq!(rows.in_parts(1, names).len(), 5000, "a row at the least");
    }

    #[test]
    fn rows_are_split_by_the_zone_s_days_and_by_hours_of_utc() {
        let plan = Arc::new(Plan::of(fixtures::definition(Vec::new(), "Europe/Berlin")).unwrap());
        let mut dictionary = Dictionary::of(Arc::clone(&plan), Arc::new(References::empty(&plan)));
        let time = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_microsecond();
        let times = ["2024-06-24T21:59:59Z", "2024-06-24T22:00:00Z", "2024-06-25T21:59:59Z", "2024-06-25T22:00:00Z"];
        let cells = times.iter().zip(0..).map(|(text, price)| {
            vec![
                "i".into(),
                time(text).into(),
                Cell::None,
                Cell::None,
                Cell::None,
                Cell::Number(price),
                Cell::None,
                Cell::None,
            ]
        });
        let rows = fixtures::rows(&mut dictionary, &cells.collect::<Vec<Cells>>());
        let prices = |rows: &Rows| rows.ints[plan.columns[5].int.unwrap()].clone();
        let days = rows.clone().by_day(&plan.zone);
        let shown = |day: &i32| crate::calendar::date_text(*day);
        let found: Vec<_> = days.iter().map(|(day, rows)| (shown(day), prices(rows))).collect();
        let expected = [("2024-06-24", vec![0]), ("2024-06-25", vec![1, 2]), ("2024-06-26", vec![3])];
        assert_eq!(found, expected.map(|(day, prices)| (day.to_owned(), prices)));
        let hours: Vec<_> = days[1].1.by_hour().iter().map(|(hour, rows)| (hour.to_string(), prices(rows))).collect();
        assert_eq!(hours, [("2024-06-24T22".to_owned(), vec![1]), ("2024-06-25T21".to_owned(), vec![2])]);
        assert_eq!(days[0].1.by_hour()[0].0, Period::hour_of(time(times[0]) / MICROS_PER_HOUR * MICROS_PER_HOUR));
    }
}
