//! Rankings over days, from each day's top list: exact wherever it can be shown, else with a bound.
//!
//! Pure. Daily lists cannot be added up: the hundred-and-first of every day may be the first of the month. But they
//! bound what the others can have. This is Fagin's threshold algorithm without random access
//! (<https://doi.org/10.1016/S0022-0000(03)00026-6>), with one round of look-ups:
//!
//! * An item that a full list lacks has at most what the list's last entry has; one that a list with room lacks has
//!   nothing.
//! * So each item that is listed on any day is known from below and from above, and one that is never listed is
//!   bounded from above.
//! * The items with the greatest upper bounds are looked up, which makes them exact. If nothing else can reach the last
//!   one of them that is asked for, the ranking is exact.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::plan::reports::Merge;

/// The figures of one period's list, the greatest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed<'l> {
    /// Ids with their figures.
    pub entries: Vec<(&'l str, i64)>,
    /// True if the list has as many entries as it keeps: there may be items that it lacks.
    pub is_full: bool,
}

impl Listed<'_> {
    /// The most that an item has which the list lacks; `None` if it has nothing.
    fn others(&self) -> Option<i64> {
        self.entries.last().filter(|_| self.is_full).map(|&(_, figure)| figure)
    }
}

/// Items with an upper bound each, the greatest first, and the bound of everything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidates {
    /// Ids that have to be looked up.
    pub ids: Vec<String>,
    /// The most that any other item has; `None` if there is no other.
    pub others: Option<i64>,
}

/// Returns the `most` items with the greatest upper bounds.
pub fn candidates(lists: &[Listed<'_>], merge: Merge, most: usize) -> Candidates {
    let join = |sum: Option<i64>, figure: i64| {
        Some(match sum {
            None => figure,
            Some(mut sum) => {
                merge.merge(&mut sum, figure);
                sum
            }
        })
    };
    // What an item without any entry has at most; of each id, that and what its entries make of it.
    let never = lists.iter().filter_map(Listed::others).fold(None, join);
    let mut bounds: HashMap<&str, Option<i64>> = HashMap::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (place, list) in lists.iter().enumerate() {
        for &(id, figure) in &list.entries {
            let seen = places.insert(id, place + 1).unwrap_or(0);
            let bound = bounds.entry(id).or_default();
            let between = lists[seen..place].iter().filter_map(Listed::others);
            *bound = join(between.fold(*bound, join), figure);
        }
    }
    let mut ranked: Vec<(i64, &str)> = bounds
        .into_iter()
        .filter_map(|(id, bound)| {
            let seen = places.get(id).copied().unwrap_or(0);
            Some((lists[seen..].iter().filter_map(Listed::others).fold(bound, join)?, id))
        })
        .collect();
    ranked.sort_unstable_by_key(|&(bound, id)| (Reverse(bound), id));
    let beyond = ranked.get(most).map(|&(bound, _)| bound);
    ranked.truncate(most);
    Candidates { ids: ranked.into_iter().map(|(_, id)| id.to_owned()).collect(), others: beyond.max(never) }
}

/// Puts looked-up items, the greatest first and equal ones by id, and keeps as many as asked for. Returns the most by
/// which another item can exceed the last one that is kept; `None` if the ranking is exact.
pub fn ranked(known: &mut Vec<(String, i64)>, others: Option<i64>, asked: usize) -> Option<i64> {
    known.sort_by(|(one_id, one), (other_id, other)| other.cmp(one).then_with(|| one_id.cmp(other_id)));
    known.truncate(asked);
    let others = others?;
    match known.last().filter(|_| known.len() == asked) {
        // An equal one could come before it by its id.
        Some(&(_, last)) => (others >= last).then(|| others.saturating_sub(last)),
        None => Some(others),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type Days = Vec<BTreeMap<u8, i64>>;

    /// The ranking of everything, by addition.
    fn all(days: &Days, merge: Merge) -> Vec<(String, i64)> {
        let mut sums: BTreeMap<String, i64> = BTreeMap::new();
        for (&id, &figure) in days.iter().flatten() {
            sums.entry(format!("{id:03}")).and_modify(|sum| merge.merge(sum, figure)).or_insert(figure);
        }
        let mut sums: Vec<_> = sums.into_iter().collect();
        sums.sort_by_key(|(id, figure)| (Reverse(*figure), id.clone()));
        sums
    }

    fn days() -> impl Strategy<Value = Days> {
        // Some items are great on all days, as in life; else nothing is ever exact.
        let day = prop::collection::btree_map(0..60_u8, 0..40_i64, 0..50)
            .prop_map(|day| day.into_iter().map(|(id, figure)| (id, figure + 400 / (1 + i64::from(id)))).collect());
        prop::collection::vec(day, 1..8)
    }

    proptest! {
        #[test]
        fn a_ranking_is_right_where_it_says_so_and_within_its_bound_elsewhere(
            days in days(), keep in 1..30_usize, asked in 1..8_usize, most in 1..20_usize, is_max in any::<bool>(),
        ) {
            let merge = if is_max { Merge::Greatest } else { Merge::Add };
            let names: Vec<String> = (0..60).map(|id| format!("{id:03}")).collect();
            let lists: Vec<Listed> = days.iter().map(|day| {
                let mut entries: Vec<(&str, i64)> =
                    day.iter().map(|(&id, &figure)| (names[usize::from(id)].as_str(), figure)).collect();
                entries.sort_by_key(|&(id, figure)| (Reverse(figure), id));
                entries.truncate(keep);
                let is_full = entries.len() == keep;
                Listed { entries, is_full }
            }).collect();
            let Candidates { ids, others } = candidates(&lists, merge, most.max(asked));
            let all = all(&days, merge);
            let of: BTreeMap<&str, i64> = all.iter().map(|(id, figure)| (id.as_str(), *figure)).collect();
            let mut known: Vec<(String, i64)> = ids.iter().map(|id| (id.clone(), of[id.as_str()])).collect();
            let missing = ranked(&mut known, others, asked);
            match missing {
                None => prop_assert_eq!(&known[..], &all[..asked.min(all.len())]),
                Some(bound) => {
                    let last = known.last().filter(|_| known.len() == asked).map_or(0, |&(_, figure)| figure);
                    for (id, figure) in all.iter().filter(|(id, _)| !known.iter().any(|(one, _)| one == id)) {
                        prop_assert!(*figure <= last + bound, "{} has {}, more than {} + {}", id, figure, last, bound);
                    }
                }
            }
        }
    }

    #[test]
    fn one_day_with_room_is_exact_and_a_full_one_is_not_beyond_its_end() {
        let list = |is_full| [Listed { entries: vec![("a", 5), ("b", 3)], is_full }];
        let exact = candidates(&list(false), Merge::Add, 10);
        assert_eq!(exact, Candidates { ids: vec!["a".into(), "b".into()], others: None });
        let full = candidates(&list(true), Merge::Add, 10);
        assert_eq!(full.others, Some(3));
        let mut known = vec![("b".to_owned(), 3), ("a".to_owned(), 5)];
        assert_eq!(ranked(&mut known.clone(), full.others, 1), None);
        assert_eq!(ranked(&mut known, full.others, 3), Some(3), "a third one may have as much as the last");
    }
}
