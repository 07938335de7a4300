//! music-streams turns raw listening events into figures people can query, minutes after they happened and exactly once.
//!
//! # The flow
//!
//! ```text
//! S3 incoming/*.csv ──ObjectCreated──▶ SQS ──▶ event ──▶ window ──▶ one batch at a time:
//!
//!   open ▶ claim ▶ transform + aggregate ▶ COMMIT ▶ upsert ▶ publish ▶ archive ▶ finish ▶ delete messages
//!          nothing can be seen yet            │     every step may be repeated by anyone
//! ```
//!
//! The modules, in its order:
//!
//! | module | part | kind |
//! |---|---|---|
//! | [`config`] | every limit, rate and name | pure |
//! | [`pipeline`] | the tasks, their channels, the order of shutdown | shell |
//! | [`tasks`] | a name for each task; what becomes of the process when one dies | shell |
//! | [`queue`] | SQS, and custody of messages | shell |
//! | [`event`] | from a message to the objects it announces | pure |
//! | [`sweep`] | objects that no message announces | shell |
//! | [`window`] | which objects are worked on together | pure |
//! | [`batch`] | the protocol carried out up to the commit | shell |
//! | [`roll_forward`] | … and after it | shell |
//! | [`stages`] | a batch's stages, as they are told | shell |
//! | [`protocol`] | the protocol's decisions | pure |
//! | [`manifest`] | what a batch decided | shell |
//! | [`ledger`] | the protocol's state in DynamoDB | shell |
//! | [`catalogue`] | what is known of tracks and listeners | shell |
//! | [`transform`] | objects in, everything to publish out | shell |
//! | [`csv`] | from a file's bytes to blocks of records | shell |
//! | [`listening_file`] | from an object to blocks of its rows, or to its rows | shell |
//! | [`block`] | from a block to rows in codes | pure |
//! | [`row`] | which rows are good | pure |
//! | [`aggregate`] | rows, and what they add up to | pure |
//! | [`compute`] | the four above and the one below on every core | shell |
//! | [`columnar`] | Parquet; the only module that knows arrow2 and parquet2 | pure |
//! | [`memory`] | how much memory there may be, and what is given how much of it | shell |
//! | [`distinct`] | sets of which only the size is asked for, as sketches | pure |
//! | [`report`] | what is counted, and how two counts become one | pure |
//! | [`tables`] | the report items | pure |
//! | [`upsert`] | deltas into the report tables, each once | shell |
//! | [`aside`] | what was refused for good, and set aside | pure |
//! | [`bucket`] | S3 | shell |
//! | [`pace`] | calls under way at once | shell |
//! | [`layout`] | where everything lies in the bucket | pure |
//! | [`query`] | `music-streams report` | shell |
//! | [`status`] | `music-streams status` | shell |
//! | [`bring_back`] | `music-streams aside`: what is set aside, and the way back | shell |
//! | [`quarantine`] | `music-streams quarantine`: files that could not be counted, and the way back | shell |
//! | [`replay`] | `music-streams replay`: reports from the archive, once more | shell |
//! | [`verify`] | `music-streams verify` | shell |
//! | [`dead_letters`] | `music-streams dead-letters` | shell |
//! | [`show`] | tables and texts for people | shell |
//! | [`log`] | lines on standard error, which nothing waits for | shell |
//! | [`environment`] | variables that are set to nothing, and line ends in them | shell |
//! | [`aws`] | clients, and what to do about errors | shell |
//! | [`requests`] | what became of every request | shell |
//! | [`health`] | whether the consumer is ready, and lives | shell |
//! | [`metrics`] | every metric there is | pure |
//! | [`telemetry`] | metrics and traces, exported over OTLP | shell |
//! | [`ecs`] | what ECS tells a task, and is told by it | shell |
//!
//! # Glossary
//!
//! * **Object**: a file in S3, in one version. The unit that is claimed, counted and archived, whole or not at all.
//! * **Event**: the announcement of an object. **Message**: what SQS delivers; it has one event or several.
//! * **Custody**: holding a message: its visibility is extended until all its objects are finished.
//! * **Window**: the events gathered for one batch. **Batch**: the work on them, under a number never used before.
//! * **Claim**: ties an object to a batch. **Registry**: lists the batches that are not finished.
//! * **Delta**: what a batch adds to one report item. **Watermark**: the number up to which an item needs no record of the
//!   batches in it.
//! * **Set aside**: what was refused for good, listed in the ledger until it is back.
//! * **Lease**: how long a batch's owner may be silent before others finish or abandon its batch.
//!
//! # Invariants
//!
//! * **I1** Every object put under `incoming/` ends in exactly one of: archive, quarantine (with a reason), or still
//!   incoming. None is deleted unread. What is still incoming though a batch has decided about it is listed as set aside.
//! * **I2** Every report item equals the fold of the rows of the objects in done and partly applied committed batches, each
//!   batch counted once; or it lacks some of them, and is listed as set aside until it does not.
//! * **I3** The curated prefix shows a batch's rows once, all or nothing per file, and only if the batch committed.
//! * **I4** Rows read = rows curated + rows rejected, for each object; rows curated = the sum of the track deltas.
//! * **I5** A message is deleted only after its object is archived, quarantined, gone, set aside under a name in the ledger,
//!   or known to be a duplicate of one that is.
//! * **I6** Memory is bounded by configuration, whatever the backlog, the sizes of objects and the number of keys; and so is the
//!   registry, whatever fails.
//! * **I7** After all consumers stop and one restarts, everything converges with no human action, but for what services refuse for
//!   good: that is set aside by itself, holds nothing else up, and comes back by a command once what refuses it is mended.

pub mod aws;
pub mod batch;
pub mod calendar;
pub mod commands;
pub mod compute;
pub mod counts;
pub mod formats;
pub mod input;
pub mod intake;
pub mod layout;
pub mod ledger;
pub mod memory;
pub mod object;
pub mod process;
pub mod protocol;
pub mod reference;
pub mod reports;
pub mod service;
pub mod telemetry;
