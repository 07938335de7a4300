//! PartiQL statements, in the forms that the program writes: `INSERT` of a whole item, `UPDATE` on a condition,
//! `SELECT` of the items of some partitions.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use super::expression::{Unreadable, tokens};

/// A statement that was read. Each name stands for the parameter at its place.
#[derive(Debug)]
pub enum Statement {
    Insert { table: String, names: Vec<String> },
    Update { table: String, set: Vec<String>, removed: Vec<String>, conditions: Vec<(String, String)> },
    Select { table: String, names: Vec<String> },
}

/// Statements by their text, which is the same for all items of a report.
#[derive(Debug, Default)]
pub struct Statements(RwLock<HashMap<String, Arc<Statement>>>);

impl Statements {
    pub fn read(&self, text: &str) -> Result<Arc<Statement>, Unreadable> {
        if let Some(known) = self.0.read().unwrap().get(text) {
            return Ok(known.clone());
        }
        let statement = Arc::new(parse(text)?);
        self.0.write().unwrap().insert(text.to_owned(), statement.clone());
        Ok(statement)
    }
}

fn parse(text: &str) -> Result<Statement, Unreadable> {
    let unreadable = || format!("Statement wasn't well formed, can't be processed: {text}");
    let tokens = tokens(text);
    let unquoted = |token: &str| token.trim_matches(['"', '\'']).to_owned();
    let words: Vec<&str> = tokens.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["INSERT", "INTO", table, "VALUE", "{", fields @ .., "}"] => {
            let mut names = Vec::new();
            for field in fields.split(|&token| token == ",") {
                let [name, ":", "?"] = field else { return Err(unreadable()) };
                names.push(unquoted(name));
            }
            Ok(Statement::Insert { table: unquoted(table), names })
        }
        ["UPDATE", table, clauses @ ..] => {
            let (mut set, mut removed, mut conditions) = (Vec::new(), Vec::new(), Vec::new());
            let mut clauses = clauses;
            loop {
                match clauses {
                    ["SET", name, "=", "?", rest @ ..] => {
                        set.push(unquoted(name));
                        clauses = rest;
                    }
                    ["REMOVE", name, rest @ ..] => {
                        removed.push(unquoted(name));
                        clauses = rest;
                    }
                    ["WHERE" | "AND", name, comparison, "?", rest @ ..] => {
                        conditions.push((unquoted(name), (*comparison).to_owned()));
                        clauses = rest;
                    }
                    [] => break,
                    _ => return Err(unreadable()),
                }
            }
            Ok(Statement::Update { table: unquoted(table), set, removed, conditions })
        }
        ["SELECT", rest @ ..] => {
            let mut parts = rest.split(|token| ["FROM", "WHERE"].contains(token));
            match (parts.next(), parts.next(), parts.next()) {
                (Some(names), Some([table]), Some([_, "IN", "[", places @ .., "]"]))
                    if places.iter().all(|place| ["?", ","].contains(place)) =>
                {
                    let names = names.split(|&token| token == ",").filter_map(|name| Some(unquoted(name.first()?)));
                    Ok(Statement::Select { table: unquoted(table), names: names.collect() })
                }
                _ => Err(unreadable()),
            }
        }
        _ => Err(unreadable()),
    }
}

impl Statement {
    pub fn table(&self) -> &str {
        let (Statement::Insert { table, .. } | Statement::Update { table, .. } | Statement::Select { table, .. }) =
            self;
        table
    }
}
