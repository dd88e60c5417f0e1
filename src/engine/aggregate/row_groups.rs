//! Groups the rows of a DataFrame and aggregates columns within the groups, using Polars. Knows
//! nothing of schemas and parts.

use polars::prelude::*;

/// The rows of a frame, grouped. Within a group they keep their order.
///
/// Polars' lazy queries would do the same, but bring in a query planner that takes minutes to
/// compile. This calls what they call: `group_by` for the positions, then one function per column.
pub(super) struct RowGroups {
    keys: Vec<Column>,
    positions: Positions,
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
        Ok(RowGroups { keys, positions })
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

    /// What `of` makes of the rows of each group.
    pub(super) fn map<T>(&self, of: impl FnMut(GroupRows<'_>) -> T) -> Vec<T> {
        let rows = self.positions.groups.iter().map(|group| match group {
            GroupsIndicator::Idx((_, listed)) => GroupRows { listed, range: [0, 0] },
            GroupsIndicator::Slice(range) => GroupRows { listed: &[], range },
        });
        rows.map(of).collect()
    }
}

/// The numbers of a group's rows, in order.
#[derive(Clone, Copy)]
pub(super) struct GroupRows<'a> {
    listed: &'a [IdxSize],
    /// The first, and how many, if they are not listed.
    range: [IdxSize; 2],
}

impl<'a> GroupRows<'a> {
    pub(super) fn iter(self) -> impl Iterator<Item = usize> + Clone + 'a {
        let [first, length] = self.range;
        self.listed.iter().copied().chain(first..first + length).map(|row| row as usize)
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
    fn the_rows_of_a_group_come_in_order() {
        for (frame, rows) in [
            (frame(), [vec![0, 2, 4], vec![1], vec![3]]),
            (frame().slice(1, 0), Default::default()),
        ] {
            let groups = RowGroups::of(&frame, ["key"]).unwrap();
            let mut found = groups.map(|rows| rows.iter().collect::<Vec<_>>());
            found.sort();
            assert_eq!(found, rows.into_iter().filter(|rows| !rows.is_empty()).collect::<Vec<_>>());
        }
        let range = GroupRows { listed: &[], range: [3, 2] };
        assert!(range.iter().eq([3, 4]));
    }

    #[test]
    #[should_panic(expected = "the column must have as many rows as the frame")]
    fn a_column_of_another_length_panics() {
        let groups = RowGroups::of(&frame(), ["key"]).unwrap();
        groups.sum(&Column::new("value".into(), [1_u64]));
    }
}
