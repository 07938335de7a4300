//! Deleting objects: those of our own by key, those of a producer in exactly the content that was read.
//!
//! Up to 1,000 contents are deleted by one request, each by version id or on condition of its eTag, and each has an
//! answer of its own. A service may take the conditions and not look at them, as LocalStack does. So it is tried once
//! whether it does, with an object of our own; where it does not, the program looks at each object right before.
//!
//! Formats and limits: <https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html>,
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-deletes.html>. Covered by `tests/pipeline`
//! (`refusals.rs`, `edges.rs`) and `tests/chaos`.

use std::collections::HashMap;

use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use fail::fail_point;
use futures::{StreamExt, TryStreamExt};

use crate::aws::bulk::{Outcomes, is_throttled};
use crate::aws::error::{AwsError, Kind, aws_error, kind_of};
use crate::aws::s3::{Bucket, CONCURRENT_OBJECTS};
use crate::layout::BATCHES;
use crate::object::{ObjectId, Version};

/// Objects of one request.
pub const DELETES_PER_REQUEST: usize = 1000;
const DELETE: &str = "s3:DeleteObject";

/// The answer about one object of a request; `None` if there is none.
type Answer = Option<Result<(), AwsError>>;

impl Bucket {
    /// Deletes an object of our own if it exists.
    pub async fn delete(&self, key: &str) -> Result<(), AwsError> {
        let delete = self.client.delete_object().bucket(&self.name).key(key).send().await;
        delete.map(drop).map_err(aws_error(DELETE, self.url(key)))
    }

    /// Deletes every object under a prefix of our own. May be repeated.
    pub async fn delete_prefix(&self, prefix: &str) -> Result<(), AwsError> {
        loop {
            let Some(page) = self.pages(prefix, |list| list).try_next().await? else { return Ok(()) };
            let keys: Vec<_> = page
                .contents()
                .iter()
                .filter_map(|object| ObjectIdentifier::builder().key(object.key()?).build().ok())
                .collect();
            let Ok(delete) = Delete::builder().set_objects(Some(keys)).quiet(true).build() else { return Ok(()) };
            if delete.objects().is_empty() {
                return Ok(());
            }
            let output = self.client.delete_objects().bucket(&self.name).delete(delete).send().await;
            let output = output.map_err(aws_error(DELETE, self.url(prefix)))?;
            if let Some(failed) = output.errors().first() {
                let cause = failed.message().unwrap_or("refused").to_owned();
                return Err(self.delete_error(failed.key().unwrap_or(prefix), Kind::Transient, cause));
            }
        }
    }

    /// Deletes exactly this content. One that is gone, or was replaced, counts as deleted.
    pub async fn delete_exactly(&self, object: &ObjectId) -> Result<(), AwsError> {
        let is_conditional = self.deletes_conditionally().await?;
        if !is_conditional && !self.is_still_there(object).await? {
            return Ok(());
        }
        self.delete_one(object, is_conditional).await
    }

    /// Deletes exactly these contents of the bucket, at most [`DELETES_PER_REQUEST`]. One that is gone, or was
    /// replaced, counts as deleted. Returns the outcome of each, in their order, or the error of a request as a whole,
    /// after which any of them may have been deleted. May be repeated.
    pub async fn delete_each(&self, objects: &[&ObjectId]) -> Result<Outcomes<()>, AwsError> {
        if let [object] = objects {
            return Ok(vec![self.delete_exactly(object).await]);
        }
        if self.deletes_conditionally().await? {
            return self.delete_together(objects, true).await;
        }
        let mut outcomes = Vec::with_capacity(objects.len());
        // Few at a time, so that little happens between the look and the deletion.
        for group in objects.chunks(CONCURRENT_OBJECTS) {
            outcomes.extend(self.look_and_delete(group).await?);
        }
        Ok(outcomes)
    }

    async fn look_and_delete(&self, objects: &[&ObjectId]) -> Result<Outcomes<()>, AwsError> {
        let looks = objects.iter().map(|object| self.is_still_there(object));
        let looks: Outcomes<bool> = futures::stream::iter(looks).buffered(CONCURRENT_OBJECTS).collect().await;
        let present = objects.iter().zip(&looks).filter(|(_, look)| matches!(look, Ok(true)));
        let present: Vec<&ObjectId> = present.map(|(&object, _)| object).collect();
        let mut deleted = self.delete_together(&present, false).await?.into_iter();
        let outcome = |look: Result<bool, AwsError>| if look? { deleted.next().unwrap_or(Ok(())) } else { Ok(()) };
        Ok(looks.into_iter().map(outcome).collect())
    }

    async fn delete_together(&self, objects: &[&ObjectId], is_conditional: bool) -> Result<Outcomes<()>, AwsError> {
        let request = self.request_deletes(objects, is_conditional);
        let answers = self.pace.call_of_many(request, |answers| answers.iter().flatten().any(is_throttled)).await?;
        fail_point!("deleted");
        let outcomes = futures::stream::iter(objects.iter().zip(answers)).map(async |(object, answer)| match answer {
            Some(answer) => unless_gone(answer),
            // A path can express what XML cannot. And XML does not return every key as it was sent: a carriage return,
            // for one, comes back as a line feed.
            None => self.delete_one(object, is_conditional).await,
        });
        Ok(outcomes.buffered(CONCURRENT_OBJECTS).collect().await)
    }

    /// Makes one request about contents whose keys XML can express: those without a version id are deleted on condition
    /// of the eTag if the request `is_conditional`, and whatever they are if not.
    async fn request_deletes<'a>(
        &self,
        objects: &[&'a ObjectId],
        is_conditional: bool,
    ) -> Result<Vec<Answer>, AwsError> {
        let name = match objects {
            [] => return Ok(Vec::new()),
            [object] => object.key.clone(),
            [object, others @ ..] => format!("{} and {} others", object.key, others.len()),
        };
        let identifier = |object: &&ObjectId| {
            let identifier = ObjectIdentifier::builder().key(&object.key);
            match &object.version {
                Version::Id(id) => identifier.version_id(id),
                Version::ETag(etag) if is_conditional => identifier.e_tag(format!("\"{etag}\"")),
                Version::ETag(_) => identifier,
            }
            .build()
        };
        let expressible = objects.iter().filter(|object| object.key.chars().all(is_of_xml));
        let delete = expressible.map(identifier).collect::<Result<Vec<_>, _>>();
        let delete = delete.and_then(|objects| Delete::builder().set_objects(Some(objects)).build());
        let delete = delete.map_err(|error| self.delete_error(&name, Kind::Refused, error.to_string()))?;
        let mut answers: Vec<Answer> = objects.iter().map(|_| None).collect();
        if delete.objects().is_empty() {
            return Ok(answers);
        }
        let output = self.client.delete_objects().bucket(&self.name).delete(delete).send().await;
        let output = output.map_err(aws_error(DELETE, self.url(&name)))?;
        let place = |(place, object): (usize, &&'a ObjectId)| match &object.version {
            Version::Id(id) => ((object.key.as_str(), Some(id.as_str())), place),
            Version::ETag(_) => ((object.key.as_str(), None), place),
        };
        let places: HashMap<(&str, Option<&str>), usize> = objects.iter().enumerate().map(place).collect();
        for deleted in output.deleted() {
            if let Some(&place) = places.get(&(deleted.key().unwrap_or_default(), deleted.version_id())) {
                answers[place] = Some(Ok(()));
            }
        }
        for error in output.errors() {
            let (key, code) = (error.key().unwrap_or_default(), error.code().unwrap_or_default());
            let cause = format!("{code}: {}", error.message().unwrap_or_default());
            if let Some(&place) = places.get(&(key, error.version_id())) {
                answers[place] = Some(Err(self.delete_error(key, kind_of(code, None), cause)));
            }
        }
        Ok(answers)
    }

    async fn delete_one(&self, object: &ObjectId, is_conditional: bool) -> Result<(), AwsError> {
        let delete = self.client.delete_object().bucket(&object.bucket).key(&object.key);
        let delete = match &object.version {
            Version::Id(id) => delete.version_id(id),
            Version::ETag(etag) if is_conditional => delete.if_match(format!("\"{etag}\"")),
            Version::ETag(_) => delete,
        };
        let url = self.url(&object.key);
        let deleted = async { delete.send().await.map(drop).map_err(aws_error(DELETE, url)) };
        let deleted = self.pace.call(deleted).await;
        fail_point!("deleted");
        unless_gone(deleted)
    }

    /// Returns true if a content is there as far as a look can tell, and always where a version id will tell.
    async fn is_still_there(&self, object: &ObjectId) -> Result<bool, AwsError> {
        match object.version {
            Version::Id(_) => Ok(true),
            Version::ETag(_) => Ok(self.pace.call(self.last_modified(object)).await?.is_some()),
        }
    }

    /// Returns true if the service looks at the condition of each deletion in a request. Tried once in the life of a
    /// process, with an object of our own: it must survive a wrong condition, and not survive the right one.
    pub(super) async fn deletes_conditionally(&self) -> Result<bool, AwsError> {
        let attempt = async || {
            let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), &self.name);
            let key = format!("{BATCHES}check-{random:016x}");
            self.put(&key, b"Written to see on which conditions it is deleted.".to_vec(), "text/plain").await?;
            let etag = self.describe_current(&key).await?.and_then(|current| current.etag).unwrap_or_default();
            let request = async |etag: &str| {
                let version = Version::ETag(etag.trim_matches('"').to_owned());
                let object = ObjectId { bucket: self.name.clone(), key: key.clone(), version };
                match self.request_deletes(&[&object], true).await?.pop().flatten() {
                    Some(Err(error)) if error.kind == Kind::Condition => Ok(false),
                    Some(Err(error)) if error.kind != Kind::NotFound => Err(error),
                    _ => Ok(true),
                }
            };
            let is_conditional = !request(&"0".repeat(32)).await? && request(&etag).await?;
            if !is_conditional {
                self.delete(&key).await?;
                tracing::warn!("this S3 does not delete conditionally; looking at the eTag before each delete instead");
            }
            Ok(is_conditional)
        };
        self.is_conditional.get_or_try_init(attempt).await.copied()
    }

    fn delete_error(&self, key: &str, kind: Kind, cause: String) -> AwsError {
        AwsError { operation: DELETE, resource: self.url(key), kind, cause }
    }
}

/// Returns true for a character that XML can express: <https://www.w3.org/TR/xml/#charsets>.
fn is_of_xml(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..)
}

/// Turns an error into success if it says that the content is gone or was replaced.
fn unless_gone(deleted: Result<(), AwsError>) -> Result<(), AwsError> {
    deleted.or_else(|error| if matches!(error.kind, Kind::NotFound | Kind::Condition) { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_characters_of_a_key_cannot_be_said_in_xml() {
        assert!("incoming/a b+é%\t\r\n\u{7f}\u{fffd}𝄞.csv".chars().all(is_of_xml));
        assert!(['\0', '\u{1}', '\u{b}', '\u{1f}', '\u{fffe}', '\u{ffff}'].into_iter().all(|it| !is_of_xml(it)));
    }
}
