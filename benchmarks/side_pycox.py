"""pycox's side of `benchmarks.survival_training`: a script of its own, without jax.

    python benchmarks/side_pycox.py      # what the benchmark starts; JSON lines in and out

It reads the file that the other side wrote (rows, first parameters) and offers three programs, each
an epoch over all rows:

  fit      `LogisticHazard.fit` on NumPy arrays, as pycox's examples do it, of the network of the
           other side
  bare     the same network, `nll_logistic_hazard` and torch's fused Adam in a loop on tensors that
           are shuffled once an epoch: without the trainer of torchtuples
  vanilla  `fit` of torchtuples' `MLPVanilla`, which pycox's examples take: the same hidden widths
           on the numbers alone, without an encoder, with batch normalisation: another network

A program runs with one thread or with all, whichever made it faster in a few epochs beforehand.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
import time as clock
from collections.abc import Callable
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
LR = 1e-3
CHECKED = 6
"""Losses on the first batch that are compared, one before each update."""
TRIES, TRY_S = 3, 4.0
"""Epochs with each number of threads, to choose the faster; seconds after which no more begin."""


def network(torch: Any, arrays: Arrays, rate: float) -> Any:
    """Builds the other side's network from its parameters "params/..."; widths are theirs.

    Columns -> dense, GELU, dropout, dense (the encoder of numbers); a column of ones (the one time
    of prediction); dense, layer normalisation, GELU, dropout a hidden layer; dense.
    """
    nn = torch.nn

    def set_to(parameter: Any, name: str) -> None:
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(np.array(arrays[f"params/{name}"])))

    def linear(name: str) -> Any:
        kernel = arrays[f"params/{name}/kernel"]
        layer = nn.Linear(*kernel.shape)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(kernel.T.copy()))
        set_to(layer.bias, f"{name}/bias")
        return layer

    def gelu() -> Any:
        return nn.GELU(approximate="tanh")

    layers = [linear("encoder/hidden"), gelu(), nn.Dropout(rate), linear("encoder/out")]
    layers.append(nn.ConstantPad1d((0, 1), 1.0))
    for number in range(sum(name.endswith("/scale") for name in arrays)):
        norm = nn.LayerNorm(arrays[f"params/trunk/{number}/scale"].shape, eps=1e-6)
        set_to(norm.weight, f"trunk/{number}/scale")
        set_to(norm.bias, f"trunk/{number}/shift")
        layers += [linear(f"trunk/{number}"), norm, gelu(), nn.Dropout(rate)]
    return nn.Sequential(*layers, linear("head"))


class Side:
    """Programs on one file; each is prepared with a network of its own.

    Attributes:
      calls: an epoch of each program.
      threads: of each program.
    """

    def __init__(self, path: str, batch_size: int, rate: float, threads: int) -> None:
        with np.load(path) as arrays:
            self._arrays: Arrays = dict(arrays)
        self._torch = importlib.import_module("torch")
        self._tt = importlib.import_module("torchtuples")
        self._models = importlib.import_module("pycox.models")
        self._batch_size, self._rate, self._all = batch_size, rate, threads
        self.calls: dict[str, Callable[[], Any]] = {}
        self.threads: dict[str, int] = {}

    def prepare(self, what: str) -> dict[str, Any]:
        """Sets a program up; returns its losses on the first batch, its size and its threads."""
        found = self._set_up(what)
        times: dict[int, float] = {}
        began, tried = clock.perf_counter(), 0
        while not tried or (tried < TRIES and clock.perf_counter() - began < TRY_S):
            tried += 1
            for threads in {1, self._all}:
                self.threads[what] = threads
                times[threads] = min(times.get(threads, np.inf), self.time(what)[0])
        self.threads[what] = min(times, key=times.__getitem__)
        return {**found, "threads": self.threads[what]}

    def time(self, what: str) -> tuple[float, float]:
        """Returns wall and CPU milliseconds of an epoch."""
        self._torch.set_num_threads(self.threads[what])
        wall, cpu = clock.perf_counter(), clock.process_time()
        self.calls[what]()
        wall, cpu = clock.perf_counter() - wall, clock.process_time() - cpu
        return 1e3 * wall, 1e3 * cpu

    def _set_up(self, what: str) -> dict[str, Any]:
        x, y = self._arrays["x"], (self._arrays["bin"], self._arrays["event"])
        first = self._arrays["first"]
        if what == "vanilla":
            hidden = [len(v) for name, v in self._arrays.items() if name.endswith("/scale")]
            numbers = np.ascontiguousarray(x[:, : x.shape[1] // 2])
            bins = len(self._arrays["params/head/bias"])
            net = self._tt.practical.MLPVanilla(
                numbers.shape[1], hidden, bins, batch_norm=True, dropout=self._rate
            )
            self.calls[what] = self._fit(net, numbers, y)[0]
            return {"parameters": _size(net), "losses": []}
        started = self._bare if what == "bare" else self._fit
        plain = network(self._torch, self._arrays, 0.0)
        epoch, loss = started(plain, x[first], tuple(part[first] for part in y))
        losses = [(epoch(), loss())[1] for _ in range(CHECKED)]
        self.calls[what] = started(network(self._torch, self._arrays, self._rate), x, y)[0]
        return {"parameters": _size(plain), "losses": losses}

    def _fit(self, net: Any, x: np.ndarray, y: Any) -> tuple[Callable[[], Any], Any]:
        """Returns an epoch by pycox's trainer, and what gives the mean loss of the last one."""
        model = self._models.LogisticHazard(net, self._tt.optim.Adam(LR), device="cpu")

        def epoch() -> Any:
            return model.fit(x, y, batch_size=self._batch_size, epochs=1, verbose=False)

        return epoch, lambda: float(model.log.to_pandas()["train_loss"].iloc[-1])

    def _bare(self, net: Any, x: np.ndarray, y: Any) -> tuple[Callable[[], Any], Any]:
        """Returns an epoch by a loop of its own, and what gives the loss of its last batch."""
        torch = self._torch
        nll = self._models.loss.nll_logistic_hazard
        optimiser = torch.optim.Adam(net.parameters(), LR, fused=True)
        columns = [torch.from_numpy(part) for part in (x, *y)]
        last: list[Any] = []
        net.train()

        def epoch() -> None:
            order = torch.randperm(len(x))
            batches = zip(*(part[order].split(self._batch_size) for part in columns), strict=True)
            for rows, bins, event in batches:
                optimiser.zero_grad()
                loss = nll(net(rows), bins, event)
                loss.backward()
                optimiser.step()
                last[:] = [loss.detach()]

        return epoch, lambda: float(last[0])


def _size(net: Any) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def hello() -> dict[str, Any]:
    """Versions of the packages, or why they are not there."""
    try:
        torch = importlib.import_module("torch")
        importlib.import_module("pycox.models")
    except ImportError as error:
        return {"versions": {}, "missing": str(error)}
    torch.manual_seed(0)
    names = ("pycox", "torch", "torchtuples", "numpy")
    return {"versions": {name: importlib.metadata.version(name) for name in names}}


def main() -> None:
    """Answers requests until the input ends."""
    print(json.dumps(hello()), flush=True)
    side: Any = None
    for line in sys.stdin:
        message = json.loads(line)
        do = message.pop("do")
        if do == "build":
            side, answer = Side(**message), {}
        elif do == "prepare":
            answer = side.prepare(message["what"])
        else:
            answer = {"sample": side.time(message["what"])}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
