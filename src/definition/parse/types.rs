//! Types with their settings, which columns and attributes share.

use jiff::tz::TimeZone;

use crate::definition::columns::{MAX_VALUE_BYTES, TimeFormat, Type};
use crate::definition::keys::limits::{ID_BYTES, MAX_DECIMAL};
use crate::definition::keys::shape::Section;
use crate::definition::parse::fields::{Fields, Told, items_or};
use crate::definition::parse::names::{Known, Origin};
use crate::definition::parse::tree::Entry;
use crate::definition::parse::values::{time_format, units, zone};
use crate::definition::problems::{Found, Reported};

/// The fields of a column or attribute, and its type.
pub(super) struct Typed<'n> {
    pub(super) fields: Fields<'n>,
    pub(super) type_: Result<Type, Reported>,
}

impl<'n> Typed<'n> {
    /// Reads a table with a type, or a type alone.
    pub(super) fn read(section: &'static Section, what: String, entry: &'n Entry, found: &mut Found<'_>) -> Self {
        let items = items_or(&entry.node, "type");
        let fields = Fields::read(section, (what, entry.span), items, found);
        let type_ = read_type(&fields, found);
        Typed { fields, type_ }
    }

    pub(super) fn is_optional(&self) -> bool {
        self.fields.flag("optional").unwrap_or(false)
    }

    pub(super) fn unknown(&self) -> Option<String> {
        self.fields.text("unknown").map(|unknown| unknown.value.to_owned())
    }

    pub(super) fn known(&self, entry: &Entry, origin: Origin) -> Known {
        Known {
            name: entry.key.clone(),
            at: entry.span,
            origin,
            type_: self.type_.clone(),
            is_optional: self.is_optional(),
            has_unknown: self.fields.text("unknown").is_some(),
        }
    }
}

fn read_type(fields: &Fields<'_>, found: &mut Found<'_>) -> Result<Type, Reported> {
    Ok(match fields.needed_text("type", found)?.value {
        "id" => Type::Id { max_bytes: max_bytes(fields, ID_BYTES, found)? },
        "text" => Type::Text {
            max_bytes: max_bytes(fields, MAX_VALUE_BYTES, found)?,
            is_cut: fields.flag("cut").unwrap_or(false),
        },
        "integer" => {
            let (min, max) = bounds(fields, 0, (i64::MIN, i64::MAX), found)?;
            Type::Integer { min, max }
        }
        "decimal" => {
            fields.item("places", found)?;
            let places = fields.whole("places").unwrap_or(0) as u8;
            let (min, max) = bounds(fields, places, (-MAX_DECIMAL, MAX_DECIMAL), found)?;
            Type::Decimal { places, min, max }
        }
        _ => {
            let (format, states_zone) = match fields.text("format") {
                Some(format) => time_format(format, found)?,
                None => (TimeFormat::Iso, false),
            };
            let zone = match fields.text("zone") {
                Some(zone) if states_zone => {
                    return Err(found.add(zone.at, "times of this format state their zone; leave 'zone' out"));
                }
                Some(text) => zone(text, found)?,
                None => TimeZone::UTC,
            };
            Type::Time { format, zone }
        }
    })
}

/// The most bytes of an id or text.
fn max_bytes(fields: &Fields<'_>, default: usize, found: &mut Found<'_>) -> Result<usize, Reported> {
    let Some(max) = fields.number("max") else { return Ok(default) };
    let bytes = units(max.value, 0).ok().and_then(|max| usize::try_from(max).ok());
    bytes.filter(|bytes| (1..=MAX_VALUE_BYTES).contains(bytes)).ok_or_else(|| {
        found.add(max.at, format!("'max' of an id or a text is the most bytes, from 1 to {MAX_VALUE_BYTES}"))
    })
}

/// The least and the greatest value, in units.
pub(super) fn bounds(
    fields: &Fields<'_>,
    places: u8,
    widest: (i64, i64),
    found: &mut Found<'_>,
) -> Result<(i64, i64), Reported> {
    let mut bound = |key: &str, default: i64| match fields.number(key) {
        Some(Told { value, at }) => units(value, places).map_err(|reason| found.add(at, format!("'{key}' {reason}"))),
        None => Ok(default),
    };
    let (min, max) = (bound("min", widest.0), bound("max", widest.1));
    let (min, max) = (min?, max?);
    match fields.number("min") {
        Some(told) if min > max => Err(found.add(told.at, "'min' is above 'max'")),
        _ => Ok((min, max)),
    }
}
