"""Checkpoints: atomic, asynchronous, verified. The only file that knows orbax.

Orbax writes the arrays; what makes them a checkpoint is in `checkpoint_folder`. Orbax has no
checksum of its data, so a flipped bit would restore silently: the manifest holds a sha256 of every
file, is committed by the same rename as the files, and is verified before anything is restored.

Orbax's own CheckpointManager is not used: on several processes it waits for all of them at every
save, its best-N policy knows neither failed (NaN) evaluations nor a rule for ties, and a manifest
could only follow its commit. Here process 0 alone touches the disk, which need not be shared.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import jax
import orbax.checkpoint as ocp

from mtl_jax.engine import snapshot
from mtl_jax.engine.checkpoint_folder import Damaged, Folder, reason
from mtl_jax.engine.snapshot import Leaves, Spec
from mtl_jax.errors import UserError, did_you_mean

Tree = Any

# Orbax raises what goes wrong, which becomes one line here; it also logs it with tracebacks.
logging.getLogger("absl").addFilter(lambda record: f"{os.sep}orbax{os.sep}" not in record.pathname)


class Restored(NamedTuple):
    """A state with numpy leaves, the step it was saved at, and the `meta` saved with it."""

    state: Tree
    step: int
    meta: dict[str, Any]


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Checkpoints:
    """The checkpoints of one run; a context manager, because leaving it waits for the last save.

    Reading never changes the folder, so a run can be evaluated while it trains. In a run of
    several processes all of them make the object and call `save` and `restore`; the disk is read
    and written by process 0 only.

    Args:
      workdir: the run folder.
      keep_last: newest checkpoints to keep. Two, because a damaged newest one falls back on the
        one before; with one, only the best is left then, if it is another one.
      keep_best: best checkpoints by `metric` to keep, besides those.
      metric: name in the `metrics` given to `save`; None for no best. Checkpoints without it, or
        with NaN, are never the best; among equals the earliest is.
      mode: whether more ("max") or less ("min") of the metric is better.
      async_save: write in the background while training goes on.
      log: takes one line when a checkpoint is damaged or moved aside.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        *,
        keep_last: int = 2,
        keep_best: int = 1,
        metric: str | None = None,
        mode: Literal["max", "min"] = "max",
        async_save: bool = True,
        log: Callable[[str], None] = _to_stderr,
    ) -> None:
        if keep_last < 1 or keep_best < 0:
            raise UserError(
                f"keep_last is {keep_last} and keep_best {keep_best};"
                " the one must be 1 or more, the other 0 or more"
            )
        if mode not in ("max", "min"):
            raise UserError(f"unknown mode {mode!r}; {did_you_mean(mode, ('max', 'min'))}")
        self._folder = Folder(Path(workdir).absolute() / "checkpoints", log)
        self._keep_last, self._keep_best = keep_last, keep_best
        self._metric, self._sign = metric, 1 if mode == "max" else -1
        self._async, self._log = async_save, log
        self._past = -1  # the last step on disk that this run saved or went on from
        self._ready = False  # whether the folder has been made ready for writing
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        # Only process 0 ever uses it, so it must not wait for the others.
        alone = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})
        self._orbax = ocp.Checkpointer(
            ocp.StandardCheckpointHandler(multiprocessing_options=alone),
            multiprocessing_options=alone,
        )

    def save(
        self,
        step: int,
        state: Tree,
        metrics: Mapping[str, float] | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        """Saves a state; returns once it has been copied to the host.

        A step that this run has saved, or went on from, is not saved again. Checkpoints later
        than the step that was restored (all, if none was) belong to another past: the first save
        moves them to `checkpoints/aside`.

        Args:
          step: number of updates done; must not fall.
          state: a pytree of arrays and Python numbers. Arrays are replicated over devices.
          metrics: scalars of an evaluation of this state.
          meta: anything else that JSON can hold.

        Raises:
          UserError: this save (or with `async_save` the one before it) failed, the earlier
            checkpoints being kept; or `metrics` lacks the metric that picks the best.
          TypeError, ValueError: the state or the meta cannot be saved (see `snapshot.take`).
        """
        if jax.process_index() != 0:
            return
        self.wait()
        if step == self._past:
            return
        if step < self._past:
            raise ValueError(f"step {step} comes after step {self._past}; steps must not fall")
        scores = {name: float(value) for name, value in (metrics or {}).items()}
        if self._metric is not None and scores and self._metric not in scores:
            raise UserError(
                f"no metric {self._metric!r} to pick the best checkpoint by;"
                f" {did_you_mean(self._metric, scores)}"
            )
        # Through JSON now: what it cannot hold fails here, and digests are of what is read back.
        header = json.loads(json.dumps({"step": step, "metrics": scores, "meta": dict(meta or {})}))
        leaves = snapshot.take(state)
        if not self._async:
            self._write(step, leaves, header)
            return
        self._thread = threading.Thread(
            target=self._write_in_background, args=(step, leaves, header), name=f"checkpoint-{step}"
        )
        self._thread.start()

    def steps(self) -> list[int]:
        """Steps on disk, rising, not verified; one that is being written is not among them."""
        return self._folder.steps()

    def latest_step(self) -> int | None:
        """The newest step on disk, not verified; None without any."""
        return max(self.steps(), default=None)

    def best_step(self) -> int | None:
        """The step on disk with the best metric; None if no checkpoint has it."""
        return next(iter(self._best()), None)

    def metrics(self, step: int) -> dict[str, float]:
        """The metrics saved with a checkpoint; {} if they cannot be read."""
        return self._folder.metrics(step)

    def restore(self, template: Tree, step: int | None = None) -> Restored | None:
        """Restores a state; every process gets what process 0 reads.

        Args:
          template: a state of the same structure, shapes and dtypes; arrays or ShapeDtypeStructs.
          step: which checkpoint; None for the newest good one. Damaged ones are passed over, with
            one line to `log`.

        Returns:
          The state with numpy leaves, bit for bit as saved; None if there is no checkpoint yet.

        Raises:
          UserError: the checkpoint does not fit the template (naming the first leaf), the one
            asked for is missing or damaged, or none is good.
        """
        self.wait()
        if jax.process_count() == 1:
            found = self._find(template, step)
        else:
            found = self._find_together(template, step)
        if found is None:
            return None
        manifest, leaves = found
        if not self._ready:
            self._past = manifest["step"]
        return Restored(snapshot.rebuild(template, leaves), manifest["step"], manifest["meta"])

    def wait(self) -> None:
        """Waits for a save under way; raises its error, once."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Waits for a save under way and releases everything."""
        try:
            self.wait()
        finally:
            self._orbax.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except UserError as error:
            if kind is None:
                raise
            self._log(f"warning: {error}")  # must not hide the exception under way

    def _write_in_background(self, *args: Any) -> None:
        try:
            self._write(*args)
        except BaseException as error:
            self._error = error

    def _write(self, step: int, leaves: Leaves, header: dict[str, Any]) -> None:
        manifest = {**header, "leaves": snapshot.describe(leaves)}
        # Orbax cannot write arrays without elements; their description is all there is to them.
        full = {path: leaf for path, leaf in leaves.items() if leaf.size}
        args = ocp.args.StandardSave(full)
        try:
            if not self._ready:
                self._folder.make_ready(self._past)
                self._ready = True
            self._folder.commit(step, manifest, lambda path: self._orbax.save(path, args=args))
        except Exception as error:
            with contextlib.suppress(OSError):
                self._folder.remove_leftovers()
            next_run = f"resumes from step {self._past}" if self._past >= 0 else "starts again"
            raise UserError(
                f"checkpoint {step} could not be written to {self._folder.path}: {reason(error)};"
                f" earlier ones are kept: with space and permission the same command {next_run}"
            ) from error
        self._past = step
        self._folder.prune({*self.steps()[-self._keep_last :], *self._best()[: self._keep_best]})

    def _best(self) -> list[int]:
        return [] if self._metric is None else self._folder.ranking(self._metric, self._sign)

    def _leaves(self, step: int, specs: dict[str, Spec]) -> Leaves:
        try:
            saved = self._orbax.restore(self._folder.data(step), args=ocp.args.StandardRestore())
        except Exception as error:
            raise Damaged(f"orbax cannot read it: {reason(error)}") from error
        empty = snapshot.unpack(b"", {path: s for path, s in specs.items() if 0 in s.shape})
        return {path: empty[path] if path in empty else saved[path] for path in specs}

    def _find(self, template: Tree, step: int | None) -> tuple[dict[str, Any], Leaves] | None:
        """The newest good checkpoint (or the one asked for) that fits the template."""
        folder = self._folder.path
        damaged: dict[int, str] = {}
        # Listed anew each time: a running trainer may have replaced the one just tried.
        while left := [s for s in self.steps() if s not in damaged and step in (None, s)]:
            current = left[-1]
            try:
                manifest = self._folder.manifest(current)
                specs = _specs(manifest)
                if problem := snapshot.mismatch(template, specs):
                    raise UserError(
                        f"checkpoint {current} in {folder} does not fit this run: {problem};"
                        " use the config of that run (config.json), or another workdir"
                    )
                self._folder.verify(current, manifest)
                leaves = self._leaves(current, specs)
            except Damaged as error:
                damaged[current] = str(error)
                continue
            still_there = {s: why for s, why in damaged.items() if s in self.steps()}
            if still_there:
                self._log(
                    f"warning: {_describe(still_there)} in {folder};"
                    f" falling back to checkpoint {current}"
                )
            return manifest, leaves
        if damaged:
            other = "put a copy of it there" if step is None else "choose another step"
            raise UserError(
                f"no good checkpoint in {folder}: {_describe(damaged)};"
                f" {other}, or delete that folder to train from the start"
            )
        if step is not None:
            raise UserError(f"no checkpoint {step} in {folder}; known: {self.steps() or 'none'}")
        return None

    def _find_together(
        self, template: Tree, step: int | None
    ) -> tuple[dict[str, Any], Leaves] | None:
        """As `_find` on process 0, whose answer (or error) every process gets."""
        found, answer = None, {}
        if jax.process_index() == 0:
            try:
                found = self._find(template, step)
                answer = {"manifest": found and found[0]}
            except UserError as error:
                answer = {"error": str(error)}
        answer = json.loads(snapshot.broadcast(json.dumps(answer).encode()))
        if "error" in answer:
            raise UserError(answer["error"])
        manifest = answer["manifest"]
        if manifest is None:
            return None
        data = snapshot.broadcast(snapshot.pack(found[1]) if found else b"")
        return manifest, snapshot.unpack(data, _specs(manifest))


def _specs(manifest: dict[str, Any]) -> dict[str, Spec]:
    return {path: Spec(*spec) for path, spec in manifest["leaves"].items()}


def _describe(damaged: dict[int, str]) -> str:
    return ", ".join(f"checkpoint {step} is damaged ({why})" for step, why in damaged.items())
