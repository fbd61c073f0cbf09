"""Trains an experiment: `python -m mtl_jax.train --config FILE --workdir DIR [--config.a.b=value]`.

The one loop, to be read from top to bottom. The same command again resumes where the run stopped,
bit for bit; SIGTERM or Ctrl-C saves first.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mtl_jax import config as configs
from mtl_jax import flags
from mtl_jax import run as runs
from mtl_jax.data.loader import prefetch
from mtl_jax.engine import parallel, runfolder, tables
from mtl_jax.engine.checkpoint import Checkpoints
from mtl_jax.engine.profiler import StepTimer, Trace
from mtl_jax.engine.state import TrainState
from mtl_jax.engine.step import stack_batches
from mtl_jax.engine.writers import Writers, event_writer_class
from mtl_jax.errors import Parser, UserError, did_you_mean, run_command

# Calls that may be under way at once. More would hide nothing and, with several devices on one
# CPU, can starve a collective of threads.
IN_FLIGHT = 2

# Calls between two looks at whether a signal asks to stop: several processes have to agree on it,
# which costs a collective.
STOP_EVERY = 5

# Up to so many tasks the cosine of every pair is logged: 45 numbers a line, not 780.
MATRIX_TASKS = 10

# What may differ when a run goes on: it changes how long or how it is watched, not what it is.
MAY_CHANGE = {
    "name",
    "train.epochs",
    "train.steps",
    "train.eval_every",
    "train.log_every",
    "train.keep_last",
    "train.steps_per_call",
    "train.backend",
    "train.reduce",
    "train.profile",
    "train.tensorboard",
    "train.report",
    "optim.tables.backend",
    "optim.tables.capacity",
}


def train(config: configs.ExperimentConfig, workdir: Path) -> dict[str, float]:
    """Trains, or goes on training, in `workdir`; returns the final metrics.

    Raises:
      UserError: what the user can mend, a loss that is not finite included.
    """
    stop = _stop_on_signals()
    log = print if parallel.process_index() == 0 else _silent
    with runfolder.claim(workdir) as folder, contextlib.ExitStack() as closing:
        # ---------------------------------------------------------- system, data, state
        run = runs.build(config)
        tasks, settings = run.system.task_names, config.train
        _check_watching(run)
        every = settings.eval_every or run.data.steps_per_epoch
        checkpoints = closing.enter_context(
            Checkpoints(
                folder,
                keep_last=settings.keep_last,
                metric=settings.select,
                mode=settings.select_mode,
                log=log,
            )
        )
        _check_same_run(config, folder, checkpoints, log)
        state, start = run.init(), 0
        log(
            f"{config.name}: {len(tasks)} tasks, {runs.parameter_count(state):,} parameters,"
            f" {run.total_steps} steps of {settings.batch_size}"
            f" ({run.data.steps_per_epoch} an epoch) on {parallel.describe_devices()}"
        )
        restored = checkpoints.restore(state)
        if restored is not None:
            state, start, _ = restored
            log(f"resuming at step {start} of {run.total_steps}")
        if start > run.total_steps:
            raise UserError(
                f"{folder} is at step {start}, beyond the {run.total_steps} steps of this config;"
                " give more train.epochs or train.steps, or another workdir"
            )
        if restored is None and config.init_from:
            state = runs.warm_start(run, state, log)
        state = run.place(state)
        _write_config(config, folder)
        writers = closing.enter_context(
            Writers(folder, settings.tensorboard, resume_step=start if restored else None)
        )

        # ---------------------------------------------------------- the loop
        timer = StepTimer(settings.batch_size)
        trace = closing.enter_context(Trace(folder, *settings.profile))
        count = settings.steps_per_call
        if start % count:
            raise UserError(
                f"config.train.steps_per_call is {count}, but the run goes on at step {start},"
                " which is no multiple of it; go on with the number it was started with, or with 1"
            )

        def batch_of_call(step: int) -> Any:
            if count == 1:
                return run.data.train_batch(step)
            return stack_batches([run.data.train_batch(k) for k in range(step, step + count)])

        calls = range(start, run.total_steps, count)
        batches = prefetch(map(batch_of_call, calls), 2)
        closing.callback(batches.close)
        window: list[dict[str, np.ndarray]] = []
        flying: collections.deque[tuple[int, Any]] = collections.deque()

        def land(leave: int) -> None:
            """Fetches the oldest steps under way, until `leave` are left, and checks them."""
            while len(flying) > leave:
                first, metrics = flying.popleft()
                metrics = parallel.to_host(metrics)
                timer.tick(count)
                for k in range(count):
                    one = (
                        {name: leaf[k] for name, leaf in metrics.items()} if count > 1 else metrics
                    )
                    if run.tables is not None:
                        tables.check_capacity(run.tables, one["table_rows"], first + k)
                    _check_finite(one["losses"], tasks, first + k, checkpoints)
                    window.append(one)

        def evaluate_and_save(now: int, state: TrainState) -> None:
            with timer.pause():
                values, _ = runs.evaluate(run, state, "validation")
                scores = {f"validation/{name}": value for name, value in values.items()}
                writers.write(now, scores, kind="eval")
                checkpoints.save(now, run.export(state), scores)

        if start < run.total_steps:
            with timer.compile():
                run.train_step.compile(state, run.data.resident, batch_of_call(start))
        for step in calls:
            with trace.step(step, count):
                state, metrics = run.train_step(state, run.data.resident, next(batches))
            now, last = step + count, step + count == run.total_steps
            flying.append((step + 1, metrics))
            land(IN_FLIGHT - 1)
            logs, saves = now % settings.log_every == 0 or last, now % every == 0 or last
            asks = now // count % STOP_EVERY == 0
            stops = parallel.any_process(stop.requested) if asks else False
            if logs or saves or stops:
                land(0)
            if logs:
                left = timer.summary().get("step_ms", 0.0) / 1e3 * (run.total_steps - now)
                times = {"eta_seconds": left, **timer.summary()}
                writers.write(now, summarise(window, tasks, times))
                window.clear()
            if saves or stops:
                evaluate_and_save(now, state)
            if stops and not last:
                checkpoints.wait()
                log(f"stopped by a signal at step {now}; the same command goes on from here")
                raise SystemExit(0)

        # ---------------------------------------------------------- the end
        checkpoints.wait()
        final: dict[str, float] = {}
        for which in ("best", "last"):
            chosen, at = runs.restore(run, folder, which, log=log)
            for split in run.data.splits:
                values = runs.final_scores(run, chosen, split)
                final.update({f"{which}/{split}/{name}": value for name, value in values.items()})
            final[f"{which}/step"] = at
        if parallel.process_index() == 0:
            runfolder.write_json_atomic(folder / "results.json", final)
        if settings.report and parallel.process_index() == 0:
            from mtl_jax import report

            log(f"report: {report.write(folder, run=run)}")
    return final


def _silent(line: str) -> None:
    del line


def _check_watching(run: runs.Run) -> None:
    """Raises a `UserError` for what would else come up at the first evaluation or event."""
    settings = run.config.train
    scores = [f"validation/{name}" for name in runs.metric_names(run, "validation")]
    if settings.select not in scores:
        raise UserError(
            f"config.train.select is {settings.select!r}; {did_you_mean(settings.select, scores)}"
        )
    if settings.tensorboard:
        event_writer_class()


def _check_same_run(
    config: configs.ExperimentConfig,
    folder: Path,
    checkpoints: Checkpoints,
    log: Callable[[str], None],
) -> None:
    """Compares the config with that of a run to go on with; raises a `UserError` if it differs."""
    if parallel.process_index() != 0 or checkpoints.latest_step() is None:
        return
    # Through the config: a field that the version of then did not have counts as its default.
    saved = configs.to_dict(configs.from_dict(runfolder.read_json(folder / "config.json")))
    changes = runfolder.compare_config(saved, configs.to_dict(config))
    fatal = [line for line in changes if line.split(":")[0] not in MAY_CHANGE]
    if fatal:
        raise UserError(
            f"{folder} holds a run with another config ({'; '.join(fatal)});"
            " give the same config, or another --workdir"
        )
    for line in changes:
        log(f"config changed since the last start: {line}")


def _write_config(config: configs.ExperimentConfig, folder: Path) -> None:
    """Writes the config and the surroundings down, before anything else is in the folder."""
    if parallel.process_index() == 0:
        runfolder.write_json_atomic(folder / "config.json", configs.to_dict(config))
        runfolder.write_environment(folder)


def summarise(
    window: list[dict[str, np.ndarray]], tasks: tuple[str, ...], times: dict[str, float]
) -> dict[str, float]:
    """One log line from the metrics of the steps since the last one.

    Losses are means over the steps in which a task had labels; `conflict` is the share of steps
    and pairs of tasks whose gradients point apart (negative inner product); `gap` is the loss at
    the perturbed point minus the loss. Three to ten tasks have a cosine for each pair too.
    """
    active = np.stack([m["active"] for m in window])
    out: dict[str, float] = {}

    def per_task(name: str, values: np.ndarray) -> None:
        for t, task in enumerate(tasks):
            if active[:, t].any():
                out[f"{task}/{name}"] = float(values[active[:, t], t].mean())

    losses = np.stack([m["losses"] for m in window])
    per_task("loss", losses)
    if "cosines" in window[0] and len(tasks) > 1:
        upper = np.triu_indices(len(tasks), 1)
        pairs = np.stack([m["cosines"][upper] for m in window])
        out["cosine"], out["conflict"] = float(pairs.mean()), float((pairs < 0).mean())
    out["grad_norm"] = float(np.mean([m["grad_norm"] for m in window]))
    out.update(times)
    if "perturbed_losses" in window[0]:
        per_task("gap", np.stack([m["perturbed_losses"] for m in window]) - losses)
    for key, name in (
        ("weights", "weight"),
        ("flat_weights", "flat_weight"),
        ("task_grad_norms", "grad_norm"),
        ("flat_norms", "flat_norm"),
    ):
        if key in window[0]:
            per_task(name, np.stack([m[key] for m in window]))
    if "cosines" in window[0] and 2 < len(tasks) <= MATRIX_TASKS:
        matrices = np.stack([m["cosines"] for m in window])
        for a, b in itertools.combinations(range(len(tasks)), 2):
            both = active[:, a] & active[:, b]
            if both.any():
                out[f"cosine/{tasks[a]}/{tasks[b]}"] = float(matrices[both, a, b].mean())
    return out


def _check_finite(
    losses: np.ndarray, tasks: tuple[str, ...], step: int, checkpoints: Checkpoints
) -> None:
    if np.isfinite(losses).all():
        return
    bad = ", ".join(f"{tasks[t]} is {losses[t]}" for t in np.flatnonzero(~np.isfinite(losses)))
    checkpoints.wait()
    good = checkpoints.latest_step()
    kept = "no checkpoint had been saved" if good is None else f"checkpoint {good} is good"
    raise UserError(
        f"loss not finite at step {step}: {bad}; {kept}; try a smaller optim.lr, or"
        " optim.clip_norm; JAX_DEBUG_NANS=1 finds the operation"
    )


class _Stop:
    """Requested by the first SIGTERM or SIGINT; a second one ends the process at once."""

    requested = False

    def __call__(self, number: int, frame: Any) -> None:
        if self.requested:
            sys.exit(128 + number)
        self.requested = True
        print(f"signal {number}: saving, then stopping", file=sys.stderr, flush=True)


def _stop_on_signals() -> _Stop:
    stop = _Stop()
    with contextlib.suppress(ValueError):  # not the main thread: a test or a notebook
        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
    return stop


def parse(argv: list[str]) -> tuple[configs.ExperimentConfig, Path]:
    """Parses the command line and joins the other processes; see `--help`."""
    parser = Parser("python -m mtl_jax.train", add_help=False)
    parser.add_argument("--config", help="experiment file with get_config()")
    parser.add_argument("--workdir", help="run folder; the same one again resumes")
    parser.add_argument("--coordinator", default="", help="host:port of process 0, or auto")
    parser.add_argument("--num-processes", type=int, default=1)
    parser.add_argument("--process-id", type=int, default=0)
    parser.add_argument("-h", "--help", action="store_true")
    args, changes = parser.parse_known_args(argv)
    if args.help:
        print(parser.format_help())
        if args.config:
            print(flags.help_text(configs.load(args.config)))
        else:
            print("with --config FILE this also lists every --config.a.b=value of that experiment")
        raise SystemExit(0)
    if not args.config:
        raise UserError("--config FILE is missing, e.g. --config experiments/fsmtl/multi_mnist.py")
    if not args.workdir:
        raise UserError("--workdir DIR is missing, e.g. --workdir runs/a")
    given = configs.load(args.config)
    config = flags.override(given, changes)
    parallel.initialise(args.coordinator, args.num_processes, args.process_id)
    if parallel.process_index() == 0:
        for line in runfolder.compare_config(configs.to_dict(given), configs.to_dict(config)):
            if "absent" not in line:  # options of the method that take their defaults
                print(f"not as in {args.config}: {line}")
    return config, Path(args.workdir)


def main(argv: list[str]) -> None:
    """The command."""
    config, workdir = parse(argv)
    final = train(config, workdir)
    wanted = [name for name in final if name.count("/") == 2 and "/test/" in name]
    if parallel.process_index() == 0:
        for name in wanted:
            print(f"{name:<28} {final[name]:.4f}")


if __name__ == "__main__":
    run_command(main)
