//! Values: the text of a field to an id, a text or a number.
//!
//! Pure. A value is taken as it is written or not at all: nothing is trimmed, guessed, rounded or repaired. A definition
//! says which type a column has; nothing here knows a column.

pub mod number;
pub mod text;
