//! The state of the pipeline, for people.

use crate::aws::sqs::Backlog;
use crate::calendar::time_text;
use crate::commands::format::{printable, table};
use crate::commands::status::table::TableState;
use crate::counts::Counts;
use crate::ledger::{CatalogueState, LastSweep, Record};
use crate::protocol::InForce;
use crate::reading::pipeline::{Overview, Unfinished, lag_of};

impl Overview {
    /// Formats the state for people.
    pub(super) fn as_text(&self, table: Option<&TableState>) -> String {
        let mut lines = vec![
            self.queue_text(),
            self.sweep_text(),
            match self.lag_s {
                Some(seconds) => format!("lag        {seconds} s from the oldest file of the last batch to its end"),
                None => "lag        unknown: no batch was done recently".to_owned(),
            },
            self.definition_text(),
            self.catalogue_text(),
            self.rejected_text(),
            self.aside_text(),
            table.map_or(String::new(), TableState::as_text),
            String::new(),
            self.unfinished_text(),
        ];
        if table.is_none() {
            lines.remove(7);
        }
        if !self.recent_batches.is_empty() {
            lines.push(self.finished_text());
        }
        lines.join("\n")
    }

    fn queue_text(&self) -> String {
        let Backlog { waiting, in_flight, delayed } = self.queue;
        let dead_letters = self.dead_letters.map_or("no queue for dead letters".to_owned(), |count| {
            format!("{count} dead {}", if count == 1 { "letter" } else { "letters" })
        });
        let share = self.in_flight_share * 100.0;
        format!(
            "queue      {waiting} waiting, {delayed} delayed, {in_flight} in flight ({share:.1} % of a queue's limit), \
             {dead_letters}"
        )
    }

    fn sweep_text(&self) -> String {
        let Some(LastSweep { started_at, by, finished_at, swept }) = &self.last_sweep else {
            return "sweep      never".to_owned();
        };
        let ended = finished_at.map_or(String::new(), |at| format!(", last ended {}", time_text(at)));
        let (started_at, by) = (time_text(*started_at), printable(by));
        format!("sweep      began {started_at} by {by}{ended}; found {}, left over {}", swept.found, swept.left_over)
    }

    fn aside_text(&self) -> String {
        if self.aside.is_empty() {
            return "aside      nothing".to_owned();
        }
        let kind = |(kind, count): (&&str, &u64)| format!("{count} {}", kind.replace('_', " "));
        let kinds: Vec<_> = self.aside.iter().map(kind).collect();
        let more = if self.more_aside { " and more" } else { "" };
        format!("aside      {}{more}: music-streams aside lists them", kinds.join(", "))
    }

    fn unfinished_text(&self) -> String {
        if self.unfinished_batches.is_empty() {
            return "No batch is at work.".to_owned();
        }
        let row = |Unfinished { batch, state, owner, opened_at }: &Unfinished| {
            let opened_at = opened_at.map_or(String::new(), time_text);
            vec![batch.to_string(), state.name().to_owned(), opened_at, printable(owner)]
        };
        let rows = self.unfinished_batches.iter().map(row);
        format!("At work\n{}", table(&["BATCH", "STATE", "OPENED", "CONSUMER"], &[true], rows))
    }

    fn finished_text(&self) -> String {
        let headings =
            ["BATCH", "STATE", "ENDED", "LAG S", "FILES", "QUARANTINED", "GONE", "ROWS", "REJECTED", "BYTES"];
        let numbers = [true, false, false, true, true, true, true, true, true, true];
        let row = |record: &Record| {
            let counts = &record.counts;
            let lag = lag_of(record).map_or(String::new(), |lag| lag.to_string());
            let mut row =
                vec![record.batch.to_string(), record.state.name().to_owned(), time_text(record.finished_at), lag];
            let counts = [counts.objects, counts.quarantined, counts.gone, counts.rows, counts.rejected, counts.bytes];
            row.extend(counts.iter().map(ToString::to_string));
            row
        };
        format!("\nFinished\n{}", table(&headings, &numbers, self.recent_batches.iter().map(row)))
    }

    fn definition_text(&self) -> String {
        let InForce { change, digest, since, filling, .. } = &self.definition;
        let digest = digest.as_deref().map_or("the built-in one", |digest| digest.get(..16).unwrap_or(digest));
        let later = |(table, period): (&String, &String)| match filling.contains_key(table) {
            true => format!("; {table} counts from {period}, and its PAST IS INCOMPLETE: a rebuild did not end"),
            false => format!("; {table} counts from {period}"),
        };
        let later: Vec<String> = since.iter().map(later).collect();
        format!("definition {}, change {change}{}", printable(digest), printable(&later.concat()))
    }

    fn catalogue_text(&self) -> String {
        let Some(CatalogueState { keys, loaded_at, refused, .. }) = &self.catalogue else {
            return "catalogue  none was loaded yet".to_owned();
        };
        let since = loaded_at.map_or(String::new(), |at| format!(" since {}", time_text(at)));
        let refused = refused.as_ref().map_or(String::new(), |(reason, at)| {
            format!("; a later one was REFUSED {}: {}", time_text(*at), printable(reason))
        });
        if keys.is_empty() && refused.is_empty() {
            return "catalogue  no file is looked up".to_owned();
        }
        let files: Vec<String> = keys.iter().map(|(file, keys)| format!("{keys} keys in {file}")).collect();
        format!("catalogue  {}{since}{refused}", printable(&files.join(", ")))
    }

    /// The rows and files of the recent batches that could not be counted.
    fn rejected_text(&self) -> String {
        let sum =
            |count: fn(&Counts) -> u64| self.recent_batches.iter().map(|record| count(&record.counts)).sum::<u64>();
        let (rows, rejected) = (sum(|counts| counts.rows), sum(|counts| counts.rejected));
        let (quarantined, suspect) = (sum(|counts| counts.quarantined), sum(|counts| counts.suspect));
        let suspect = match suspect {
            0 => String::new(),
            1 => "; 1 FILE gave no row or lost more than a tenth of them".to_owned(),
            many => format!("; {many} FILES gave no row or lost more than a tenth of them"),
        };
        format!(
            "rejected   {rejected} of {rows} rows, {quarantined} files quarantined, in the last {} batches{suspect}",
            self.recent_batches.len()
        )
    }
}
