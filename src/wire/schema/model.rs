//! The schema types: fields, framing, keys and aggregates. They describe bytes and decode none.
//! The written forms are in `toml` and `notation`.

use crate::config::limits::PACKET_BYTES_LIMIT;
use crate::wire::text::{Padding, TextEncoding};

/// The type of a field, with its width where the type does not imply it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Unsigned, 1 byte.
    U8,
    /// Unsigned, 2 bytes.
    U16,
    /// Unsigned, 4 bytes.
    U32,
    /// Unsigned, 8 bytes.
    U64,
    /// Two's complement, 1 byte.
    I8,
    /// Two's complement, 2 bytes.
    I16,
    /// Two's complement, 4 bytes.
    I32,
    /// Two's complement, 8 bytes.
    I64,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
    /// One byte: 0 is false, anything else is true.
    Bool,
    /// Fixed-width text. Its value ends before the trailing run of padding.
    Text {
        /// Bytes of the field.
        bytes: usize,
        /// Which bytes pad it.
        padding: Padding,
    },
    /// Raw bytes, without padding.
    Bytes {
        /// Bytes of the field.
        bytes: usize,
    },
    /// Bytes that are ignored.
    Skip {
        /// How many.
        bytes: usize,
    },
}

impl Kind {
    /// Bytes that a field of this type takes.
    pub fn width(self) -> usize {
        match self {
            Kind::U8 | Kind::I8 | Kind::Bool => 1,
            Kind::U16 | Kind::I16 => 2,
            Kind::U32 | Kind::I32 | Kind::F32 => 4,
            Kind::U64 | Kind::I64 | Kind::F64 => 8,
            Kind::Text { bytes, .. } | Kind::Bytes { bytes } | Kind::Skip { bytes } => bytes,
        }
    }

    /// Its name in schemas.
    pub fn name(self) -> &'static str {
        match self {
            Kind::U8 => "u8",
            Kind::U16 => "u16",
            Kind::U32 => "u32",
            Kind::U64 => "u64",
            Kind::I8 => "i8",
            Kind::I16 => "i16",
            Kind::I32 => "i32",
            Kind::I64 => "i64",
            Kind::F32 => "f32",
            Kind::F64 => "f64",
            Kind::Bool => "bool",
            Kind::Text { .. } => "text",
            Kind::Bytes { .. } => "bytes",
            Kind::Skip { .. } => "skip",
        }
    }

    /// Whether it is a floating-point number.
    pub fn is_float(self) -> bool {
        matches!(self, Kind::F32 | Kind::F64)
    }

    /// Whether it is a signed integer.
    pub fn is_signed(self) -> bool {
        matches!(self, Kind::I8 | Kind::I16 | Kind::I32 | Kind::I64)
    }

    /// Whether it is text or bytes.
    pub fn is_text(self) -> bool {
        matches!(self, Kind::Text { .. } | Kind::Bytes { .. })
    }
}

/// The byte order of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endian {
    /// Most significant byte first.
    Big,
    /// Least significant byte first.
    Little,
}

/// A field of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name, used in results; empty for skipped bytes.
    pub name: String,
    /// Its type.
    pub kind: Kind,
    /// Offset of its first byte within the record.
    pub offset: usize,
    /// How its text is encoded; of no meaning for other types.
    pub encoding: TextEncoding,
}

/// The length prefix of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Length {
    /// 4 bytes.
    U32,
    /// 2 bytes.
    U16,
    /// No prefix: records follow one another, and each is its own packet.
    None,
}

impl Length {
    /// Bytes of the prefix.
    pub fn bytes(self) -> usize {
        match self {
            Length::U32 => 4,
            Length::U16 => 2,
            Length::None => 0,
        }
    }
}

/// What marks a stream as complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// A record whose bytes are all zero. It is not data.
    ZeroRecord,
    /// The peer closes the connection after a whole packet.
    Close,
}

/// How records are framed in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Framing {
    /// The length prefix of a packet.
    pub length: Length,
    /// Whether the length counts its own bytes.
    pub includes_itself: bool,
    /// Byte order of the length.
    pub endian: Endian,
    /// What ends a stream.
    pub end: End,
}

/// An aggregate function over a field's values in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Function {
    /// The sum, exact for integers.
    Sum,
    /// The mean: the sum, divided once.
    Mean,
    /// The smallest value.
    Min,
    /// The largest value.
    Max,
    /// The value of the first record.
    First,
    /// The value of the last record.
    Last,
    /// The sample variance.
    Var,
    /// The sample standard deviation.
    Std,
}

impl Function {
    /// Every function, in the order of the documents.
    pub const ALL: [Function; 8] = [
        Function::Sum,
        Function::Mean,
        Function::Min,
        Function::Max,
        Function::First,
        Function::Last,
        Function::Var,
        Function::Std,
    ];

    /// Its name in schemas, which is also the suffix of its columns.
    pub fn name(self) -> &'static str {
        match self {
            Function::Sum => "sum",
            Function::Mean => "mean",
            Function::Min => "min",
            Function::Max => "max",
            Function::First => "first",
            Function::Last => "last",
            Function::Var => "var",
            Function::Std => "std",
        }
    }
}

/// A column of the result other than a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Aggregate {
    /// The number of records in the group.
    Count,
    /// A function of one field's values.
    Of {
        /// Index of the field.
        field: usize,
        /// The function.
        function: Function,
    },
}

/// Everything known about the records of a stream before the first one arrives. Only
/// [`Schema::new`] makes one, so every schema is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    pub(super) name: String,
    pub(super) endian: Endian,
    pub(super) framing: Framing,
    pub(super) fields: Vec<Field>,
    pub(super) record_bytes: usize,
    pub(super) keys: Vec<usize>,
    pub(super) aggregates: Vec<Aggregate>,
}

impl Schema {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The byte order of its numbers.
    pub fn endian(&self) -> Endian {
        self.endian
    }

    /// The same schema with texts of a field in this encoding. `field` is an index.
    #[must_use]
    pub fn with_encoding(mut self, field: usize, encoding: TextEncoding) -> Self {
        self.fields[field].encoding = encoding;
        self
    }

    /// How its records are framed.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Its fields in byte order, without gaps.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Size of a record.
    pub fn record_bytes(&self) -> usize {
        self.record_bytes
    }

    /// The fields to group by, in the order in which the result lists and sorts by them.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &Field> {
        self.keys.iter().map(|&key| &self.fields[key])
    }

    /// The columns after the keys, including the count.
    pub fn aggregates(&self) -> &[Aggregate] {
        &self.aggregates
    }

    /// Bytes of the smallest packet: its length and one record.
    pub fn packet_bytes_min(&self) -> usize {
        self.framing.length.bytes() + self.record_bytes
    }

    /// Size of the largest packet that the length can express, including the length itself.
    pub fn packet_bytes_max(&self) -> u64 {
        let Framing { length, includes_itself, .. } = self.framing;
        let own = if includes_itself { 0 } else { length.bytes() as u64 };
        match length {
            Length::U32 => (u64::from(u32::MAX) + own).min(PACKET_BYTES_LIMIT.1),
            Length::U16 => u64::from(u16::MAX) + own,
            Length::None => self.record_bytes as u64,
        }
    }
}

impl Default for Framing {
    /// The framing of the built-in schema: a big-endian u32 that counts itself, and the all-zero
    /// record at the end.
    fn default() -> Self {
        Framing {
            length: Length::U32,
            includes_itself: true,
            endian: Endian::Big,
            end: End::ZeroRecord,
        }
    }
}
