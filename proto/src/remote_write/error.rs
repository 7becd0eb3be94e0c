//! What can be wrong with a body.

use thiserror::Error;

/// A body that is not a valid write request: what is wrong, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("malformed write request at byte {offset}: {kind}")]
pub struct WireError {
    /// What is wrong.
    pub kind: WireErrorKind,
    /// Where the faulty item begins, in bytes from the start of the decompressed body.
    pub offset: usize,
}

/// The kinds of [`WireError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WireErrorKind {
    /// The enclosing message ends inside a number.
    #[error("the message ends inside a number")]
    Truncated,
    /// A length-delimited field is longer than what is left of the enclosing message.
    #[error("a field of {length} bytes where only {left} are left")]
    LengthBeyondEnd {
        /// The length as sent.
        length: u64,
        /// Bytes left of the enclosing message.
        left: usize,
    },
    /// A varint that does not fit 64 bits or takes more than ten bytes.
    #[error("a varint of more than 64 bits")]
    VarintTooLong,
    /// Field number 0, or a key of more than 32 bits.
    #[error("an invalid field number")]
    InvalidField,
    /// A known field with another type than it has, or a wire type that does not exist.
    #[error("field {field} with wire type {wire_type}")]
    WireType {
        /// Number of the field.
        field: u32,
        /// The type as sent, 0 to 7.
        wire_type: u8,
    },
    /// The start or end of a group.
    #[error("field {field} is a group, which is not supported")]
    Group {
        /// Number of the field.
        field: u32,
    },
}
