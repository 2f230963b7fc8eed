"""The golden tests under the kernels and thread counts of other machines: `make test-portable`.

What a processor computes in another order shows in the last bits. PyTorch takes its kernels from ATEN_CPU_CAPABILITY,
oneDNN and MKL theirs from a variable each; a number of threads cuts a sum in other places.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
KERNELS = ({"ATEN_CPU_CAPABILITY": "default"}, {"ATEN_CPU_CAPABILITY": "avx2"}, {})
PRODUCTS = ({}, {"ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"})  # of matrices
THREADS = ({"OMP_NUM_THREADS": "1"}, {"OMP_NUM_THREADS": "4"})


def run(chosen: dict[str, str], arguments: list[str]) -> tuple[bool, str]:
    """Whether the golden tests pass in this environment, and what they end with."""
    decisive = {name for choices in (KERNELS, PRODUCTS, THREADS) for choice in choices for name in choice}
    environment = {name: value for name, value in os.environ.items() if name not in decisive}
    # threads that wait for work must not take it from others, where there are more of them than cores
    environment |= {"OMP_WAIT_POLICY": "passive", **chosen}
    command = [sys.executable, "-m", "pytest", "tests", "-m", "golden", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stdout.write(done.stdout[-6000:] + done.stderr[-2000:])
    header = re.search(r"^torch .* threads", done.stdout, re.MULTILINE)
    ends = re.findall(r"^=+ (.*\d+ (?:passed|failed|error).*) =+$", done.stdout, re.MULTILINE)
    return done.returncode == 0, f"{header[0] if header else 'torch'}: {ends[-1] if ends else 'nothing ran'}"


def main(arguments: list[str]) -> int:
    failed = []
    for choices in itertools.product(KERNELS, PRODUCTS, THREADS):
        chosen = {name: value for choice in choices for name, value in choice.items()}
        named = " ".join(f"{name}={value}" for name, value in chosen.items())
        passed, end = run(chosen, arguments)
        sys.stdout.write(f"{'pass' if passed else 'FAIL'}  {named}\n      {end}\n")
        sys.stdout.flush()
        if not passed:
            failed.append(named)
    sys.stdout.write(f"{len(failed)} of {len(KERNELS) * len(PRODUCTS) * len(THREADS)} environments failed\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
