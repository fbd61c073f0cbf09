"""The torch side of `versus_torchjd`: eager torch as its users write it, and torchjd's own path.

Sum step: one backward pass. Per-task gradients: one forward pass and `autograd.grad` once a task.
Flat regions: the same, then for each task perturb in place, forward and backward, restore, with
`_foreach_` operations. Aggregators: torchjd's `mtl_backward` and `jac_to_grad`, with whichever of
its own options (tasks differentiated together or one by one, Gram matrix at once or in parts) is
fastest here. Convolutional nets are timed in both memory formats: channels first, torch's default,
and channels last, which its documentation advises.
"""

from __future__ import annotations

import itertools
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mtl_jax.errors import UserError

try:
    import torch
    import torchjd.aggregation as jd
    from torch import nn
    from torch.nn import functional as F
    from torchjd.autojac import jac_to_grad, mtl_backward
except ImportError as error:
    raise UserError(
        f"the comparison needs torch and torchjd ({error}); run `make bench-torch`, which installs"
        " them, or: pip install torch==2.13.0 torchjd"
    ) from None

AGGREGATORS = {"pcgrad": jd.PCGrad, "upgrad": jd.UPGrad, "mgda": jd.MGDA}
RHO = 0.05


def describe(threads: int) -> dict[str, Any]:
    """Limits torch to so many threads; returns its version and torchjd's."""
    torch.set_num_threads(threads)
    return {
        "torch": torch.__version__,
        "torchjd": version("torchjd"),
        "threads": torch.get_num_threads(),
    }


class Lenet(nn.Module):
    """The same layers as `mtl_jax.systems.vision.lenet`, under the same names."""

    def __init__(self, first: int, second: int):
        super().__init__()
        self.Conv_0, self.Conv_1 = nn.Conv2d(1, first, 5), nn.Conv2d(first, second, 5)
        self.Dense_0 = nn.Linear(36 * second, 50)

    def forward(self, x: Any) -> Any:
        for conv in (self.Conv_0, self.Conv_1):
            x = F.relu(F.max_pool2d(conv(x), 2))
        return F.relu(self.Dense_0(x.flatten(1)))


class Mlp(nn.Module):
    """The same layers as `mtl_jax.systems.vision.mlp`."""

    def __init__(self, *widths: int):
        super().__init__()
        for k, (inputs, outputs) in enumerate(itertools.pairwise((1296, *widths))):
            setattr(self, f"Dense_{k}", nn.Linear(inputs, outputs))

    def forward(self, x: Any) -> Any:
        x = x.flatten(1)
        for layer in self.children():
            x = F.relu(layer(x))
        return x


class Block(nn.Module):
    """A basic block of `mtl_jax.systems.vision.resnet`."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.Conv_0 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.Conv_1 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.BatchNorm_0, self.BatchNorm_1 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.changes_shape = stride != 1 or inputs != outputs
        if self.changes_shape:
            self.shortcut_conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut_norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Any) -> Any:
        y = F.relu(self.BatchNorm_0(self.Conv_0(x)))
        y = self.BatchNorm_1(self.Conv_1(y))
        if self.changes_shape:
            x = self.shortcut_norm(self.shortcut_conv(x))
        return F.relu(x + y)


class Resnet(nn.Module):
    """The same layers as `mtl_jax.systems.vision.resnet.resnet18_multimnist`."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv_0 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
        self.BatchNorm_0 = nn.BatchNorm2d(64)
        inputs = 64
        for k in range(8):
            outputs = 64 * 2 ** (k // 2)
            stride = 2 if k and k % 2 == 0 else 1
            setattr(self, f"BasicBlock_{k}", Block(inputs, outputs, stride))
            inputs = outputs
        self.Dense_0 = nn.Linear(512, 100)

    def forward(self, x: Any) -> Any:
        x = F.relu(self.BatchNorm_0(self.Conv_0(x)))
        x = F.max_pool2d(x, 3, 2, 1)
        for k in range(8):
            x = getattr(self, f"BasicBlock_{k}")(x)
        return F.relu(self.Dense_0(x.mean((2, 3))))


TRUNKS = {
    "mlp": lambda: Mlp(512, 512, 512, 50),
    "lenet_10_20": lambda: Lenet(10, 20),
    "lenet_32_64": lambda: Lenet(32, 64),
    "resnet18": Resnet,
}
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}


def load(trunk: Any, arrays: dict[str, np.ndarray]) -> None:
    """Copies the JAX parameters "trunk/<module>/<leaf>" into a module of the same names."""
    wanted = dict(trunk.named_parameters())
    for path, value in arrays.items():
        *modules, leaf = path.split("/")
        target = wanted.pop(".".join([*modules, _LEAVES[leaf]]))
        if value.ndim == 4:
            value = value.transpose(3, 2, 0, 1)
        elif value.ndim == 2:
            if isinstance(trunk, Lenet):  # flattened as height, width, channel there
                side = 6
                value = value.reshape(side, side, -1, value.shape[1]).transpose(2, 0, 1, 3)
                value = value.reshape(-1, value.shape[-1])
            value = value.T
        with torch.no_grad():
            target.copy_(torch.from_numpy(np.ascontiguousarray(value)))
    if wanted:
        raise ValueError(f"no JAX parameter for {', '.join(wanted)}")


class Side:
    """See `side_jax.Side`: the same model, parameters and batch, read from `folder`.

    Convolutional models exist in both memory formats; calls are named "<what>/<format>".
    """

    def __init__(self, model: str, num_tasks: int, batch_size: int, folder: str):
        del batch_size
        arrays = dict(np.load(Path(folder) / "shared.npz"))
        names = ["contiguous"] if model == "mlp" else ["channels_first", "channels_last"]
        self._variants = {name: Variant(model, num_tasks, arrays, name) for name in names}
        self.calls: dict[str, Any] = {}

    def prepare(self, what: str) -> dict[str, Any]:
        """Sets calls up; returns the norm of the gradient and torchjd's options, by format."""
        norms, options = {}, {}
        for name, variant in self._variants.items():
            step, options[name] = variant.call(what)
            tensors = step()
            norms[name] = float(torch.sqrt(sum((g.double() ** 2).sum() for g in tensors)))
            self.calls[f"{what}/{name}"] = _without_result(step)
        return {"norms": norms, "options": options}


def _without_result(step: Any) -> Any:
    def call() -> None:
        step()

    return call


class Variant:
    """One model in one memory format; every method but `call` is one step up to its gradient."""

    def __init__(self, model: str, num_tasks: int, arrays: dict[str, np.ndarray], name: str):
        self._num_tasks = num_tasks
        prefix = "trunk/"
        self._trunk = TRUNKS[model]()
        load(self._trunk, {k[len(prefix) :]: v for k, v in arrays.items() if k.startswith(prefix)})
        image = arrays["batch/image"].astype(np.float32) / 255
        # One channel: a reshape, which leaves no doubt about the strides, is the transpose.
        self._x = torch.from_numpy(image.reshape(len(image), 1, *image.shape[1:3]))
        if name == "channels_last":
            self._trunk.to(memory_format=torch.channels_last)
            self._x = self._x.contiguous(memory_format=torch.channels_last)
        self._y = torch.from_numpy(arrays["batch/label"].astype(np.int64))
        self._heads = []
        for t in range(num_tasks):
            kernel, bias = (arrays[f"heads/Dense_0/{leaf}"][t] for leaf in ("kernel", "bias"))
            head = nn.Linear(*kernel.shape)
            with torch.no_grad():
                head.weight.copy_(torch.from_numpy(kernel.T.copy()))
                head.bias.copy_(torch.from_numpy(bias))
            self._heads.append(head)
        self._shared = list(self._trunk.parameters())
        self._own = [list(head.parameters()) for head in self._heads]
        self._all = [*self._shared, *itertools.chain(*self._own)]
        self._norms = [m for m in self._trunk.modules() if isinstance(m, nn.BatchNorm2d)]

    def _loss(self, z: Any, t: int) -> Any:
        return F.cross_entropy(self._heads[t](z), self._y[:, t])

    def call(self, what: str) -> tuple[Any, dict[str, Any]]:
        """Returns the function of a call, and the options of torchjd that are fastest for it."""
        plain = {"sum": self.sum_step, "tasks": self.task_grads, "fs": self.flat_regions}
        if what in plain:
            return plain[what], {}

        def step(choice: dict[str, Any]) -> Any:
            aggregator = AGGREGATORS[what]()
            return lambda: self.aggregated(aggregator, **choice)

        choices = [
            {"parallel_chunk_size": chunk, "optimize_gramian_computation": parts}
            for chunk in (None, 1)
            for parts in (False, True)
        ]
        best = min(choices, key=lambda choice: _seconds(step(choice)))
        return step(best), best

    def sum_step(self) -> list[Any]:
        z = self._trunk(self._x)
        total = sum(self._loss(z, t) for t in range(self._num_tasks))
        return list(torch.autograd.grad(total, self._all))

    def _per_task(self) -> list[tuple]:
        z = self._trunk(self._x)
        last = self._num_tasks - 1
        return [
            torch.autograd.grad(
                self._loss(z, t), self._shared + self._own[t], retain_graph=t < last
            )
            for t in range(self._num_tasks)
        ]

    def task_grads(self) -> list[Any]:
        return [grad for grads in self._per_task() for grad in grads]

    def flat_regions(self) -> list[Any]:
        """Mean of g plus mean of h for the trunk, perturbed gradients for the heads."""
        share, split = 1 / self._num_tasks, len(self._shared)
        from_g: Any = None
        from_h: Any = None
        heads: list[Any] = []
        grads = self._per_task()
        for norm in self._norms:  # the clean pass owns the running statistics
            norm.momentum = 0.0
        for t in range(self._num_tasks):
            moved = self._shared + self._own[t]
            with torch.no_grad():
                size = RHO / (torch.stack(torch._foreach_norm(grads[t])).norm() + 1e-12)
                move = torch._foreach_mul(grads[t], size)
                torch._foreach_add_(moved, move)
            again = torch.autograd.grad(self._loss(self._trunk(self._x), t), moved)
            with torch.no_grad():
                torch._foreach_sub_(moved, move)
                flat = torch._foreach_sub(again[:split], grads[t][:split])
                if from_g is None:
                    from_g = torch._foreach_mul(grads[t][:split], share)
                    from_h = torch._foreach_mul(flat, share)
                else:
                    torch._foreach_add_(from_g, grads[t][:split], alpha=share)
                    torch._foreach_add_(from_h, flat, alpha=share)
            heads += again[split:]
        for norm in self._norms:
            norm.momentum = 0.1
        return [*torch._foreach_add(from_g, from_h), *heads]

    def aggregated(
        self, aggregator: Any, parallel_chunk_size: int | None, optimize_gramian_computation: bool
    ) -> list[Any]:
        for parameter in self._all:
            parameter.grad = None
        z = self._trunk(self._x)
        mtl_backward(
            [self._loss(z, t) for t in range(self._num_tasks)],
            features=z,
            tasks_params=self._own,
            shared_params=self._shared,
            parallel_chunk_size=parallel_chunk_size,
        )
        jac_to_grad(
            self._shared, aggregator, optimize_gramian_computation=optimize_gramian_computation
        )
        return [parameter.grad for parameter in self._all]


def _seconds(call: Any, calls: int = 3) -> float:
    """The shortest of a few calls, after one to warm up."""
    call()
    best = float("inf")
    for _ in range(calls):
        began = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - began)
    return best
