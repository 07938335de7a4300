//! DynamoDB: the operations that the program uses, in memory, each with its conditions.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, RwLock};

use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::expression::{Terms, compare, holds, key_condition, projected, update};
use super::item::{Item, Value};
use super::statement::{Statement, Statements};
use super::table::{Counts, Failure, Index, Key, Table};

/// An answer, or the type and the text of an error, with what belongs beside it.
pub type Answer = Result<String, Json>;

/// All tables.
#[derive(Debug, Default)]
pub struct DynamoDb {
    tables: RwLock<HashMap<String, Arc<Mutex<Table>>>>,
    statements: Statements,
}

/// A request of any operation. What an operation does not have stays empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Request {
    table_name: String,
    key: Item,
    item: Item,
    condition_expression: Option<String>,
    update_expression: String,
    projection_expression: Option<String>,
    key_condition_expression: String,
    filter_expression: Option<String>,
    #[serde(flatten)]
    terms: Terms,
    consistent_read: bool,
    scan_index_forward: Option<bool>,
    exclusive_start_key: Option<Item>,
    limit: Option<usize>,
    select: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BatchGet {
    request_items: HashMap<String, Keys>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Keys {
    keys: Vec<Item>,
    #[serde(default)]
    consistent_read: bool,
    projection_expression: Option<String>,
    #[serde(flatten)]
    terms: Terms,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Batch {
    statements: Vec<BatchStatement>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BatchStatement {
    statement: String,
    #[serde(default)]
    parameters: Vec<Value>,
    return_values_on_condition_check_failure: Option<String>,
    #[serde(default)]
    consistent_read: bool,
    next_token: Option<String>,
}

/// Items of a page of `SELECT` where partitions are given as a list.
const SELECTED: usize = 10;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Transaction {
    transact_items: Vec<TransactItem>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
enum TransactItem {
    Put(Request),
    Update(Request),
    Delete(Request),
    ConditionCheck(Request),
}

fn error(kind: &str, message: impl Into<String>) -> Json {
    json!({"__type": format!("com.amazonaws.dynamodb.v20120810#{kind}"), "message": message.into()})
}

fn refusal(failure: Failure) -> Json {
    match failure {
        Failure::Condition(_) => error("ConditionalCheckFailedException", "The conditional request failed"),
        Failure::Invalid(reason) => error("ValidationException", reason),
    }
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Json> {
    serde_json::from_slice(body).map_err(|reason| error("SerializationException", reason.to_string()))
}

impl DynamoDb {
    /// Carries out a request. Returns the answer's body.
    pub fn answer(&self, operation: &str, body: &[u8]) -> Answer {
        match operation {
            "BatchExecuteStatement" => self.batch_execute(read(body)?),
            "BatchGetItem" => self.batch_get(read(body)?),
            "ExecuteStatement" => self.select(read(body)?),
            "GetItem" => self.get(read(body)?),
            "PutItem" | "UpdateItem" | "DeleteItem" => self.write(operation, read(body)?),
            "TransactWriteItems" => self.transact(read(body)?),
            "Query" => self.query(read(body)?),
            "Scan" => self.scan(read(body)?),
            "CreateTable" => self.create(&read::<Json>(body)?),
            "DescribeTable" => {
                let Request { table_name, .. } = read(body)?;
                self.table(&table_name)?;
                Ok(json!({"Table": {"TableName": table_name, "TableStatus": "ACTIVE"}}).to_string())
            }
            _ => Err(error("UnknownOperationException", format!("the stand-in has no {operation}"))),
        }
    }

    /// The counts of each table.
    pub fn counts(&self) -> BTreeMap<String, Counts> {
        let tables = self.tables.read().unwrap();
        tables.iter().map(|(name, table)| (name.clone(), table.lock().unwrap().counts.clone())).collect()
    }

    /// Begins all counts anew.
    pub fn reset(&self) {
        for table in self.tables.read().unwrap().values() {
            table.lock().unwrap().counts = Counts::default();
        }
    }

    fn table(&self, name: &str) -> Result<Arc<Mutex<Table>>, Json> {
        let found = self.tables.read().unwrap().get(name).cloned();
        found.ok_or_else(|| error("ResourceNotFoundException", format!("Requested resource not found: Table: {name}")))
    }

    fn create(&self, body: &Json) -> Answer {
        let keys = |schema: &Json| -> Vec<String> {
            let schema = schema.as_array().into_iter().flatten();
            schema.filter_map(|key| Some(key["AttributeName"].as_str()?.to_owned())).collect()
        };
        let schema = keys(&body["KeySchema"]);
        let (Some(name), [hash, range]) = (body["TableName"].as_str(), schema.as_slice()) else {
            return Err(error("ValidationException", "the stand-in has tables with two keys"));
        };
        let index = |index: &Json| {
            let [hash, range] = <[String; 2]>::try_from(keys(&index["KeySchema"])).ok()?;
            let names = index["Projection"]["NonKeyAttributes"].as_array().into_iter().flatten();
            Some(Index { hash, range, projected: names.filter_map(|name| Some(name.as_str()?.to_owned())).collect() })
        };
        let indexes = body["GlobalSecondaryIndexes"].as_array().into_iter().flatten().filter_map(index).collect();
        let table = Arc::new(Mutex::new(Table::new(hash.clone(), range.clone(), indexes)));
        self.tables.write().unwrap().insert(name.to_owned(), table);
        Ok(json!({"TableDescription": {"TableName": name, "TableStatus": "ACTIVE"}}).to_string())
    }

    fn get(&self, request: Request) -> Answer {
        let table = self.table(&request.table_name)?;
        let mut table = table.lock().unwrap();
        let key = table.key_of(&request.key).map_err(refusal)?;
        let item = table.read(&key, request.consistent_read);
        Ok(item.map_or_else(|| "{}".to_owned(), |item| json!({"Item": *item}).to_string()))
    }

    fn batch_get(&self, BatchGet { request_items }: BatchGet) -> Answer {
        let mut found: HashMap<&String, Vec<Arc<Item>>> = HashMap::new();
        for (name, keys) in &request_items {
            let table = self.table(name)?;
            let mut table = table.lock().unwrap();
            let names = keys.projection_expression.as_ref().map(|names| projected(names, &keys.terms));
            let of_table = found.entry(name).or_default();
            for key in &keys.keys {
                let key = table.key_of(key).map_err(refusal)?;
                let Some(item) = table.read(&key, keys.consistent_read) else { continue };
                of_table.push(match &names {
                    Some(names) => Arc::new(only(&item, names)),
                    None => item,
                });
            }
        }
        let of_table = |items: &Vec<Arc<Item>>| {
            let items: Vec<String> = items.iter().map(|item| serde_json::to_string(&**item).unwrap()).collect();
            items.join(",")
        };
        let tables: Vec<String> =
            found.iter().map(|(name, items)| format!("{}:[{}]", json!(name), of_table(items))).collect();
        Ok(format!("{{\"Responses\":{{{}}},\"UnprocessedKeys\":{{}}}}", tables.join(",")))
    }

    fn query(&self, request: Request) -> Answer {
        let table = self.table(&request.table_name)?;
        let mut table = table.lock().unwrap();
        let (hash, also) = key_condition(&request.key_condition_expression, &request.terms)
            .map_err(|reason| error("ValidationException", reason))?;
        let hash = hash.text().unwrap_or_default().to_owned();
        found(&mut table, Some(&hash), also.as_deref(), &request)
    }

    fn scan(&self, request: Request) -> Answer {
        let table = self.table(&request.table_name)?;
        found(&mut table.lock().unwrap(), None, None, &request)
    }

    fn write(&self, operation: &str, request: Request) -> Answer {
        let table = self.table(&request.table_name)?;
        let mut table = table.lock().unwrap();
        change(&mut table, operation, &request, false).map_err(refusal)?;
        Ok("{}".to_owned())
    }

    /// All or none, of one table.
    fn transact(&self, Transaction { transact_items }: Transaction) -> Answer {
        let item = |item| match item {
            TransactItem::Put(request) => ("PutItem", request),
            TransactItem::Update(request) => ("UpdateItem", request),
            TransactItem::Delete(request) => ("DeleteItem", request),
            TransactItem::ConditionCheck(request) => ("ConditionCheck", request),
        };
        let items: Vec<(&str, Request)> = transact_items.into_iter().map(item).collect();
        let table = self.table(items.first().map_or("", |(_, request)| &request.table_name))?;
        let mut table = table.lock().unwrap();
        let mut reasons = Vec::new();
        for (_, request) in &items {
            let key = table.key_of(if request.key.is_empty() { &request.item } else { &request.key });
            let there = table.peek(&key.map_err(refusal)?);
            let holds = request.condition_expression.as_ref().map(|it| holds(it, &request.terms, there.as_deref()));
            let holds = holds.transpose().map_err(|reason| error("ValidationException", reason))?.unwrap_or(true);
            reasons.push(json!({"Code": if holds { "None" } else { "ConditionalCheckFailed" }}));
        }
        if reasons.iter().any(|reason| reason["Code"] != "None") {
            let mut cancelled = error("TransactionCanceledException", "Transaction cancelled");
            cancelled["CancellationReasons"] = Json::Array(reasons);
            return Err(cancelled);
        }
        for (operation, request) in items.iter().filter(|(operation, _)| *operation != "ConditionCheck") {
            change(&mut table, operation, request, true).map_err(refusal)?;
        }
        Ok("{}".to_owned())
    }

    fn batch_execute(&self, Batch { statements }: Batch) -> Answer {
        if statements.is_empty() || statements.len() > 25 {
            return Err(error("ValidationException", "a request has 1 to 25 statements"));
        }
        let answers: Vec<String> = statements.into_iter().map(|statement| self.execute(statement)).collect();
        Ok(format!("{{\"Responses\":[{}]}}", answers.join(",")))
    }

    fn execute(&self, statement: BatchStatement) -> String {
        let with_item = statement.return_values_on_condition_check_failure.as_deref() == Some("ALL_OLD");
        let failed = |code: &str, message: &str, item: Option<Arc<Item>>| match item {
            Some(item) => json!({"Error": {"Code": code, "Message": message, "Item": *item}}).to_string(),
            None => json!({"Error": {"Code": code, "Message": message}}).to_string(),
        };
        let read = match self.statements.read(&statement.statement) {
            Ok(read) => read,
            Err(reason) => return failed("ValidationError", &reason, None),
        };
        let name = read.table();
        let Ok(table) = self.table(name) else { return failed("ResourceNotFound", "Table not found", None) };
        let is_insert = matches!(*read, Statement::Insert { .. });
        match carry_out(&mut table.lock().unwrap(), &read, statement.parameters) {
            Ok(()) => format!("{{\"TableName\":{}}}", json!(name)),
            Err(Failure::Condition(_)) if is_insert => {
                failed("DuplicateItem", "Duplicate primary key exists in table", None)
            }
            Err(Failure::Condition(item)) => {
                failed("ConditionalCheckFailed", "The conditional request failed", item.filter(|_| with_item))
            }
            Err(Failure::Invalid(reason)) => failed("ValidationError", &reason, None),
        }
    }
}

impl DynamoDb {
    /// Reads the items of some partitions, a few at a time.
    fn select(&self, statement: BatchStatement) -> Answer {
        let invalid = |reason: String| error("ValidationException", reason);
        let read = self.statements.read(&statement.statement).map_err(invalid)?;
        let Statement::Select { table, names } = &*read else { return Err(invalid("only SELECT".to_owned())) };
        let table = self.table(table)?;
        let mut table = table.lock().unwrap();
        let mut items = Vec::new();
        for partition in statement.parameters.iter().filter_map(Value::text) {
            items.extend(table.read_many(Some(partition), None, usize::MAX, statement.consistent_read).0);
        }
        let from: usize = statement.next_token.and_then(|token| token.parse().ok()).unwrap_or(0);
        let page: Vec<Item> = items.iter().skip(from).take(SELECTED).map(|item| only(item, names)).collect();
        let mut answer = json!({"Items": page});
        if from + SELECTED < items.len() {
            answer["NextToken"] = json!((from + SELECTED).to_string());
        }
        Ok(answer.to_string())
    }
}

fn only(item: &Item, names: &[String]) -> Item {
    names.iter().filter_map(|name| Some((name.clone(), item.get(name)?.clone()))).collect()
}

/// Reads a page of a partition, or of the table, and answers with what a filter leaves of it.
fn found(table: &mut Table, hash: Option<&str>, also: Option<&str>, request: &Request) -> Answer {
    let invalid = |reason: String| error("ValidationException", reason);
    let after = request.exclusive_start_key.as_ref().map(|key| table.key_of(key)).transpose().map_err(refusal)?;
    let most = request.limit.unwrap_or(usize::MAX);
    let (mut items, more) = table.read_many(hash, after.as_ref(), most, request.consistent_read);
    if request.scan_index_forward == Some(false) {
        items.reverse();
    }
    let last = items.last().filter(|_| more).map(|item| only(item, &[table.hash.clone(), table.range.clone()]));
    let mut left = Vec::new();
    for item in items {
        let mut conditions = [also, request.filter_expression.as_deref()].into_iter().flatten();
        if conditions.try_fold(true, |all, it| Ok(all && holds(it, &request.terms, Some(&item))?)).map_err(invalid)? {
            left.push(match &request.projection_expression {
                Some(names) => only(&item, &projected(names, &request.terms)),
                None => Item::clone(&item),
            });
        }
    }
    let mut answer = json!({"Count": left.len(), "ScannedCount": left.len()});
    if request.select.as_deref() != Some("COUNT") {
        answer["Items"] = json!(left);
    }
    if let Some(last) = last {
        answer["LastEvaluatedKey"] = json!(last);
    }
    Ok(answer.to_string())
}

/// Carries out a single write on its condition.
fn change(table: &mut Table, operation: &str, request: &Request, transactional: bool) -> Result<(), Failure> {
    let key: Key = table.key_of(if operation == "PutItem" { &request.item } else { &request.key })?;
    table.write(&key, transactional, |there| {
        if let Some(condition) = &request.condition_expression
            && !holds(condition, &request.terms, there.map(|item| &**item))?
        {
            return Err(Failure::Condition(None));
        }
        match operation {
            "PutItem" => Ok(Some(request.item.clone())),
            "UpdateItem" => {
                let mut next = there.map_or_else(|| request.key.clone(), |item| Item::clone(item));
                update(&request.update_expression, &request.terms, &mut next)?;
                Ok(Some(next))
            }
            _ => Ok(None),
        }
    })
}

/// Carries out a statement with its parameters.
fn carry_out(table: &mut Table, statement: &Statement, parameters: Vec<Value>) -> Result<(), Failure> {
    let mut parameters = parameters.into_iter();
    let mut parameter = || parameters.next().ok_or("Number of parameters in request and statement don't match.");
    match statement {
        Statement::Select { .. } => Err("a batch of the program writes".into()),
        Statement::Insert { names, .. } => {
            let mut item = Item::new();
            for name in names {
                item.insert(name.clone(), parameter()?);
            }
            let key = table.key_of(&item)?;
            table.write(&key, false, |there| match there {
                Some(_) => Err(Failure::Condition(None)),
                None => Ok(Some(item)),
            })
        }
        Statement::Update { set, removed, conditions, .. } => {
            let (mut changes, mut wanted) = (Item::new(), Vec::new());
            for name in set {
                changes.insert(name.clone(), parameter()?);
            }
            let mut key = Item::new();
            for (name, comparison) in conditions {
                let value = parameter()?;
                if comparison == "=" && (*name == table.hash || *name == table.range) {
                    key.insert(name.clone(), value);
                } else {
                    wanted.push((name, comparison, value));
                }
            }
            let key = table.key_of(&key)?;
            table.write(&key, false, |there| {
                let there = there.ok_or(Failure::Condition(None))?;
                for (name, comparison, value) in &wanted {
                    let is_so = there.get(*name).map(|there| compare(there, comparison, value)).transpose()?;
                    if is_so != Some(true) {
                        return Err(Failure::Condition(None));
                    }
                }
                let mut next = Item::clone(there);
                next.append(&mut changes);
                removed.iter().for_each(|name| drop(next.remove(name)));
                Ok(Some(next))
            })
        }
    }
}
