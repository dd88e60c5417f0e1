-- Written by `deploy/duckdb/merge.py --sql`. Reads partials, writes nothing by itself.
-- Where the partials are: paths or patterns, as many as there are directories.
SET VARIABLE groups = ['partials/*.groups.parquet'];
CREATE OR REPLACE TEMP VIEW merged AS
WITH
-- One copy of each row: copies agree in node, connection, batch and keys.
rows_once AS (
    SELECT DISTINCT ON ("node", "connection", "batch", "A", "E")
        "node",
        "connection",
        "batch",
        "time_us",
        "A",
        "E",
        "count",
        "sum_B",
        "sum_C",
        "min_D"
    FROM read_parquet(getvariable('groups'))
)
SELECT
    rows."A",
    rows."E",
    CAST(sum(rows."sum_B") AS DOUBLE) / CAST(sum(rows.count) AS DOUBLE) AS "B_mean",
    TRY_CAST(sum(rows."sum_C") AS DOUBLE) AS "C_sum",
    min(rows."min_D") AS "D_min",
    TRY_CAST(sum(rows."count") AS UBIGINT) AS "count"
FROM rows_once AS rows
GROUP BY rows."A", rows."E"
ORDER BY rows."A", CAST(replace(replace(CAST(encode(rows."E") AS VARCHAR), '\x5C\x5C', '\x5c'), '\x5Cx', '\x') AS BLOB);

FROM merged;
-- Into a file instead: COPY (FROM merged) TO 'result.parquet' (FORMAT parquet);
