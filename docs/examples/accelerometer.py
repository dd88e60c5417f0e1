# %% [markdown]
# # From a C struct to a plot
#
# Accelerometers send the struct that `accelerometer.toml` describes. An engine groups the samples
# by sensor and second and writes a Parquet file for each stream. This program sends one stream,
# reads its file and plots it.
#
# Run it cell by cell as a notebook (VS Code, Spyder, PyCharm and Jupytext know these marks), or as
# a program:
#
#     cargo build --release
#     pip install './clients/python[results]' matplotlib
#     python docs/examples/accelerometer.py
#
# | variable | meaning |
# | --- | --- |
# | `RINGEST_BIN` | the program; by default `target/release/ringest` of this clone |
# | `PLOT` | the file of the plot; by default `accelerometer.png` in the working directory |
#
# It starts an engine of its own, which exits after one stream. `docs/operating` shows how to run
# one for longer.

# %%
import math
import os
import random
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt

from ringest import RecordSender, Schema, read_result

here = Path(__file__).parent
binary = os.environ.get("RINGEST_BIN") or here.parents[1] / "target/release/ringest"
schema_path = here / "accelerometer.toml"
schema = Schema.from_file(schema_path)
print(f"{schema.name}: records of {schema.record_bytes} bytes")
print("result:", ", ".join(f"{column.name} {column.type}" for column in schema.result_columns))

# %% [markdown]
# ## An engine with this schema
#
# The engine chooses free ports and exits when it has written the result of one stream.

# %%
folder = tempfile.TemporaryDirectory()
engine = subprocess.Popen(
    [
        binary, "serve", "--schema", schema_path, "--host", "127.0.0.1",
        "--records-port", "0", "--no-messages", "--admin-port", "0", "--exit-after", "1",
        "--output", folder.name, "--output-format", "parquet",
    ],
    stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
)  # fmt: skip
assert engine.stderr is not None
port = 0
for line in engine.stderr:
    if ready := re.search(r"ready for records on \S+:(\d+)", line):
        port = int(ready[1])
        break
    print(line, end="")
if port == 0:
    raise SystemExit(f"the engine did not start; its messages are above ({binary} serve)")
print(f"the engine accepts records on port {port}")


# %% [markdown]
# ## A stream
#
# Three sensors take 100 samples a second each, for a minute. The second is on a machine that is
# switched on after 20 s; the third has come loose.


# %%
def samples() -> Iterator[dict[str, float]]:
    """The samples of one minute, in order of time."""
    noise = random.Random(7)
    for second in range(60):
        for millisecond in range(0, 1000, 10):
            angle = 2.0 * math.pi * 7.3 * (second + millisecond / 1000.0)
            swings = (0.0, 180.0 if second >= 20 else 5.0, 3.0 * second)
            for sensor, swing in enumerate(swings, 1):
                yield {
                    "second": second,
                    "millisecond": millisecond,
                    "sensor": sensor,
                    "x": round(noise.gauss(0.0, 4.0)),
                    "y": round(noise.gauss(0.0, 4.0)),
                    "z": round(1000.0 + swing * math.sin(angle + sensor) + noise.gauss(0.0, 8.0)),
                    "temperature": 21.0 + sensor + second / 30.0,
                }


with RecordSender(schema, "127.0.0.1", port) as sender:
    sender.send_many(samples())
print(f"sent {sender.records} records, {sender.packets} packets, {sender.bytes_sent} bytes")

# %% [markdown]
# ## The result
#
# The engine renames the file when it is whole, so a file that you can see is a file that you can
# read. The file of a stream that was cut off has `.incomplete` in its name.

# %%
patience_s = 30.0
waiting_since_s = time.monotonic()
while not (files := sorted(Path(folder.name).glob("*.parquet"))):
    if time.monotonic() - waiting_since_s > patience_s:
        engine.send_signal(signal.SIGTERM)
        raise SystemExit(f"no result in {patience_s:.0f} s; engine:\n{engine.stderr.read()}")
    time.sleep(0.05)
result = read_result(files[0], schema)
engine.communicate(timeout=patience_s)
folder.cleanup()
print(f"{result.status} at {result.started}: {len(result)} groups")
assert result.status == "complete"
assert sum(result["count"]) == sender.records

# %% [markdown]
# ## The plot
#
# The mean of z is 1 g for all three. How far it swings within a second tells them apart.

# %%
plot_path = Path(os.environ.get("PLOT", "accelerometer.png"))
groups = list(result.rows())
figure, axes = plt.subplots(3, 1, sharex=True, sharey=True, figsize=(8.0, 6.0))
for axis, sensor in zip(axes, sorted(set(result["sensor"])), strict=True):
    own = [group for group in groups if group["sensor"] == sensor]
    seconds = [group["second"] for group in own]
    lows, highs = [group["z_min"] for group in own], [group["z_max"] for group in own]
    axis.fill_between(seconds, lows, highs, step="mid", alpha=0.3, label="min to max")
    axis.plot(seconds, [group["z_mean"] for group in own], label="mean")
    spread = max(group["z_std"] for group in own)
    axis.set_title(f"sensor {sensor}, standard deviation up to {spread:.0f} mg", fontsize=10)
    axis.set_ylabel("z in mg")
axes[0].legend(loc="upper left")
axes[-1].set_xlabel("second")
figure.tight_layout()
figure.savefig(plot_path)
print(f"plotted to {plot_path}")
