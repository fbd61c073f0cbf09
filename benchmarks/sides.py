"""The two sides of a comparison: processes that take turns, so that neither disturbs the other.

Each side is a process of its own on the CPU, with the same number of threads. While one is timed
the other waits on a pipe: neither steals the other's cores or shares its allocator. Side `name` is
the module `benchmarks.side_<name>`, which offers

  describe(threads)   limits the side to so many threads where it can; versions, JSON-ready
  Side(**options)     with `prepare(what)`, which sets calls up and returns something JSON-ready,
                      and `calls`, the functions by name that may then be timed

    python -m benchmarks.sides NAME      # what `Worker` starts; JSON lines in and out
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import timing
from mtl_jax.errors import UserError

SAMPLE_MS = 150.0
# Threads of the side that was timed last spin for a while before they sleep.
REST = 0.03


class Worker:
    """A process that builds one side's models and times its calls on request."""

    def __init__(self, side: str, threads: int):
        env = {**os.environ, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": str(threads)}
        env["CUDA_VISIBLE_DEVICES"] = ""  # libraries that take a GPU unasked where they see one
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.sides", side],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
            cwd=Path(__file__).parents[1],
        )
        self.side = side

    def ask(self, **message: Any) -> dict[str, Any]:
        """Sends a request and waits for its answer.

        Raises:
          UserError: what the worker says is wrong, or that it died.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # its last words are still to be read
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise UserError(
                f"the {self.side} side died with exit code {code}; see its output above"
            )
        answer = json.loads(line)
        if "error" in answer:
            raise UserError(answer["error"])
        return answer

    def timer(self, what: str) -> Callable[[], timing.Sample]:
        """Returns a function that times one call there."""

        def sample() -> timing.Sample:
            time.sleep(REST)
            wall, cpu = self.ask(do="time", what=what)["sample"]
            return wall, cpu

        return sample

    def close(self) -> None:
        """Ends the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(timeout=30)


def serve(name: str) -> None:
    """A worker's loop: one JSON request a line on stdin, one answer a line on stdout."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else prints goes to stderr

    def reply(**answer: Any) -> None:
        replies.write(json.dumps(answer) + "\n")
        replies.flush()

    try:
        module: Any = importlib.import_module(f"benchmarks.side_{name}")
    except UserError as error:
        return reply(error=str(error))
    side: Any = None
    timers: dict[str, Any] = {}
    for line in sys.stdin:
        message = json.loads(line)
        do = message.pop("do")
        if do == "hello":
            reply(**module.describe(message["threads"]))
        elif do == "build":
            side, timers = module.Side(**message), {}
            reply()
        elif do == "prepare":
            found = side.prepare(message["what"])
            for call_name, call in side.calls.items():
                if call_name not in timers:
                    timers[call_name] = timing.timer(call, SAMPLE_MS)
            reply(**found)
        else:
            reply(sample=timers[message["what"]]())
    return None


if __name__ == "__main__":
    serve(sys.argv[1])
