-- Written by `deploy/duckdb/merge.py --sql`. Reads partials, writes nothing by itself.
-- Where the partials are: paths or patterns, as many as there are directories.
SET VARIABLE groups = ['partials/*.groups.parquet'];
-- Floats are added as integers, so that no digits cancel and the order does not matter: the largest
-- mean of a group gives the power of two, and each number three pieces of 50 bits below it.
CREATE OR REPLACE TEMP MACRO times_power(x, power) AS
    x * pow(2, power // 2) * pow(2, power - power // 2);
CREATE OR REPLACE TEMP MACRO power_of(x) AS
    coalesce(CAST(floor(log2(nullif(x, 0))) AS INTEGER), 0);
CREATE OR REPLACE TEMP MACRO after_piece(x) AS
    x * 1125899906842624 - trunc(x * 1125899906842624);
CREATE OR REPLACE TEMP MACRO piece(x) AS
    CAST(TRY_CAST(trunc(x * 1125899906842624) AS BIGINT) AS HUGEINT);
CREATE OR REPLACE TEMP MACRO joined(x, y, z) AS
    CAST(x + y // 1125899906842624 AS DOUBLE)
    + CAST(y % 1125899906842624 AS DOUBLE) / 1125899906842624
    + CAST(z AS DOUBLE) / 1125899906842624 / 1125899906842624;
CREATE OR REPLACE TEMP MACRO sum_of_pieces(x, y, z) AS
    joined(x, y + z // 1125899906842624, z % 1125899906842624);
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
        "mean_C",
        "rest_C",
        "min_D"
    FROM read_parquet(getvariable('groups'))
),
-- The power of two of the largest mean.
rows_with_powers AS (
    SELECT *,
        power_of(max(CASE WHEN isfinite(rows."mean_C") THEN abs(rows."mean_C") END) OVER of_group) AS "power of mean_C"
    FROM rows_once AS rows
    WINDOW of_group AS (PARTITION BY "A", "E")
)
SELECT
    rows."A",
    rows."E",
    CAST(sum(rows."sum_B") AS DOUBLE) / CAST(sum(rows.count) AS DOUBLE) AS "B_mean",
    coalesce(sum(rows."mean_C") FILTER (NOT isfinite(rows."mean_C")), times_power(sum_of_pieces(coalesce(sum(piece(times_power(rows."mean_C", -rows."power of mean_C")) * rows.count + piece(times_power(rows."rest_C", -rows."power of mean_C"))) FILTER (isfinite(rows."mean_C")), 0), coalesce(sum(piece(after_piece(times_power(rows."mean_C", -rows."power of mean_C"))) * rows.count + piece(after_piece(times_power(rows."rest_C", -rows."power of mean_C")))) FILTER (isfinite(rows."mean_C")), 0), coalesce(sum(piece(after_piece(after_piece(times_power(rows."mean_C", -rows."power of mean_C")))) * rows.count + piece(after_piece(after_piece(times_power(rows."rest_C", -rows."power of mean_C"))))) FILTER (isfinite(rows."mean_C")), 0)), any_value(rows."power of mean_C") - 50)) AS "C_sum",
    min(rows."min_D") AS "D_min",
    TRY_CAST(sum(rows."count") AS UBIGINT) AS "count"
FROM rows_with_powers AS rows
GROUP BY rows."A", rows."E"
ORDER BY rows."A", CAST(replace(replace(CAST(encode(rows."E") AS VARCHAR), '\x5C\x5C', '\x5c'), '\x5Cx', '\x') AS BLOB);

FROM merged;
-- Into a file instead: COPY (FROM merged) TO 'result.parquet' (FORMAT parquet);
