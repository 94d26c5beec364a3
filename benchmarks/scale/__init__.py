"""How speed and costs go with the size of a run: `python -m benchmarks.scale --help`."""
