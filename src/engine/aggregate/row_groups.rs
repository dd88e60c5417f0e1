//! Groups the rows of a DataFrame and aggregates columns within the groups, using Polars. Knows
//! nothing of schemas and parts.

use polars::prelude::*;
use std::cell::OnceCell;

/// The rows of a frame, grouped. Within a group they keep their order.
///
/// Polars' lazy queries would do the same, but bring in a query planner that takes minutes to
/// compile. This calls what they call: `group_by` for the positions, then one function per column.
pub(super) struct RowGroups {
    keys: Vec<Column>,
    positions: Positions,
    runs: OnceCell<Runs>,
}

impl RowGroups {
    /// Groups the rows by the columns with these names.
    ///
    /// # Errors
    /// Fails if a column is missing.
    pub(super) fn of(
        frame: &DataFrame,
        keys: impl IntoIterator<Item: AsRef<str>>,
    ) -> PolarsResult<Self> {
        let grouped = frame.group_by(keys)?;
        let keys = grouped.keys();
        let positions = Positions { rows: frame.height(), groups: grouped.into_groups() };
        Ok(RowGroups { keys, positions, runs: OnceCell::new() })
    }

    /// The keys of each group.
    pub(super) fn keys(&self) -> Vec<Column> {
        self.keys.clone()
    }

    /// The number of groups.
    pub(super) fn len(&self) -> usize {
        self.positions.groups.len()
    }

    /// The number of rows of each group.
    pub(super) fn counts(&self) -> PolarsResult<Column> {
        self.positions.groups.group_count().into_column().cast(&DataType::UInt64)
    }

    /// The sum of each group; nulls count as 0.
    pub(super) fn sum(&self, column: &Column) -> Column {
        self.positions.aggregate(column, Column::agg_sum)
    }

    /// The smallest value of each group.
    pub(super) fn min(&self, column: &Column) -> Column {
        self.positions.aggregate(column, Column::agg_min)
    }

    /// The largest value of each group.
    pub(super) fn max(&self, column: &Column) -> Column {
        self.positions.aggregate(column, Column::agg_max)
    }

    /// The value of each group's first row.
    pub(super) fn first(&self, column: &Column) -> Column {
        self.positions.aggregate(column, Column::agg_first)
    }

    /// The value of each group's last row.
    pub(super) fn last(&self, column: &Column) -> Column {
        self.positions.aggregate(column, Column::agg_last)
    }

    /// The rows in the order of their groups, computed on first use.
    pub(super) fn runs(&self) -> &Runs {
        self.runs.get_or_init(|| Runs::of(&self.positions))
    }
}

/// The rows of a frame ordered by group, so that each group is a run of rows. This is used to
/// combine values with a value of their group, such as its mean.
pub(super) struct Runs {
    /// For each row in this order, its number in the frame.
    order: IdxCa,
    /// For each row in this order, the number of its group.
    group_of: IdxCa,
    positions: Positions,
}

impl Runs {
    fn of(positions: &Positions) -> Self {
        let mut order: Vec<IdxSize> = Vec::with_capacity(positions.rows);
        let mut group_of: Vec<IdxSize> = Vec::with_capacity(positions.rows);
        let mut runs = Vec::with_capacity(positions.groups.len());
        for (number, group) in (0..).zip(positions.groups.iter()) {
            let begin = order.len();
            match group {
                GroupsIndicator::Idx((_, rows)) => order.extend(rows.iter()),
                GroupsIndicator::Slice([first, length]) => order.extend(first..first + length),
            }
            group_of.resize(order.len(), number);
            runs.push([begin as IdxSize, (order.len() - begin) as IdxSize]);
        }
        let groups = GroupsType::new_slice(runs, false, true).into_sliceable();
        Runs {
            positions: Positions { rows: order.len(), groups },
            order: IdxCa::from_vec("".into(), order),
            group_of: IdxCa::from_vec("".into(), group_of),
        }
    }

    /// A column of the frame in the order of the runs.
    pub(super) fn ordered(&self, column: &Column) -> PolarsResult<Column> {
        column.take(&self.order)
    }

    /// Repeats a column with one value per group for each row of the group.
    pub(super) fn spread(&self, of_groups: &Column) -> PolarsResult<Column> {
        of_groups.take(&self.group_of)
    }

    /// The sum of each run.
    pub(super) fn sum(&self, column: &Column) -> Column {
        self.positions.aggregate(column, Column::agg_sum)
    }

    /// The mean of each run.
    pub(super) fn mean(&self, column: &Column) -> Column {
        self.positions.aggregate(column, Column::agg_mean)
    }
}

/// The rows of each group.
struct Positions {
    /// Number of rows; every position is lower.
    rows: usize,
    groups: GroupPositions,
}

impl Positions {
    fn aggregate(
        &self,
        column: &Column,
        aggregate: unsafe fn(&Column, &GroupsType) -> Column,
    ) -> Column {
        assert_eq!(column.len(), self.rows, "the column must have as many rows as the frame");
        // SAFETY: these functions use the positions without bounds checks. All positions are below
        // `rows`, which the assertion compares with the length of the column.
        unsafe { aggregate(column, &self.groups) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> DataFrame {
        let columns = vec![
            Column::new("key".into(), [7_u32, 8, 7, 9, 7]),
            Column::new("value".into(), [1.5_f64, 20.0, 2.5, -3.0, 5.0]),
        ];
        DataFrame::new(5, columns).unwrap()
    }

    /// Columns with the groups 7, 8 and 9 in this order, which Polars does not guarantee.
    fn sorted(groups: &RowGroups, columns: Vec<Column>) -> Vec<Vec<f64>> {
        let mut all = groups.keys();
        let names = (0..).map(|number: u32| number.to_string());
        all.extend(columns.into_iter().zip(names).map(|(c, name)| c.with_name(name.into())));
        let frame = DataFrame::new(groups.len(), all).unwrap();
        let frame = frame.sort(["key"], SortMultipleOptions::default()).unwrap();
        let floats = |column: &Column| {
            let column = column.cast(&DataType::Float64).unwrap();
            column.f64().unwrap().into_no_null_iter().collect()
        };
        frame.columns()[1..].iter().map(floats).collect()
    }

    #[test]
    fn aggregates_cover_the_rows_of_each_group_in_order() {
        let frame = frame();
        let groups = RowGroups::of(&frame, ["key"]).unwrap();
        assert_eq!(groups.len(), 3);
        let value = frame.column("value").unwrap();
        let of_groups = vec![
            groups.counts().unwrap(),
            groups.sum(value),
            groups.min(value),
            groups.max(value),
            groups.first(value),
            groups.last(value),
        ];
        let expected = [
            [3.0, 1.0, 1.0],
            [9.0, 20.0, -3.0],
            [1.5, 20.0, -3.0],
            [5.0, 20.0, -3.0],
            [1.5, 20.0, -3.0],
            [5.0, 20.0, -3.0],
        ];
        assert_eq!(sorted(&groups, of_groups), expected);
    }

    #[test]
    fn runs_pair_each_row_with_the_value_of_its_group() {
        let frame = frame();
        let groups = RowGroups::of(&frame, ["key"]).unwrap();
        let runs = groups.runs();
        let value = frame.column("value").unwrap();
        let ordered = runs.ordered(value).unwrap();
        let first = runs.spread(&groups.first(value)).unwrap();
        let distance = (&ordered - &first).unwrap();
        let of_groups = vec![runs.mean(&ordered), runs.sum(&distance)];
        assert_eq!(sorted(&groups, of_groups), [[3.0, 20.0, -3.0], [4.5, 0.0, 0.0]]);
    }

    #[test]
    #[should_panic(expected = "the column must have as many rows as the frame")]
    fn a_column_of_another_length_panics() {
        let groups = RowGroups::of(&frame(), ["key"]).unwrap();
        groups.sum(&Column::new("value".into(), [1_u64]));
    }
}
