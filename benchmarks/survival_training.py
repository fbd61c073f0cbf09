"""Training of a survival network: epochs a second of this package against pycox's `LogisticHazard`.

Random rows of 20 numbers (one in twenty not known) with lifetimes on 20 bins; the network of
`mtl_jax.systems.ad_survival` with one head of hazards: an encoder of the numbers, a trunk of two
hidden layers, dropout 0.1; 256 rows a step, Adam. Both sides are on the CPU and take turns; a turn
is an epoch over the same rows. torch may use one thread or all, whichever makes it faster.

  mtl_jax  loop     the loop of `mtl_jax.train` without logs and checkpoints
  pycox    fit      its `fit` of the same network, written in torch
           bare     its loss of the same network in a loop of plain torch, by fused Adam
           vanilla  its `fit` of the network of its examples, which is smaller: another network

`over_ours` is the time over ours, above 1 ours is faster: the median over rounds, between the
quartiles `over_ours_low` and `over_ours_high`. "The same network": from our first parameters and
without dropout (masks are drawn in other ways) the losses on the first batch must be equal to
1e-5, or the run ends before it times anything; `last_difference` is that after five updates.

Two differences. pycox's own label transform puts a censored row into the bin before (rule "full"
of `survival.credit`); here both use the bins as they are (rule "index"), which is its loss. And our
dropout masks follow from a key for each row, so that they do not depend on the devices; torch draws
one mask a batch, which is less work.

pycox, with torch, lives in an environment of its own: name its Python.

    python -m benchmarks.survival_training                     # this package alone
    python -m benchmarks.survival_training --peers PATH/bin/python
    python -m benchmarks.survival_training --peers PATH/bin/python --quick
"""

from __future__ import annotations

import sys
import tempfile
import time as clock
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import timing
from benchmarks.peers import Peers
from benchmarks.side_dtrn import CHECKED, Loop
from benchmarks.sides import REST
from benchmarks.train_step import make_method
from benchmarks.versus_deepxde import Program, check_same
from benchmarks.versus_rechub import spread
from mtl_jax.data.lifetimes import LifetimeSet, Numbers, check_lifetimes
from mtl_jax.engine import parallel
from mtl_jax.engine.optim import path_name
from mtl_jax.errors import Parser, run_command
from mtl_jax.systems.ad_survival.builders import Prepared, inputs_of, make_network
from mtl_jax.systems.ad_survival.config import Config, DataConfig, ModelConfig
from mtl_jax.systems.ad_survival.data import columns_of, gather, loss_weights
from mtl_jax.systems.ad_survival.model import make_system
from mtl_jax.systems.ad_survival.preprocess import fit
from mtl_jax.systems.ad_survival.terms import make_targets
from mtl_jax.systems.base import Data, System
from mtl_jax.systems.row_data import row_data

FEATURES, BINS, BATCH, RATE = 20, 20, 256, 0.1
# Whole batches, so that an epoch is as many steps on both sides: pycox keeps the last, short one.
SIZES = ((10_240, (64, 64)), (51_200, (64, 64)), (10_240, (256, 256)))
THEIRS = ("fit", "bare", "vanilla")
COLUMNS = (
    "hidden", "rows", "library", "what", "parameters", "epochs_per_second", "median_ms", "min_ms",
    "cpu_ms", "threads", "over_ours", "over_ours_low", "over_ours_high", "first_difference",
    "last_difference",
)  # fmt: skip


def random_lifetimes(rows: int, features: int = FEATURES, bins: int = BINS) -> LifetimeSet:
    """Lifetimes that depend on some of the numbers; all but a few rows are for training.

    A third is censored; who lives beyond the last bin is censored at its end.
    """
    rng = np.random.default_rng(rows)
    held, total = BATCH, rows + 2 * BATCH
    x = rng.normal(size=(total, features))
    life = rng.exponential(bins / 3 * np.exp(x[:, : min(4, features)].mean(1)))
    gone = rng.uniform(0, 2 * bins, total)
    time = np.minimum(np.minimum(life, gone), bins).astype(np.float32)
    event = (life <= gone) & (life < bins)
    x[rng.random(x.shape) < 0.05] = np.nan
    zeros, order = np.zeros(total, np.float32), np.arange(total, dtype=np.int32)
    return check_lifetimes(
        LifetimeSet(
            name="random",
            unit="day",
            causes=("event",),
            event=event.astype(np.int32),
            time=time,
            upper=time,
            entry=zeros,
            start=zeros,
            group=order,
            group_name="",
            weight=zeros + 1,
            value=zeros,
            numbers=tuple(
                Numbers(f"x{k}", column.astype(np.float32), "linear")
                for k, column in enumerate(x.T)
            ),
            categories=(),
            texts=(),
            words=("",),
            image=np.zeros((total, 0, 0, 3), np.uint8),
            has_image=np.zeros(total, bool),
            history_names=(),
            history=np.zeros((total, 0, 0), np.float32),
            history_days=np.zeros(total, np.int32),
            vectors={},
            splits={
                "random": {
                    "train": order[:rows],
                    "validation": order[rows : rows + held],
                    "test": order[rows + held :],
                }
            },
            path=np.zeros((total, 0, 0), np.float32),
            truth={},
        ),
        "random",
    )


def build(
    found: LifetimeSet, hidden: tuple[int, ...], rate: float, bins: int = BINS, batch: int = BATCH
) -> tuple[System, Data, dict[str, np.ndarray]]:
    """Builds system and data as a run does, and the columns that batches are gathered from."""
    config = Config(
        data=DataConfig(
            short=tuple(map(float, range(bins + 1))), long=(0.0, float(bins), 2.0 * bins)
        ),
        model=ModelConfig(
            terms="short",
            censoring="index",
            out=hidden[0],
            trunk=hidden,
            dropout=rate,
            modality_dropout=0.0,
        ),
    )
    views, splits = config.data.views, found.splits["random"]
    fitted = fit(found, splits["train"], config.data.min_count)
    ready = Prepared(found, splits, fitted, None, None, 0)
    targets = make_targets(found, config.terms, views, config.model.censoring)
    weights = loss_weights(found, views, splits["train"], config.weights)
    columns = columns_of(found, inputs_of(ready), targets, views, weights)
    data = row_data(
        columns, splits, gather, batch_size=batch, eval_batch_size=batch, seed=0, shard=0, shards=1
    )
    return make_system(make_network(ready, config)), data, columns


class Trainer(Loop):
    """A run in memory that shows its parameters."""

    @property
    def params(self) -> Any:
        """The parameters."""
        return self._state.params


class Ours:
    """This package's side; writes the file that the other side reads.

    That has the first parameters ("params/..."), "x" [N, 2K], numbers and which are not known,
    "bin" [N] and "event" [N] of the training rows, and "first", which of them make the first batch.

    Args:
      path: of the file; None for none.
      rows: N.
      hidden: widths of the trunk; the encoder has that of the first.
      bins: of the grid.
      batch: rows a step.
      rate: dropout of the network that is timed; it is the one whose losses are compared where 0.

    Attributes:
      found: losses on the first batch, and how many parameters there are.
    """

    def __init__(
        self,
        path: Path | None,
        rows: int,
        hidden: tuple[int, ...],
        bins: int = BINS,
        batch: int = BATCH,
        rate: float = RATE,
    ) -> None:
        found = random_lifetimes(rows, bins=bins)
        system, data, columns = build(found, hidden, 0.0, bins, batch)
        plain = Trainer(system, data, make_method("ls"))
        first = data.train_batch(0)
        arrays = network_arrays(plain.params)
        _, losses = plain.on_batches([first] * CHECKED)
        # What stands for inputs that a row lacks is no parameter here: every row has numbers.
        self.found = {"losses": losses, "parameters": sum(leaf.size for leaf in arrays.values())}
        if path is not None:
            own = slice(0, rows)
            arrays = {f"params/{name}": leaf for name, leaf in arrays.items()}
            arrays["x"] = np.concatenate([columns["numbers"], columns["missing"]], 1)[own]
            # Bins are one day wide; found here and not by the package, as a check of it.
            at = np.minimum(np.floor(found.time), bins - 1)
            arrays["bin"] = at.astype(np.int64)[own]
            arrays["event"] = found.event.astype(np.float32)[own]
            np.savez(path, first=first["row"], **arrays)  # type: ignore[arg-type]
        self._loop, self._steps = plain, rows // batch
        if rate:
            system, data, _ = build(found, hidden, rate, bins, batch)
            self._loop = Trainer(system, data, make_method("ls"))

    def epoch(self) -> Any:
        """Trains for an epoch; returns the state."""
        return self._loop.train(self._steps)


def network_arrays(params: Any) -> dict[str, np.ndarray]:
    """The parameters that the other side has, too, by their names there."""
    found = {
        path_name(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    named = {"encoders/numbers/": "encoder/", "trunk/": "trunk/", "heads/": "head/"}
    arrays = {}
    for name, leaf in found.items():
        for ours, theirs in named.items():
            if name.startswith(ours):
                arrays[theirs + name.removeprefix(ours)] = leaf[0] if theirs == "head/" else leaf
    return arrays


def start_peer(python: str) -> Peers:
    """Returns the process with pycox; torch may take all cores there."""
    return Peers(python, "side_pycox.py", OMP_NUM_THREADS=str(timing.cores()))


def measure(
    peer: Peers | None,
    rows: int,
    hidden: tuple[int, ...],
    *,
    bins: int = BINS,
    batch: int = BATCH,
    rounds: int = 5,
    seconds: float = 10.0,
) -> list[dict[str, Any]]:
    """Times epochs of one size in turns; a row for each program.

    Args:
      peer: pycox's process; None for this package alone.
      rows: N.
      hidden: widths.
      bins: of the grid.
      batch: rows a step.
      rounds: see `timing.in_turns`.
      seconds: likewise.

    Raises:
      UserError: the peer computes something else.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shared.npz"
        ours = Ours(path, rows, hidden, bins, batch)
        programs = [Program("mtl_jax", "loop", ours.found)]
        own = timing.timer(ours.epoch)
        timers: dict[str, Any] = {"loop": lambda: _after_rest(own)}
        if peer is not None:
            how = {"batch_size": batch, "rate": RATE, "threads": timing.cores()}
            peer.ask(do="build", path=str(path), **how)
            for what in THEIRS:
                programs.append(Program("pycox", what, peer.ask(do="prepare", what=what)))
                if programs[-1].found["losses"]:
                    check_same(programs[0], programs[-1])
                timers[what] = lambda what=what: _after_rest(
                    lambda: tuple(peer.ask(do="time", what=what)["sample"])
                )
        taken = timing.in_turns(timers, rounds=rounds, seconds=seconds)
    return rows_of(programs, list(taken.values()), rows, hidden)


def _after_rest(sample: Any) -> timing.Sample:
    """A sample, once the threads of the side that was timed last sleep."""
    clock.sleep(REST)
    wall, cpu = sample()
    return wall, cpu


def rows_of(
    programs: Sequence[Program], times: Sequence[timing.Timing], rows: int, hidden: tuple[int, ...]
) -> list[dict[str, Any]]:
    """Returns a row for each program; the first is ours."""
    out = []
    for program, taken in zip(programs, times, strict=True):
        row: dict[str, Any] = {
            "hidden": "-".join(map(str, hidden)), "rows": rows,
            "library": program.library, "what": program.what,
            "parameters": program.found["parameters"],
            "epochs_per_second": round(1e3 / taken.median_ms, 3), **taken.fields(),
            "rounds": len(taken.samples),
        }  # fmt: skip
        if program is not programs[0]:
            low, high = spread(taken, times[0])
            row["threads"] = program.found["threads"]
            row["over_ours"] = round(taken.over(times[0]), 3)
            row |= {"over_ours_low": round(low, 3), "over_ours_high": round(high, 3)}
            if program.found["losses"]:
                first, last = check_same(programs[0], program)
                row |= {"first_difference": float(f"{first:.2e}")}
                row |= {"last_difference": float(f"{last:.2e}")}
        out.append(row)
    return out


def run(peer: Peers | None, quick: bool) -> list[dict[str, Any]]:
    """Runs every size, prints as it goes, and returns all rows."""
    found = []
    for rows, hidden in SIZES[:1] if quick else SIZES:
        new = measure(peer, rows, hidden, seconds=3.0 if quick else 10.0)
        timing.show(new, COLUMNS)
        found += new
    return found


def main(argv: list[str]) -> None:
    """The command."""
    parser = Parser("python -m benchmarks.survival_training")
    parser.add_argument("--quick", action="store_true", help="the smallest size only")
    parser.add_argument(
        "--peers", default=sys.executable, help="Python with pycox and torch; default: this one"
    )
    args = parser.parse_args(argv)
    jax.config.update("jax_platforms", "cpu")  # the other side is there too
    timing.without_compile_cache()
    parallel.check_batch_size(BATCH)
    if warning := timing.busy():
        print(f"warning: {warning}")
    before, peer = timing.environment(), start_peer(args.peers)
    try:
        if peer.missing:
            print(
                f"without pycox: {peer.missing}; install pycox and torch, or name a Python that"
                " has them: --peers"
            )
        rows = run(None if peer.missing else peer, args.quick)
    finally:
        peer.close()
    about = {**before, "peers": peer.versions}
    print(f"written: {timing.write('survival_training', rows, about, full=not args.quick)}")


if __name__ == "__main__":
    run_command(main)
