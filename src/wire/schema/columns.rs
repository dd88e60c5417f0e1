//! The columns of results and of partials: names, types, and the parts that an aggregate needs.
//! How parts are computed and merged is up to `engine::aggregate`.
//!
//! Parts are named here because a schema is valid only if no two columns of its partials share a
//! name, and because users see those columns in files.

use super::model::{Aggregate, Function, Kind, Schema};

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ColumnType {
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
    F32,
    F64,
    Bool,
    Text,
    Bytes,
}

impl ColumnType {
    /// The name used in documents, tables and metadata.
    pub(crate) fn name(self) -> &'static str {
        match self {
            ColumnType::U8 => "u8",
            ColumnType::U16 => "u16",
            ColumnType::U32 => "u32",
            ColumnType::U64 => "u64",
            ColumnType::I8 => "i8",
            ColumnType::I16 => "i16",
            ColumnType::I32 => "i32",
            ColumnType::I64 => "i64",
            ColumnType::F32 => "f32",
            ColumnType::F64 => "f64",
            ColumnType::Bool => "bool",
            ColumnType::Text => "text",
            ColumnType::Bytes => "bytes",
        }
    }

    /// The type of a column that holds values of a field.
    ///
    /// # Panics
    /// If the field is skipped, since it has no values.
    pub(crate) fn of_field(kind: Kind) -> Self {
        match kind {
            Kind::U8 => ColumnType::U8,
            Kind::U16 => ColumnType::U16,
            Kind::U32 => ColumnType::U32,
            Kind::U64 => ColumnType::U64,
            Kind::I8 => ColumnType::I8,
            Kind::I16 => ColumnType::I16,
            Kind::I32 => ColumnType::I32,
            Kind::I64 => ColumnType::I64,
            Kind::F32 => ColumnType::F32,
            Kind::F64 => ColumnType::F64,
            Kind::Bool => ColumnType::Bool,
            Kind::Text { .. } => ColumnType::Text,
            Kind::Bytes { .. } => ColumnType::Bytes,
            Kind::Skip { .. } => panic!("skipped bytes have no column"),
        }
    }

    /// The type of a sum of a field's values.
    pub(crate) fn of_sum(kind: Kind) -> Self {
        match kind {
            _ if kind.is_float() => ColumnType::F64,
            _ if kind.is_signed() => ColumnType::I64,
            _ => ColumnType::U64,
        }
    }

    /// The type of a result's column.
    pub(crate) fn of_function(function: Function, kind: Kind) -> Self {
        match function {
            Function::Sum => Self::of_sum(kind),
            Function::Mean | Function::Var | Function::Std => ColumnType::F64,
            Function::Min | Function::Max | Function::First | Function::Last => {
                Self::of_field(kind)
            }
        }
    }

    /// The type of a part's column in partials.
    pub(crate) fn of_part(part: Part, kind: Kind) -> Self {
        match part {
            Part::Sum => Self::of_sum(kind),
            Part::SumLow => ColumnType::U64,
            Part::Min | Part::Max | Part::First | Part::Last => Self::of_field(kind),
            Part::Mean | Part::Rest | Part::M2 | Part::Unit => ColumnType::F64,
        }
    }
}

/// What a function needs of a field's values so that two pieces of a group can be merged: one
/// column of partials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Part {
    /// Sum of integers; from 32 bits on, without its lowest 32 bits.
    Sum,
    /// The lowest 32 bits of a sum.
    SumLow,
    /// The least value.
    Min,
    /// The greatest value.
    Max,
    /// The value of the first record.
    First,
    /// The value of the last record.
    Last,
    /// Mean of floats, rounded to binary64.
    Mean,
    /// What the sum of floats has beyond the count times the rounded mean.
    Rest,
    /// Sum of the squared distances from the mean. Of binary64, in squares of the unit.
    M2,
    /// The unit of distances, where their squares could leave the range of binary64.
    Unit,
}

impl Part {
    /// What the name of its column begins with.
    fn name(self) -> &'static str {
        match self {
            Part::Sum => "sum",
            Part::SumLow => "sum_low",
            Part::Min => "min",
            Part::Max => "max",
            Part::First => "first",
            Part::Last => "last",
            Part::Mean => "mean",
            Part::Rest => "rest",
            Part::M2 => "m2",
            Part::Unit => "unit",
        }
    }

    /// The parts that a function of a field of this type is made of.
    pub(crate) fn of(function: Function, kind: Kind) -> &'static [Part] {
        match function {
            Function::Sum | Function::Mean => match kind {
                _ if kind.is_float() => &[Part::Mean, Part::Rest],
                _ if kind.width() >= HALF_BYTES => &[Part::Sum, Part::SumLow],
                _ => &[Part::Sum],
            },
            Function::Min => &[Part::Min],
            Function::Max => &[Part::Max],
            Function::First => &[Part::First],
            Function::Last => &[Part::Last],
            Function::Var | Function::Std => match kind {
                Kind::F64 => &[Part::Mean, Part::Rest, Part::M2, Part::Unit],
                // The squares of distances between binary32 fit into binary64.
                Kind::F32 => &[Part::Mean, Part::Rest, Part::M2],
                _ if kind.width() >= HALF_BYTES => &[Part::Sum, Part::SumLow, Part::M2],
                _ => &[Part::Sum, Part::M2],
            },
        }
    }
}

/// Sums of integers with this many bytes are kept in two columns, as 64 bits may not hold them.
const HALF_BYTES: usize = 4;

/// The column that counts the records of a group, in results and in partials.
pub(crate) const COUNT: &str = "count";

/// The columns of partials that say which batch a row belongs to, in order.
pub(crate) const ORIGIN_COLUMNS: [(&str, ColumnType); 4] = [
    ("node", ColumnType::Text),
    ("connection", ColumnType::Text),
    ("batch", ColumnType::U32),
    ("time_us", ColumnType::I64),
];

/// The names that no field may have, because results or partials have such a column anyway.
pub const RESERVED_NAMES: [&str; 5] = {
    let [(node, _), (connection, _), (batch, _), (time_us, _)] = ORIGIN_COLUMNS;
    [node, connection, batch, time_us, COUNT]
};

/// A column's name and type.
pub(crate) type NamedType = (String, ColumnType);

impl Schema {
    /// The name of an aggregate's column, such as `B_mean`.
    pub fn column_name(&self, aggregate: Aggregate) -> String {
        match aggregate {
            Aggregate::Count => COUNT.to_owned(),
            Aggregate::Of { field, function } => {
                format!("{}_{}", self.fields()[field].name, function.name())
            }
        }
    }

    /// The names of a result's columns, in order.
    pub fn column_names(&self) -> Vec<String> {
        names(self.columns())
    }

    /// Two columns of its results or partials whose names differ only in case, if there are any.
    pub(crate) fn same_but_for_case(&self) -> Option<(String, String)> {
        [names(self.columns()), names(self.partial_columns())].into_iter().find_map(|names| {
            let same = |name: &String| {
                let other = names
                    .iter()
                    .find(|other| *other != name && other.eq_ignore_ascii_case(name))?;
                Some((name.clone(), other.clone()))
            };
            names.iter().find_map(same)
        })
    }

    /// The columns of a result, in order.
    pub(crate) fn columns(&self) -> Vec<NamedType> {
        let aggregates = self.aggregates().iter().map(|&aggregate| {
            let column_type = match aggregate {
                Aggregate::Count => ColumnType::U64,
                Aggregate::Of { field, function } => {
                    ColumnType::of_function(function, self.fields()[field].kind)
                }
            };
            (self.column_name(aggregate), column_type)
        });
        self.key_columns().chain(aggregates).collect()
    }

    /// All parts that its aggregates need, each once, field by field in the order of the record:
    /// index of the field and part.
    pub(crate) fn parts(&self) -> Vec<(usize, Part)> {
        let mut parts: Vec<(usize, Part)> = self
            .aggregates()
            .iter()
            .flat_map(|&aggregate| match aggregate {
                Aggregate::Count => Vec::new(),
                Aggregate::Of { field, function } => {
                    let kind = self.fields()[field].kind;
                    Part::of(function, kind).iter().map(|&part| (field, part)).collect()
                }
            })
            .collect();
        parts.sort_unstable();
        parts.dedup();
        parts
    }

    /// The name of a part's column, such as `sum_B`.
    pub(crate) fn part_name(&self, field: usize, part: Part) -> String {
        format!("{}_{}", part.name(), self.fields()[field].name)
    }

    /// The columns of parts, in order.
    pub(crate) fn part_columns(&self) -> impl Iterator<Item = NamedType> {
        self.parts().into_iter().map(|(field, part)| {
            let column_type = ColumnType::of_part(part, self.fields()[field].kind);
            (self.part_name(field, part), column_type)
        })
    }

    /// The columns of partials, in order: the batch, the keys, the count, the parts.
    pub(crate) fn partial_columns(&self) -> Vec<NamedType> {
        let origin = ORIGIN_COLUMNS.map(|(name, column_type)| (name.to_owned(), column_type));
        let count = (COUNT.to_owned(), ColumnType::U64);
        origin
            .into_iter()
            .chain(self.key_columns())
            .chain([count])
            .chain(self.part_columns())
            .collect()
    }

    fn key_columns(&self) -> impl Iterator<Item = NamedType> {
        self.keys().map(|key| (key.name.clone(), ColumnType::of_field(key.kind)))
    }
}

/// The names of columns alone.
pub(super) fn names(columns: Vec<NamedType>) -> Vec<String> {
    columns.into_iter().map(|(name, _)| name).collect()
}
