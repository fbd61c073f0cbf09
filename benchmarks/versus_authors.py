"""This package's FS-CAGrad step against that of the FS-MTL authors' own script, on this CPU.

Their `multi-mnist/train.py` is run as it stands, from a clone of their repository that you name:
ResNet-18, two tasks, batch 256, Adam, `--method cagrad --adaptive True --rho_eval 2`. It asks for
a GPU at every turn; here `.cuda()` gives back what it is called on, and the data file is one of
zeros, since only time is measured. A step is what lies between two updates of the shared
parameters: loading of the batch, both passes, aggregation and update. Ours is the whole compiled
training step of `benchmarks.train_step`. The two take turns, a process each; theirs also reads
four losses back at each step, as the script does. Both models are torchvision's ResNet-18 with one
input channel and 100 features.

    python -m benchmarks.versus_authors --source FS-MTL

Needs torch, torchvision, scipy, tqdm and pyyaml.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import models, timing
from benchmarks.timing import Sample, Timing
from benchmarks.train_step import Stepper, make_method
from mtl_jax.errors import Parser, UserError, run_command

BATCH = 256
# The script reshapes its data to these numbers of images.
TRAIN, TEST = 120_000, 20_000

RUNNER = """
import json, runpy, sys, time
import torch

# A torchvision built for another torch lacks its compiled operators; a ResNet needs none of them.
register = torch.library.register_fake
torch.library.register_fake = lambda *args, **kwargs: lambda function: function
import torchvision

torch.library.register_fake = register
torch.set_num_threads(int(sys.argv.pop(1)))
count = int(sys.argv.pop(1))
torch.Tensor.cuda = lambda self, *args, **kwargs: self
torch.nn.Module.cuda = lambda self, *args, **kwargs: self
# The script is older than the default that gradients become None.
zero_grad = torch.nn.Module.zero_grad
torch.nn.Module.zero_grad = lambda self: zero_grad(self, set_to_none=False)
seen, first = [], []
plain = torch.optim.Adam.step


def step(self, *args, **kwargs):
    out = plain(self, *args, **kwargs)
    first[:] = first or [self]
    if self is first[0]:
        seen.append((time.perf_counter(), time.process_time()))
    if len(seen) > count:
        pairs = zip(seen, seen[1:])
        samples = [[1e3 * (b[0] - a[0]), 1e3 * (b[1] - a[1])] for a, b in pairs]
        print("SAMPLES", json.dumps({"samples": samples, "torch": torch.__version__}), flush=True)
        raise SystemExit(0)
    return out


torch.optim.Adam.step = step
sys.argv = ["train.py", *sys.argv[1:]]
runpy.run_path("train.py", run_name="__main__")
"""


def write_data(folder: Path) -> None:
    """Writes zeros in the layout of the script's data file."""
    sets = [np.zeros((TRAIN, 36, 36), np.uint8), np.zeros((TRAIN, 2), np.int64)]
    sets += [np.zeros((TEST, 36, 36), np.uint8), np.zeros((TEST, 2), np.int64)]
    folder.mkdir()
    with open(folder / "zeros.pickle", "wb") as file:
        pickle.dump(tuple(sets), file)


def theirs(script: Path, threads: int, steps: int) -> tuple[list[Sample], str]:
    """Runs their script for so many steps; returns (ms, CPU ms) of each, and torch's version."""
    with tempfile.TemporaryDirectory() as work:
        for file in script.glob("*.py"):
            (Path(work) / file.name).symlink_to(file.absolute())
        write_data(Path(work) / "data")
        options = ["--dset", "zeros", "--method", "cagrad", "--adaptive", "True"]
        options += ["--adaptive_eval", "True", "--rho_eval", "2", "--batch_size", str(BATCH)]
        done = subprocess.run(
            [sys.executable, "-c", RUNNER, str(threads), str(steps), *options],
            cwd=work,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": work},
            capture_output=True,
            text=True,
            check=False,
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith("SAMPLES ")]
    if not lines:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise UserError(f"{script}/train.py did not run: {last}")
    found = json.loads(lines[0].removeprefix("SAMPLES "))
    return [(wall, cpu) for wall, cpu in found["samples"]], found["torch"]


def main(argv: list[str]) -> None:
    """The command."""
    parser = Parser("python -m benchmarks.versus_authors")
    parser.add_argument("--source", type=Path, required=True, help="clone of the FS-MTL repository")
    parser.add_argument("--steps", type=int, default=4, help="steps of each side in a round")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(argv)
    script = args.source / "multi-mnist"
    if not (script / "train.py").exists():
        raise UserError(f"{script}/train.py is not there; --source must be a clone of FS-MTL")
    if args.steps < 1 or args.rounds < 1:
        raise UserError(f"--steps {args.steps} and --rounds {args.rounds} must be 1 or more")
    environment = timing.environment()
    stepper = Stepper(*models.build("resnet18", 2, BATCH), make_method("fs_cagrad"))
    mine = timing.timer(stepper)
    ours: list[Sample] = []
    others: list[Sample] = []
    for number in range(args.rounds):
        samples, version = theirs(script, timing.cores(), args.steps)
        others += samples
        ours += [mine() for _ in samples]
        print(f"round {number + 1} of {args.rounds}", flush=True)
    our_times, their_times = Timing(tuple(ours)), Timing(tuple(others))
    row = {
        "model": "resnet18",
        "tasks": 2,
        "batch": BATCH,
        "method": "FS-CAGrad",
        "ours": our_times.fields(),
        "theirs": their_times.fields(),
        "ratio": round(our_times.median_ms / their_times.median_ms, 4),
        "steps": len(ours),
    }
    environment["authors"] = {"torch": version}
    path = timing.write("versus_authors", [row], environment, full=True)
    print(f"ours {our_times.median_ms:.0f} ms, theirs {their_times.median_ms:.0f} ms a step")
    print(f"written: {path}")


if __name__ == "__main__":
    run_command(main)
