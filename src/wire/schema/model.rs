//! What a record consists of, how records are framed, and what is made of them: describes bytes and
//! decodes none. The written forms are `toml` and `notation`.

use crate::config::limits::PACKET_BYTES_LIMIT;
use crate::wire::text::Padding;

/// The type of a field, and how many bytes it takes where that is not part of the type.
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
    /// Text of a fixed width. Its value ends before its trailing run of padding.
    Text {
        /// Bytes of the field.
        bytes: usize,
        /// What it is padded with.
        padding: Padding,
    },
    /// Bytes as they are.
    Bytes {
        /// Bytes of the field.
        bytes: usize,
    },
    /// Bytes that mean nothing here.
    Skip {
        /// How many.
        bytes: usize,
    },
}

impl Kind {
    /// Bytes of a field of this type.
    pub fn width(self) -> usize {
        match self {
            Kind::U8 | Kind::I8 | Kind::Bool => 1,
            Kind::U16 | Kind::I16 => 2,
            Kind::U32 | Kind::I32 | Kind::F32 => 4,
            Kind::U64 | Kind::I64 | Kind::F64 => 8,
            Kind::Text { bytes, .. } | Kind::Bytes { bytes } | Kind::Skip { bytes } => bytes,
        }
    }

    /// The word for it.
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

    /// Whether it is a number with a fraction.
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

/// The order of the bytes of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endian {
    /// The highest byte first.
    Big,
    /// The lowest byte first.
    Little,
}

/// A field of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name, as it stands in results; empty where it is skipped.
    pub name: String,
    /// Its type.
    pub kind: Kind,
    /// Its first byte within the record.
    pub offset: usize,
}

/// The length that stands before the records of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Length {
    /// 4 bytes.
    U32,
    /// 2 bytes.
    U16,
    /// None: records follow each other, and each is a packet of its own.
    None,
}

impl Length {
    /// Bytes of the length itself.
    pub fn bytes(self) -> usize {
        match self {
            Length::U32 => 4,
            Length::U16 => 2,
            Length::None => 0,
        }
    }
}

/// What ends a stream, so that it is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// A record of which each byte is zero. It is no data.
    ZeroRecord,
    /// That the peer closes after a whole packet.
    Close,
}

/// How records come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Framing {
    /// The length before the records of a packet.
    pub length: Length,
    /// Whether that counts its own bytes.
    pub includes_itself: bool,
    /// The order of its bytes.
    pub endian: Endian,
    /// What ends a stream.
    pub end: End,
}

/// What is made of a field's values in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Function {
    /// The sum, exact for integers.
    Sum,
    /// The mean: the sum, divided once.
    Mean,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// That of the first record.
    First,
    /// That of the last record.
    Last,
    /// The variance of a sample.
    Var,
    /// Its square root.
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

    /// The word for it, with which the names of its columns end.
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

/// A column of the result that is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Aggregate {
    /// The records of the group.
    Count,
    /// A function of a field's values.
    Of {
        /// Index of the field.
        field: usize,
        /// The function.
        function: Function,
    },
}

/// Everything that is known of a stream's records before the first comes. Made by
/// [`Schema::new`], so each keeps the rules.
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

    /// The order of the bytes of its numbers.
    pub fn endian(&self) -> Endian {
        self.endian
    }

    /// How its records come.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Its fields, in the order of their bytes. They lie end to end.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Bytes of a record.
    pub fn record_bytes(&self) -> usize {
        self.record_bytes
    }

    /// The fields that make the group, in the order of the result's columns and of its rows.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &Field> {
        self.keys.iter().map(|&key| &self.fields[key])
    }

    /// The columns behind the keys, the count among them.
    pub fn aggregates(&self) -> &[Aggregate] {
        &self.aggregates
    }

    /// Bytes of the smallest packet: its length and one record.
    pub fn packet_bytes_min(&self) -> usize {
        self.framing.length.bytes() + self.record_bytes
    }

    /// Bytes of the largest packet that its length can say, its length included.
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
    /// That of the built-in schema: a u32, big-endian, that counts itself, and the all-zero record.
    fn default() -> Self {
        Framing {
            length: Length::U32,
            includes_itself: true,
            endian: Endian::Big,
            end: End::ZeroRecord,
        }
    }
}
