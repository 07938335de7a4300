//! music-streams turns raw events into reports that people can query, minutes after they happened and exactly
//! once.
//!
//! # The flow
//!
//! ```text
//! S3 incoming/*.csv ──ObjectCreated──▶ SQS ──▶ notification ──▶ window ──▶ one batch at a time:
//!
//!   open ▶ claim ▶ transform + aggregate ▶ COMMIT ▶ upsert ▶ publish ▶ archive ▶ finish ▶ delete messages
//!          nothing is visible yet             │     every step may be repeated by any consumer
//! ```
//!
//! [`service`] starts the tasks and connects them: begin reading there. `docs/architecture.md` has the map of the code,
//! from the commands down to the ground floor, and explains the protocol; each folder's `mod.rs` has the details.
//! `docs/format.md` describes everything that is stored.
//!
//! # Glossary
//!
//! * **Object**: a file in S3, in one version. It is the unit that is claimed, counted and archived, whole or not at
//!   all.
//! * **Event**: the announcement of an object. **Message**: what SQS delivers, with one event or several.
//! * **Custody**: holding a message: its visibility is extended until all its objects are finished.
//! * **Window**: the events gathered for one batch. **Batch**: the processing of a window, under a number that was
//!   never used before.
//! * **Claim**: the ledger item that assigns an object to a batch. **Registry**: the list of unfinished batches.
//! * **Fate**: what a batch decides about an object: archived, quarantined or gone.
//! * **Delta**: what a batch adds to one report item. **Watermark**: the batch number up to which a report item needs
//!   no list of the batches that it contains.
//! * **Roll forward**: the steps after the commit, which any consumer may carry out. **Sweep**: a search of `incoming/`
//!   for objects that no message announced.
//! * **Set aside**: refused permanently, and listed in the ledger until it is brought back. **Quarantine**: the place
//!   of rows and files that cannot be counted, with their reasons.
//! * **Lease**: the time that a batch's owner may be silent before other consumers finish or abandon its batch.
//!
//! # Invariants
//!
//! * **I1** Every object put under `incoming/` ends in exactly one of three states: archived, quarantined (with a
//!   reason), or still incoming. None is deleted unread. An object that is still incoming although a batch has decided
//!   about it is listed as set aside.
//! * **I2** Every report item equals the fold of the rows of the objects in done and partly applied committed batches,
//!   each batch counted once; or it lacks some of these batches, and is listed as set aside until it contains them.
//! * **I3** The curated prefix shows a batch's rows once, all or nothing per file, and only if the batch committed.
//! * **I4** For each object, rows read = rows curated + rows rejected + rows passed over; and rows curated = the sum of
//!   the deltas of a report that counts each once.
//! * **I5** A message is deleted only after its object is archived, quarantined, gone, set aside under a name in the
//!   ledger, or known to be a duplicate of such an object.
//! * **I6** Memory is bounded by configuration, whatever the backlog, the sizes of objects and the number of keys. The
//!   registry is bounded too, whatever fails.
//! * **I7** After all consumers stop and one restarts, everything converges without human action, except for what
//!   services refuse permanently: that is set aside automatically, blocks nothing else, and is brought back by a
//!   command once the cause of the refusal is removed.
//! * **I8** Every committed batch was prepared under the definition in force at its commit, and is carried out under
//!   it. So no batch mixes two.
//! * **I9** The table of the curated files has each batch once or not at all, in every version of its log, and in the
//!   last one each that is done. Compaction changes no row of it.

pub mod aws;
pub mod batch;
pub mod calendar;
pub mod command_line;
pub mod commands;
pub mod compute;
pub mod counts;
pub mod definition;
pub mod formats;
pub mod input;
pub mod intake;
pub mod lake;
pub mod layout;
pub mod ledger;
pub mod memory;
pub mod object;
pub mod plan;
pub mod process;
pub mod protocol;
pub mod reading;
pub mod reference;
pub mod reports;
pub mod service;
pub mod telemetry;
pub mod values;
pub mod web;
