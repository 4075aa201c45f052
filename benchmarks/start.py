"""How long it takes to start: the median of several fresh processes, with the interpreter alone as the floor.

python benchmarks/start.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = {
    "python alone (floor)": [sys.executable, "-c", "pass"],
    "import askwhy": [sys.executable, "-c", "import askwhy"],
    "askwhy --help": [str(Path(sys.executable).with_name("askwhy")), "--help"],
    "askwhy methods": [str(Path(sys.executable).with_name("askwhy")), "methods"],
    "import captum": [sys.executable, "-c", "import captum.attr"],
    "import lime": [sys.executable, "-c", "import lime.lime_image"],
}


def seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def main(rounds: int = 7) -> None:
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds + 1):  # the first round only warms the disk's cache
        for name, command in COMMANDS.items():
            times[name].append(seconds(command))
    for name, found in times.items():
        print(f"{name:22s} {statistics.median(found[1:]):.3f} s")


if __name__ == "__main__":
    main()
