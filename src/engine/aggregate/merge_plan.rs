//! How each column of partials is merged, and what is made of the merged columns, as JSON for the
//! metadata of a file of groups: any program can merge by it. `parts` does the same with Polars.

use crate::wire::schema::columns::{COUNT, ColumnType, ORIGIN_COLUMNS, Part};
use crate::wire::schema::{Aggregate, Function, Kind, Schema};
use serde::Serialize;

/// The key of the metadata.
pub(super) const MERGE_KEY: &str = "ringest.merge";
/// The version of its value; it changes when an old reader would merge wrongly.
const VERSION: u32 = 2;

/// What a program needs to know to merge files of groups.
#[derive(Serialize)]
struct MergePlan {
    version: u32,
    /// What makes a row unique, beside its keys.
    identity: [&'static str; 3],
    /// The order of time, in which the first and the last value are found.
    order: [&'static str; 4],
    keys: Vec<PlannedKey>,
    columns: Vec<PlannedColumn>,
    result: Vec<PlannedResult>,
}

#[derive(Serialize)]
struct PlannedKey {
    name: String,
    #[serde(rename = "type")]
    type_name: &'static str,
}

/// A column of partials, and how its rows of a group become one value.
#[derive(Serialize)]
struct PlannedColumn {
    name: String,
    #[serde(rename = "type")]
    type_name: &'static str,
    merge: &'static str,
    /// Of squared distances, the columns of the mean that they are around: a sum, or a mean and
    /// its rest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    around: Vec<String>,
    /// Of squared distances, the column of the unit of distances, if it may differ from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
}

/// A column of the result, and how it follows from the merged columns `of`.
#[derive(Serialize)]
struct PlannedResult {
    name: String,
    #[serde(rename = "type")]
    type_name: &'static str,
    finish: &'static str,
    of: Vec<String>,
}

/// The value of the metadata of a schema's files of groups.
pub(super) fn merge_plan(schema: &Schema) -> String {
    let [node, connection, batch, time] = ORIGIN_COLUMNS.map(|(name, _)| name);
    let keys = schema.keys().map(|key| PlannedKey {
        name: key.name.clone(),
        type_name: ColumnType::of_field(key.kind).name(),
    });
    let count = PlannedColumn {
        name: COUNT.to_owned(),
        type_name: ColumnType::U64.name(),
        merge: "sum",
        around: Vec::new(),
        unit: None,
    };
    let parts = schema.parts().into_iter().map(|(field, part)| planned_part(schema, field, part));
    let plan = MergePlan {
        version: VERSION,
        identity: [node, connection, batch],
        order: [time, node, connection, batch],
        keys: keys.collect(),
        columns: [count].into_iter().chain(parts).collect(),
        result: schema.aggregates().iter().map(|&one| planned_result(schema, one)).collect(),
    };
    serde_json::to_string(&plan).expect("names and words are JSON")
}

fn planned_part(schema: &Schema, field: usize, part: Part) -> PlannedColumn {
    let merge = match part {
        Part::Sum | Part::SumLow => "sum",
        Part::Min => "min",
        Part::Max => "max",
        Part::First => "first",
        Part::Last => "last",
        Part::Mean => "mean",
        Part::Rest => "rest",
        Part::M2 => "squares",
        Part::Unit => "unit",
    };
    let kind = schema.fields()[field].kind;
    let is_squares = part == Part::M2;
    let mean = Part::of(Function::Mean, kind).iter().filter(|_| is_squares);
    PlannedColumn {
        name: schema.part_name(field, part),
        type_name: ColumnType::of_part(part, kind).name(),
        merge,
        around: mean.map(|&part| schema.part_name(field, part)).collect(),
        unit: (is_squares && kind == Kind::F64).then(|| schema.part_name(field, Part::Unit)),
    }
}

fn planned_result(schema: &Schema, aggregate: Aggregate) -> PlannedResult {
    let name = schema.column_name(aggregate);
    let Aggregate::Of { field, function } = aggregate else {
        let type_name = ColumnType::U64.name();
        return PlannedResult { name, type_name, finish: "sum", of: vec![COUNT.to_owned()] };
    };
    let kind = schema.fields()[field].kind;
    let finish = match function {
        Function::Sum => "sum",
        Function::Mean => "mean",
        Function::Min | Function::Max | Function::First | Function::Last => "value",
        Function::Var => "variance",
        Function::Std => "deviation",
    };
    // The mean of a variance has done its work once the squares are merged.
    let parts: &[Part] = match function {
        Function::Var | Function::Std => &[Part::M2],
        _ => Part::of(function, kind),
    };
    PlannedResult {
        name,
        type_name: ColumnType::of_function(function, kind).name(),
        finish,
        of: parts.iter().map(|&part| schema.part_name(field, part)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_plan_names_each_column_and_what_becomes_of_it() {
        let schema = "name = 'm'\nendian = 'big'\n\
            field = [{ name = 'K', type = 'text', bytes = 4 }, \
            { name = 'U', type = 'u64' }, { name = 'F', type = 'f32' }]\n\
            result.by = ['K']\nresult.aggregates = ['U:mean', 'U:max', 'F:std', 'F:last']\n";
        let schema = Schema::from_toml(schema).unwrap();
        let plan: Value = serde_json::from_str(&merge_plan(&schema)).unwrap();
        let expected = json!({
            "version": 2,
            "identity": ["node", "connection", "batch"],
            "order": ["time_us", "node", "connection", "batch"],
            "keys": [{"name": "K", "type": "text"}],
            "columns": [
                {"name": "count", "type": "u64", "merge": "sum"},
                {"name": "sum_U", "type": "u64", "merge": "sum"},
                {"name": "sum_low_U", "type": "u64", "merge": "sum"},
                {"name": "max_U", "type": "u64", "merge": "max"},
                {"name": "last_F", "type": "f32", "merge": "last"},
                {"name": "mean_F", "type": "f64", "merge": "mean"},
                {"name": "rest_F", "type": "f64", "merge": "rest"},
                {"name": "m2_F", "type": "f64", "merge": "squares", "around": ["mean_F", "rest_F"]},
            ],
            "result": [
                {"name": "U_mean", "type": "f64", "finish": "mean", "of": ["sum_U", "sum_low_U"]},
                {"name": "U_max", "type": "u64", "finish": "value", "of": ["max_U"]},
                {"name": "F_std", "type": "f64", "finish": "deviation", "of": ["m2_F"]},
                {"name": "F_last", "type": "f32", "finish": "value", "of": ["last_F"]},
                {"name": "count", "type": "u64", "finish": "sum", "of": ["count"]},
            ],
        });
        assert_eq!(plan, expected);
    }
}
