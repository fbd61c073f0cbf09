"""What stands at the head of a report: what was run, on what, for how long, and the command."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from mtl_jax import config as configs
from mtl_jax import run as runs
from mtl_jax.reporting.figures import pretty


def method_in_words(config: configs.ExperimentConfig) -> str:
    """The method in words."""
    method, flat = config.method, config.method.flat
    options = ", ".join(f"{name} {value}" for name, value in method.options.items())
    words = f"Method {method.aggregator}" + (f" ({options})" if options else "")
    if method.prenormalise != "none":
        words += f", task gradients first normalised by {method.prenormalise}"
    if flat.combine == "erm":
        return f"{words}, without flat regions (ERM)"
    if flat.combine == "samo":
        kind = "adaptive radius" if flat.adaptive else "radius"
        return f"{words} with SAMO: {kind} {flat.rho:g}, beta {flat.beta:g}"
    heads = "" if flat.rho_heads is None else f", {flat.rho_heads:g} for the heads"
    less = "" if flat.every == 1 else f", perturbed in one of {flat.every} steps"
    less += "" if flat.rows == 1 else f", from {flat.rows:g} of the rows"
    less += "" if flat.synced else ", each device by its own gradients"
    kind = "adaptive radius" if flat.adaptive else "radius"
    return (
        f"{words} in flat regions: {kind} {flat.rho:g}{heads}, {flat.norm} norm, gradients and flat"
        f" parts combined by {flat.combine}{less}"
    )


def header(
    config: configs.ExperimentConfig,
    run: runs.Run | None,
    records: Sequence[Mapping[str, Any]],
    starts: Sequence[Mapping[str, Any]],
) -> dict[str, str]:
    """Returns what stands at the head of the page, name to value.

    Args:
      config: of the run.
      run: the run; None where it cannot be built here.
      records: of metrics.jsonl.
      starts: entries of environment.json.
    """
    train, optim = config.train, config.optim
    facts = {"Seed": str(config.seed)}
    for name in ("data", "model"):
        if hasattr(config, name):
            flat = configs.flatten(getattr(config, name))
            facts[name.capitalize()] = ", ".join(
                str(value) if key == "name" else f"{pretty(key)} {value}"
                for key, value in flat.items()
                if value not in ("", None)
            )
    if run:
        facts["Parameters"] = f"{runs.parameter_count(run.init()):,}"
        epochs = run.total_steps / run.data.steps_per_epoch
        facts["Length"] = (
            f"{run.total_steps:,} steps of {train.batch_size} examples, {epochs:.3g} epochs of"
            f" {run.data.steps_per_epoch:,} steps"
        )
    heads = "" if optim.heads_lr is None else f" (heads {optim.heads_lr:g})"
    facts["Optimiser"] = f"{optim.name}, learning rate {optim.lr:g}{heads}, {optim.schedule}"
    if seconds := training_seconds(records, starts):
        facts["Training time"] = _duration(seconds) + ", evaluations and compilation included"
    if starts:
        last = starts[-1]
        facts["Device"] = f"{last['device_count']} x {last['backend']} ({last['device_kind']})"
        if last["process_count"] > 1:
            facts["Device"] += f" in {last['process_count']} processes"
        facts["Host"] = f"{last['platform']}, {last['cpu_count']} CPUs, Python {last['python']}"
        facts["Versions"] = ", ".join(f"{k} {v}" for k, v in last["packages"].items() if v)
        facts["Git commit"] = last["git_commit"] or "unknown"
        times = len(starts)
        again = f", {times} starts in all" if times > 1 else ""
        facts["First start"] = starts[0]["date"] + again
        facts["Command"] = f"`{_command(last['argv'])}`"
    return facts


def _command(argv: Sequence[str]) -> str:
    """The command line that started a process, without the path of this package in it."""
    if argv and argv[0].endswith("train.py"):
        return f"python -m mtl_jax.train {shlex.join(argv[1:])}"
    return shlex.join(argv)


def training_seconds(
    records: Sequence[Mapping[str, Any]], starts: Sequence[Mapping[str, Any]]
) -> float:
    """Returns the wall time of the logged steps; time between two starts of a run is left out."""
    begun = sorted(datetime.datetime.fromisoformat(start["date"]).timestamp() for start in starts)
    total, previous = 0.0, None
    for record in records:
        now = record["time"]
        since = [t for t in begun if t <= now and (previous is None or t > previous)]
        origin = since[-1] if since else previous
        total += now - origin if origin is not None else 0.0
        previous = now
    return total


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
