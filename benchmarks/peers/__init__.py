"""Other frameworks at the same workloads, one module for each; `benchmarks.compare` runs them.

Each runs in a virtual environment of its own (`.peers/MODULE`, from MODULE.txt), where nothing of this
repository can be imported but `envs` and this package.
"""
