//! The numeric types of fields: how they are read from records, kept in a group's slot, widened for
//! columns, summed and compared. Knows nothing of fields and groups.

use super::block::Bytes;
use crate::wire::schema::Kind;

/// A number in a record. In a slot it is a lane as wide as in the record; in a column it is widened
/// to 64 bits of its class.
pub(crate) trait Number: Copy {
    /// Its bytes in a record.
    type Bytes: Bytes + 'static;
    /// The initial value of `min`: the largest number, or NaN.
    const NONE_LESS: Self;
    /// The initial value of `max`: the smallest number, or NaN.
    const NONE_GREATER: Self;

    /// Reads a number, big-endian or little-endian.
    fn read<const BIG: bool>(bytes: &Self::Bytes) -> Self;
    /// Reads the number at an offset of a record.
    ///
    /// # Panics
    /// Panics if it exceeds the record.
    fn read_at(record: &[u8], offset: usize, big: bool) -> Self;
    /// Its bits as a lane.
    fn to_lane(self) -> u64;
    /// The number in a lane. Higher bits are ignored.
    fn from_lane(lane: u64) -> Self;
    /// The number widened to 64 bits of its class.
    fn widened(self) -> Wide;
    /// The integer added to a sum, given and returned as bits.
    fn added_to(self, sum: u64) -> u64;
    /// The integer without its sign.
    fn magnitude(self) -> u64;
    /// The smaller of two, with -0.0 below 0.0; of a number and NaN, the number.
    fn least(self, other: Self) -> Self;
    /// The larger of two, with -0.0 below 0.0; of a number and NaN, the number.
    fn greatest(self, other: Self) -> Self;
    /// The nearest binary64.
    fn to_f64(self) -> f64;
}

/// A number widened to 64 bits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wide {
    /// Unsigned, or a bool as 0 and 1.
    Unsigned(u64),
    /// Signed.
    Signed(i64),
    /// Floating-point.
    Float(f64),
}

/// A bool: a byte that is zero or non-zero.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(crate) struct Flag(bool);

macro_rules! integer {
    ($type:ident, $unsigned:ident, $wide:ident, $class:ident, $magnitude:expr) => {
        impl Number for $type {
            type Bytes = [u8; size_of::<$type>()];
            const NONE_LESS: Self = $type::MAX;
            const NONE_GREATER: Self = $type::MIN;

            #[inline(always)]
            fn read<const BIG: bool>(bytes: &Self::Bytes) -> Self {
                if BIG { $type::from_be_bytes(*bytes) } else { $type::from_le_bytes(*bytes) }
            }

            fn read_at(record: &[u8], offset: usize, big: bool) -> Self {
                let bytes = record[offset..].first_chunk().expect("a number's bytes");
                if big { Self::read::<true>(bytes) } else { Self::read::<false>(bytes) }
            }

            #[inline(always)]
            fn to_lane(self) -> u64 {
                u64::from(self as $unsigned)
            }

            #[inline(always)]
            fn from_lane(lane: u64) -> Self {
                lane as $unsigned as $type
            }

            #[inline(always)]
            fn widened(self) -> Wide {
                Wide::$class($wide::from(self))
            }

            #[inline(always)]
            fn added_to(self, sum: u64) -> u64 {
                // In two's complement, signed and unsigned sums have the same bits.
                sum.wrapping_add($wide::from(self) as u64)
            }

            #[inline(always)]
            fn magnitude(self) -> u64 {
                $magnitude(self).into()
            }

            #[inline(always)]
            fn least(self, other: Self) -> Self {
                self.min(other)
            }

            #[inline(always)]
            fn greatest(self, other: Self) -> Self {
                self.max(other)
            }

            #[inline(always)]
            fn to_f64(self) -> f64 {
                self as f64
            }
        }
    };
}

integer!(u8, u8, u64, Unsigned, std::convert::identity);
integer!(u16, u16, u64, Unsigned, std::convert::identity);
integer!(u32, u32, u64, Unsigned, std::convert::identity);
integer!(u64, u64, u64, Unsigned, std::convert::identity);
integer!(i8, u8, i64, Signed, i8::unsigned_abs);
integer!(i16, u16, i64, Signed, i16::unsigned_abs);
integer!(i32, u32, i64, Signed, i32::unsigned_abs);
integer!(i64, u64, i64, Signed, i64::unsigned_abs);

macro_rules! float {
    ($type:ident) => {
        impl Number for $type {
            type Bytes = [u8; size_of::<$type>()];
            const NONE_LESS: Self = $type::NAN;
            const NONE_GREATER: Self = $type::NAN;

            #[inline(always)]
            fn read<const BIG: bool>(bytes: &Self::Bytes) -> Self {
                if BIG { $type::from_be_bytes(*bytes) } else { $type::from_le_bytes(*bytes) }
            }

            fn read_at(record: &[u8], offset: usize, big: bool) -> Self {
                let bytes = record[offset..].first_chunk().expect("a number's bytes");
                if big { Self::read::<true>(bytes) } else { Self::read::<false>(bytes) }
            }

            #[inline(always)]
            fn to_lane(self) -> u64 {
                u64::from(self.to_bits())
            }

            #[inline(always)]
            fn from_lane(lane: u64) -> Self {
                $type::from_bits(lane as _)
            }

            #[inline(always)]
            fn widened(self) -> Wide {
                Wide::Float(f64::from(self))
            }

            fn added_to(self, _: u64) -> u64 {
                unreachable!("sums of floats take more than a word")
            }

            fn magnitude(self) -> u64 {
                unreachable!("integers alone are squared exactly")
            }

            #[inline(always)]
            fn least(self, other: Self) -> Self {
                let less = self < other || self == other && self.is_sign_negative();
                if less || other.is_nan() { self } else { other }
            }

            #[inline(always)]
            fn greatest(self, other: Self) -> Self {
                let greater = self > other || self == other && self.is_sign_positive();
                if greater || other.is_nan() { self } else { other }
            }

            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
        }
    };
}

float!(f32);
float!(f64);

impl Number for Flag {
    type Bytes = [u8; 1];
    const NONE_LESS: Self = Flag(true);
    const NONE_GREATER: Self = Flag(false);

    #[inline(always)]
    fn read<const BIG: bool>(bytes: &Self::Bytes) -> Self {
        Flag(bytes[0] != 0)
    }

    fn read_at(record: &[u8], offset: usize, _: bool) -> Self {
        Flag(record[offset] != 0)
    }

    #[inline(always)]
    fn to_lane(self) -> u64 {
        u64::from(self.0)
    }

    #[inline(always)]
    fn from_lane(lane: u64) -> Self {
        Flag(lane & 1 != 0)
    }

    #[inline(always)]
    fn widened(self) -> Wide {
        Wide::Unsigned(u64::from(self.0))
    }

    #[inline(always)]
    fn added_to(self, sum: u64) -> u64 {
        sum + u64::from(self.0)
    }

    #[inline(always)]
    fn magnitude(self) -> u64 {
        self.0.into()
    }

    #[inline(always)]
    fn least(self, other: Self) -> Self {
        Flag(self.0 & other.0)
    }

    #[inline(always)]
    fn greatest(self, other: Self) -> Self {
        Flag(self.0 | other.0)
    }

    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(u8::from(self.0))
    }
}

/// The 64-bit class that numbers of a type are widened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// u64.
    Unsigned,
    /// i64.
    Signed,
    /// f64.
    Float,
}

impl Class {
    /// The class of a type.
    ///
    /// # Panics
    /// Panics if it is not numeric.
    pub fn of(kind: Kind) -> Self {
        match kind {
            Kind::U8 | Kind::U16 | Kind::U32 | Kind::U64 | Kind::Bool => Class::Unsigned,
            Kind::I8 | Kind::I16 | Kind::I32 | Kind::I64 => Class::Signed,
            Kind::F32 | Kind::F64 => Class::Float,
            Kind::Text { .. } | Kind::Bytes { .. } | Kind::Skip { .. } => {
                panic!("{} is not numeric", kind.name())
            }
        }
    }
}

/// Binds a name to the Rust type of a numeric kind, so that the expression is compiled for each
/// type.
macro_rules! with_number {
    ($kind:expr, $type:ident => $use:expr) => {
        match $kind {
            Kind::U8 => {
                type $type = u8;
                $use
            }
            Kind::U16 => {
                type $type = u16;
                $use
            }
            Kind::U32 => {
                type $type = u32;
                $use
            }
            Kind::U64 => {
                type $type = u64;
                $use
            }
            Kind::I8 => {
                type $type = i8;
                $use
            }
            Kind::I16 => {
                type $type = i16;
                $use
            }
            Kind::I32 => {
                type $type = i32;
                $use
            }
            Kind::I64 => {
                type $type = i64;
                $use
            }
            Kind::F32 => {
                type $type = f32;
                $use
            }
            Kind::F64 => {
                type $type = f64;
                $use
            }
            Kind::Bool => {
                type $type = $crate::engine::blocks::number::Flag;
                $use
            }
            Kind::Text { .. } | Kind::Bytes { .. } | Kind::Skip { .. } => {
                unreachable!("only numeric fields get here")
            }
        }
    };
}

pub(in crate::engine) use with_number;
