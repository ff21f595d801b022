"""``python -m loadtest.bench``."""

from loadtest.bench.command import bench

bench(prog_name="python -m loadtest.bench")
