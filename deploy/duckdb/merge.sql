-- Written by `deploy/duckdb/merge.py --sql`. Reads partials, writes nothing by itself.
-- Where the partials are: paths or patterns, as many as there are directories.
SET VARIABLE groups = ['partials/*.groups.parquet'];
CREATE OR REPLACE TEMP VIEW merged AS
WITH
-- One copy of each row: copies agree in node, connection, batch and keys.
rows_once AS (
    SELECT "node", "connection", "batch", "A", "E",
        any_value("time_us") AS "time_us",
        any_value("count") AS "count",
        any_value("sum_B") AS "sum_B",
        any_value("mean_C") AS "mean_C",
        any_value("rest_C") AS "rest_C",
        any_value("min_D") AS "min_D"
    FROM read_parquet(getvariable('groups'))
    GROUP BY "node", "connection", "batch", "A", "E"
),
-- The power of two of the largest mean of each group, and a scale.
with_powers AS (
    SELECT *,
        coalesce(floor(log2(max(CASE WHEN abs("mean_C") <= 1.7976931348623157e308 THEN nullif(greatest(abs("mean_C"), abs("rest_C")), 0) END) OVER of_group)), 0) AS "power of mean_C"
    FROM rows_once
    WINDOW of_group AS (PARTITION BY "A", "E")
),
-- Floats are added as integers, so that no digits cancel and the order does not matter:
-- in units of a part of that power.
with_units AS (
    SELECT *,
        CASE WHEN abs("mean_C") <= 1.7976931348623157e308 THEN "mean_C" * pow(2, floor((50 - "power of mean_C") / 2)) * pow(2, (50 - "power of mean_C") - floor((50 - "power of mean_C") / 2)) ELSE 0 END AS "units of mean_C",
        CASE WHEN abs("mean_C") <= 1.7976931348623157e308 THEN "rest_C" * pow(2, floor((50 - "power of mean_C") / 2)) * pow(2, (50 - "power of mean_C") - floor((50 - "power of mean_C") / 2)) ELSE 0 END AS "units of rest_C"
    FROM with_powers
),
-- Each number in three pieces of 50 bits.
with_pieces AS (
    SELECT *,
        CAST("units of mean_C" AS BIGINT) AS "piece 0 of mean_C",
        ("units of mean_C" - CAST("units of mean_C" AS BIGINT)) * 1125899906842624 AS "rest of mean_C",
        CAST("units of rest_C" AS BIGINT) AS "piece 0 of rest_C",
        ("units of rest_C" - CAST("units of rest_C" AS BIGINT)) * 1125899906842624 AS "rest of rest_C"
    FROM with_units
),
with_more_pieces AS (
    SELECT *,
        CAST("rest of mean_C" AS BIGINT) AS "piece 1 of mean_C",
        CAST(("rest of mean_C" - CAST("rest of mean_C" AS BIGINT)) * 1125899906842624 AS BIGINT) AS "piece 2 of mean_C",
        CAST("rest of rest_C" AS BIGINT) AS "piece 1 of rest_C",
        CAST(("rest of rest_C" - CAST("rest of rest_C" AS BIGINT)) * 1125899906842624 AS BIGINT) AS "piece 2 of rest_C"
    FROM with_pieces
),
merged_groups AS (
    SELECT "A", "E",
        sum(CAST("count" AS HUGEINT)) AS "all count",
        sum(CAST("sum_B" AS HUGEINT)) AS "all sum_B",
        min("min_D") AS "all min_D",
        sum(CAST("piece 0 of mean_C" AS HUGEINT) * CAST("count" AS HUGEINT) + CAST("piece 0 of rest_C" AS HUGEINT)) AS "piece 0 of mean_C",
        sum(CAST("piece 1 of mean_C" AS HUGEINT) * CAST("count" AS HUGEINT) + CAST("piece 1 of rest_C" AS HUGEINT)) AS "piece 1 of mean_C",
        sum(CAST("piece 2 of mean_C" AS HUGEINT) * CAST("count" AS HUGEINT) + CAST("piece 2 of rest_C" AS HUGEINT)) AS "piece 2 of mean_C",
        sum(CASE WHEN NOT abs("mean_C") <= 1.7976931348623157e308 THEN "mean_C" END) AS "special of mean_C",
        max(abs("mean_C")) AS "largest of mean_C",
        max("power of mean_C") AS "power of mean_C"
    FROM with_more_pieces
    GROUP BY "A", "E"
),
-- What the sums of pieces are beyond a piece.
with_low_carry AS (
    SELECT *,
        (("piece 2 of mean_C") // (1125899906842624)) AS "carry 2 of mean_C"
    FROM merged_groups
),
with_carries AS (
    SELECT *,
        (("piece 1 of mean_C" + "carry 2 of mean_C") // (1125899906842624)) AS "carry 1 of mean_C"
    FROM with_low_carry
)
SELECT "A", "E",
    CAST("all sum_B" AS DOUBLE) / CAST("all count" AS DOUBLE) AS "B_mean",
    coalesce("special of mean_C", (CAST("piece 0 of mean_C" + "carry 1 of mean_C" AS DOUBLE) + CAST("piece 1 of mean_C" + "carry 2 of mean_C" - "carry 1 of mean_C" * 1125899906842624 AS DOUBLE) / 1125899906842624 + CAST("piece 2 of mean_C" - "carry 2 of mean_C" * 1125899906842624 AS DOUBLE) / 1125899906842624 / 1125899906842624) * pow(2, floor(("power of mean_C" - 50) / 2)) * pow(2, ("power of mean_C" - 50) - floor(("power of mean_C" - 50) / 2))) AS "C_sum",
    "all min_D" AS "D_min",
    CASE WHEN "all count" BETWEEN 0 AND 18446744073709551615 THEN CAST("all count" AS UBIGINT) END AS "count"
FROM with_carries
ORDER BY "A", CAST(replace(replace(CAST(encode("E") AS STRING), '\x5C\x5C', '\x5c'), '\x5Cx', '\x') AS BLOB);

FROM merged;
-- Into a file instead: COPY (FROM merged) TO 'result.parquet' (FORMAT parquet);
