"""Plots the mean and the highest power of each station, from all complete results."""

import duckdb
import matplotlib.pyplot as plt

stations = duckdb.sql("""
    SELECT site, station,
           sum(power_w_mean * "count") / sum("count") AS mean_w,
           max(power_w_max) AS highest_w
    FROM read_parquet('results/*.parquet')
    WHERE status = 'complete'
    GROUP BY site, station
    ORDER BY site, station
""").df()

figure, axes = plt.subplots(figsize=(8.0, 3.6), layout="constrained")
labels = stations["site"] + " " + stations["station"].astype(str)
axes.bar(labels, stations["highest_w"], color="#c9d3e0", label="highest")
axes.bar(labels, stations["mean_w"], width=0.5, color="#c85411", label="mean")
axes.set_ylabel("power in W")
axes.tick_params(axis="x", rotation=40)
axes.spines[["top", "right"]].set_visible(False)
axes.legend(frameon=False)
figure.savefig("meter.svg")
