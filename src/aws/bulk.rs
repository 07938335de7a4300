//! Bulk requests: many items in one request, each with an outcome of its own.
//!
//! DynamoDB carries out 25 statements in a request, S3 deletes 1,000 objects in one. Neither is a transaction: some
//! items may succeed while others fail. [`settle_each`] asks until every item has its outcome, and a failure costs only
//! the item that it is about.

use tokio_util::sync::CancellationToken;

use crate::aws::error::{AwsError, Kind};
use crate::aws::retry::retry_until;

/// The outcome of each item of a request, in the order of the items.
pub type Outcomes<T> = Vec<Result<T, AwsError>>;

/// Returns true if an item failed because the service asks to slow down.
pub fn is_throttled<T>(outcome: &Result<T, AwsError>) -> bool {
    matches!(outcome, Err(error) if error.kind == Kind::Throttled)
}

/// Asks `request` about all items together, and about some of them again until each has its outcome:
///
/// * Items that fail for now are asked about again, without the others, after growing pauses.
/// * A request that fails as a whole for now is asked again as it is. Any of its items may have happened, so `request`
///   must be safe to repeat.
/// * A request that is refused as a whole is halved, until the item is found that is the reason.
///
/// Returns the outcome of each item in their order: errors are permanent, and of that item alone. Fails as a whole when
/// the fault cannot lie with an item, or on `cancel`.
pub async fn settle_each<I, T>(
    items: &[I],
    cancel: &CancellationToken,
    request: impl AsyncFn(&[&I]) -> Result<Outcomes<T>, AwsError>,
) -> Result<Outcomes<T>, AwsError> {
    let mut outcomes: Vec<Option<Result<T, AwsError>>> = items.iter().map(|_| None).collect();
    let mut open: Vec<usize> = (0..items.len()).collect();
    retry_until(cancel, async || {
        let (mut groups, mut delay) = (vec![std::mem::take(&mut open)], None);
        while let Some(mut group) = groups.pop().filter(|group| !group.is_empty()) {
            let asked: Vec<&I> = group.iter().map(|&index| &items[index]).collect();
            match request(&asked).await {
                Ok(answers) => {
                    for (index, answer) in group.into_iter().zip(answers) {
                        match answer {
                            Err(error) if error.kind.is_transient() => {
                                open.push(index);
                                delay = Some(error);
                            }
                            Err(error) if !error.kind.may_concern_one_resource() => return Err(error),
                            answer => outcomes[index] = Some(answer),
                        }
                    }
                }
                Err(error) if error.kind.is_transient() => {
                    open.extend(group);
                    delay = Some(error);
                }
                Err(error) if !error.kind.may_concern_one_resource() => return Err(error),
                Err(error) if group.len() == 1 => outcomes[group[0]] = Some(Err(error)),
                Err(_) => {
                    let rest = group.split_off(group.len() / 2);
                    groups.extend([rest, group]);
                }
            }
        }
        delay.map_or(Ok(()), Err)
    })
    .await?;
    Ok(outcomes.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    fn error(kind: Kind) -> AwsError {
        AwsError { operation: "s3:DeleteObject", resource: "x".into(), kind, cause: String::new() }
    }

    /// Asks about items, each with the answers that it gets one after another. Returns the requests and the outcomes.
    async fn settle(
        answers: Vec<Vec<Option<Kind>>>,
        refused_with: Option<usize>,
    ) -> (Vec<Vec<usize>>, Vec<Option<Kind>>) {
        let items: Vec<usize> = (0..answers.len()).collect();
        let (answers, requests) = (RefCell::new(answers), RefCell::new(Vec::new()));
        let never = CancellationToken::new();
        let outcomes = settle_each(&items, &never, async |items| {
            let items: Vec<usize> = items.iter().map(|&&item| item).collect();
            requests.borrow_mut().push(items.clone());
            if refused_with.is_some_and(|culprit| items.contains(&culprit)) {
                return Err(error(Kind::Refused));
            }
            let mut answers = answers.borrow_mut();
            Ok(items.iter().map(|&item| answers[item].remove(0).map_or(Ok(()), |kind| Err(error(kind)))).collect())
        });
        let outcomes = outcomes.await.unwrap().into_iter().map(|outcome| outcome.err().map(|error| error.kind));
        (requests.into_inner(), outcomes.collect())
    }

    #[tokio::test]
    async fn only_what_fails_for_now_is_asked_about_again() {
        let answers = vec![
            vec![None],
            vec![Some(Kind::Throttled), Some(Kind::Transient), None],
            vec![Some(Kind::Denied)],
            vec![Some(Kind::Throttled), None],
        ];
        let (requests, outcomes) = settle(answers, None).await;
        assert_eq!(requests, [vec![0, 1, 2, 3], vec![1, 3], vec![1]]);
        assert_eq!(outcomes, [None, None, Some(Kind::Denied), None]);
    }

    #[tokio::test]
    async fn a_request_that_is_refused_as_a_whole_is_halved_until_its_culprit_is_found() {
        let (requests, outcomes) = settle(vec![vec![None]; 8], Some(5)).await;
        let all: Vec<usize> = (0..8).collect();
        assert_eq!(requests, [all, vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![4, 5], vec![4], vec![5], vec![6, 7]]);
        assert_eq!(outcomes[5], Some(Kind::Refused));
        assert_eq!(outcomes.iter().flatten().count(), 1);
    }

    #[tokio::test]
    async fn a_request_without_an_answer_is_repeated_and_its_outcomes_are_those_of_the_repetition() {
        let (asked, never) = (Cell::new(0), CancellationToken::new());
        let outcomes = settle_each(&[7, 8, 9], &never, async |items| {
            asked.set(asked.get() + 1);
            if asked.get() < 3 {
                return Err(error(Kind::Transient));
            }
            Ok(items.iter().map(|&&item| Ok(item)).collect())
        });
        let outcomes: Result<Vec<i32>, AwsError> = outcomes.await.unwrap().into_iter().collect();
        assert_eq!((outcomes.unwrap(), asked.get()), (vec![7, 8, 9], 3));
    }

    #[tokio::test]
    async fn what_concerns_no_item_ends_it_as_a_whole_and_so_does_the_deadline() {
        let cancel = CancellationToken::new();
        let asked = async |kind| {
            settle_each(&[1, 2], &cancel, async |_| Err::<Outcomes<()>, _>(error(kind))).await.unwrap_err().kind
        };
        assert_eq!(asked(Kind::MissingResource).await, Kind::MissingResource);
        cancel.cancel();
        assert_eq!(asked(Kind::Throttled).await, Kind::Throttled);
        let nothing = settle_each(&[(); 0], &cancel, async |_| Err::<Outcomes<()>, _>(error(Kind::Refused))).await;
        assert!(nothing.unwrap().is_empty(), "nothing is asked about nothing");
    }
}
