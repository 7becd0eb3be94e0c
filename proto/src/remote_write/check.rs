//! Full checks of the messages whose content the write path does not read.
//!
//! Without them a push with a damaged exemplar would be taken, and one with a damaged label refused.

use super::WireError;
use super::WireErrorKind::Truncated;
use super::cursor::{Cursor, DELIMITED};

/// Type of a known field.
#[derive(Debug)]
pub(super) enum Field {
    Varint,
    Fixed64,
    /// A string, not checked for UTF-8.
    Bytes,
    Message(&'static Schema),
    /// Repeated numbers, packed into one field or one in each.
    Varints,
    Fixed64s,
}

use Field::{Bytes, Fixed64, Fixed64s, Message, Varint, Varints};

/// The known fields of a message: numbers and types.
pub(super) type Schema = [(u32, Field)];

static LABEL: [(u32, Field); 2] = [(1, Bytes), (2, Bytes)];

static BUCKET_SPAN: [(u32, Field); 2] = [(1, Varint), (2, Varint)];

pub(super) static EXEMPLAR: [(u32, Field); 3] = [(1, Message(&LABEL)), (2, Fixed64), (3, Varint)];

pub(super) static HISTOGRAM: [(u32, Field); 16] = [
    (1, Varint),
    (2, Fixed64),
    (3, Fixed64),
    (4, Varint),
    (5, Fixed64),
    (6, Varint),
    (7, Fixed64),
    (8, Message(&BUCKET_SPAN)),
    (9, Varints),
    (10, Fixed64s),
    (11, Message(&BUCKET_SPAN)),
    (12, Varints),
    (13, Fixed64s),
    (14, Varint),
    (15, Varint),
    (16, Fixed64s),
];

pub(super) static METADATA: [(u32, Field); 4] = [(1, Varint), (2, Bytes), (4, Bytes), (5, Bytes)];

/// Checks a whole message. Schemas do not nest deeply, so neither does the recursion.
pub(super) fn message(mut cursor: Cursor<'_>, schema: &Schema) -> Result<(), WireError> {
    while !cursor.is_empty() {
        let key = cursor.key()?;
        let known = schema.iter().find(|(number, _)| *number == key.field);
        match known.map(|(_, field)| field) {
            None => cursor.skip(key)?,
            Some(Varint) => drop(cursor.varint_field(key)?),
            Some(Fixed64) => drop(cursor.fixed64(key)?),
            Some(Bytes) => drop(cursor.delimited(key)?),
            Some(Message(inner)) => message(cursor.delimited(key)?, inner)?,
            Some(Varints) if key.wire_type == DELIMITED => {
                let mut packed = cursor.delimited(key)?;
                while !packed.is_empty() {
                    packed.varint()?;
                }
            }
            Some(Varints) => drop(cursor.varint_field(key)?),
            Some(Fixed64s) if key.wire_type == DELIMITED => {
                let packed = cursor.delimited(key)?;
                if packed.rest.len() % 8 != 0 {
                    return Err(packed.error(Truncated));
                }
            }
            Some(Fixed64s) => drop(cursor.fixed64(key)?),
        }
    }
    Ok(())
}
