"""What a peer's requirements cannot say, installed after them into the environment whose Python runs this.

    .peers/NAME/bin/python -m benchmarks.peers.extras NAME

Sample Factory 2.1.1 wants gymnasium < 1, and the PettingZoo that simple_tag needs wants 1 or newer in its
metadata only: it runs with 0.29.

PufferLib 3.0.0 comes as source. Its setup.py fetches raylib and box2d from GitHub for games that are not
played here (without GitHub: "urllib.error.URLError: <urlopen error [Errno -2] Name or service not known>";
2.0.6 does the same). NO_OCEAN, its own switch, leaves them out, and then fails: "NameError: name
'c_extension_paths' is not defined", a list that only the branch left out defines, so that it is defined
here as empty. With nvcc on the path and a torch for CPUs it fails too: "OSError: CUDA_HOME environment
variable is not set". Its C++ extension is built as it is.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGES = {
    "sample_factory_appo": ["mpe2==1.1.1", "pettingzoo==1.27.0"],
    "pufferlib_ppo": ["--no-build-isolation", "pufferlib==3.0.0"],
}


def build_environment(folder: str) -> dict[str, str]:
    """Variables for pip, so that PufferLib builds; folder: an empty one."""
    Path(folder, "sitecustomize.py").write_text("import builtins\n\nbuiltins.c_extension_paths = []\n")
    places = [place for place in os.environ["PATH"].split(os.pathsep) if not Path(place, "nvcc").exists()]
    return {**os.environ, "NO_OCEAN": "1", "PYTHONPATH": folder, "PATH": os.pathsep.join(places)}


def main() -> int:
    packages = PACKAGES.get(sys.argv[1])
    if packages is None:
        return 0
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", *packages]
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run(pip, env=build_environment(folder), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
