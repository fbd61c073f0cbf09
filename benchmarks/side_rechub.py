"""Torch-RecHub's side of `versus_rechub`: its models, its loader and its trainer, on the CPU.

Calls, each an epoch of `steps` steps:

  trainer         `DataGenerator`'s loader and `MTLTrainer`, as its users run them
  batches         `MTLTrainer` on batches that are in memory as tensors
  trainer_plain   as trainer, without the batch normalisation that its MLPs always have
  batches_plain   as batches, likewise: the computation of this package's step
  fused_plain     that computation alone, without the trainer's bookkeeping, by torch's fused Adam

All start from the parameters that the other side wrote. Adam has no weight decay (the trainer's
default is 1e-5). The progress bar is off.
"""

from __future__ import annotations

import contextlib
import io
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mtl_jax.errors import UserError

os.environ["TQDM_DISABLE"] = "1"  # read when it is imported
try:
    import torch
    from torch import nn
    from torch_rechub.basic.features import SparseFeature
    from torch_rechub.basic.layers import MLP
    from torch_rechub.models.multi_task import MMOE, PLE, SharedBottom
    from torch_rechub.trainers import MTLTrainer
    from torch_rechub.utils.data import DataGenerator
except ImportError as error:
    raise UserError(
        f"the comparison needs torch and torch-rechub ({error}); run `make bench-rechub`, which"
        " installs them, or: pip install torch==2.13.0 torch-rechub"
    ) from None

LR, CHECKED = 1e-3, 6
Arrays = dict[str, np.ndarray]


def describe(threads: int) -> dict[str, Any]:
    """Limits torch to so many threads; returns its version and Torch-RecHub's."""
    torch.set_num_threads(threads)
    return {
        "torch_rechub": version("torch-rechub"),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def build(model: str, arrays: Arrays, *, plain: bool) -> Any:
    """Builds a model with the parameters "params/..."; `plain` without batch normalisation.

    Widths are those of the parameters.
    """

    def shape(name: str) -> tuple[int, ...]:
        return arrays[f"params/{name}"].shape

    columns = arrays["fields"].shape[1]
    features = [SparseFeature(f"c{k}", *shape(f"tables/c{k}")) for k in range(columns)]
    tasks = ["classification"] * arrays["labels"].shape[1]
    tower = {"dims": [shape("heads/tower/hidden/0/kernel")[-1]], "dropout": 0}
    towers = [dict(tower) for _ in tasks]
    layers = sum(name.startswith("params/top/") for name in arrays) // 2
    hidden = {"dims": [shape(f"top/{k}/kernel")[-1] for k in range(layers)], "dropout": 0}
    if model == "shared_bottom":
        net = SharedBottom(features, tasks, hidden, towers)
        shared, gates = [net.bottom_mlp], []
    elif model == "mmoe":
        net = MMOE(features, tasks, shape("top/0/kernel")[0], hidden, towers)
        shared, gates = list(net.experts), list(net.gates)
    else:
        own, count = shape("heads/experts/0/kernel")[1], shape("top/0/kernel")[0]
        net = PLE(features, tasks, 1, own, count, hidden, towers)
        cgc = net.cgc_layers[0]
        shared, gates = list(cgc.experts_shared), list(cgc.gates_specific)
        for number, expert in enumerate(cgc.experts_specific):
            _copy(expert, arrays, "heads/experts/{}", divmod(number, own))
    for k in range(columns):
        _set(net.embedding.embed_dict[f"c{k}"].weight, arrays[f"params/tables/c{k}"])
    for e, expert in enumerate(shared):
        _copy(expert, arrays, "top/{}", () if model == "shared_bottom" else (e,))
    for t in range(len(tasks)):
        _copy(net.towers[t], arrays, "heads/tower/hidden/{}", (t,), "heads/tower/out")
    for t, gate in enumerate(gates):
        _copy(gate, arrays, "heads/gate", (t,))
    if plain:
        for module in [module for module in net.modules() if isinstance(module, MLP)]:
            for k, layer in enumerate(module.mlp):
                if isinstance(layer, nn.BatchNorm1d):
                    module.mlp[k] = nn.Identity()
    return net


def _set(parameter: Any, value: np.ndarray) -> None:
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(np.ascontiguousarray(value)))


def _copy(mlp: Any, arrays: Arrays, name: str, at: tuple[int, ...], last: str = "") -> None:
    """Copies layers `name` with their number in it, and the `last` one, at an index of each."""
    linears = [layer for layer in mlp.mlp if isinstance(layer, nn.Linear)]
    names = [name.format(k) for k in range(len(linears))]
    if last:
        names[-1] = last
    for layer, place in zip(linears, names, strict=True):
        _set(layer.weight, arrays[f"params/{place}/kernel"][at].T)
        _set(layer.bias, arrays[f"params/{place}/bias"][at])


class Side:
    """See `side_dtrn.Side`: the same parameters and rows, read from `folder`."""

    def __init__(
        self, folder: str, model: str, batch_size: int, steps: int, columns: int, size: int
    ):
        del columns, size
        self._arrays: Arrays = dict(np.load(Path(folder) / "shared.npz"))
        self._model, self._batch_size = model, batch_size
        self._rows = batch_size * steps
        self.calls: dict[str, Any] = {}

    def _batch(self, rows: Any) -> tuple[dict[str, Any], Any]:
        fields = self._arrays["fields"][rows].astype(np.int64)
        x = {f"c{k}": torch.from_numpy(fields[:, k].copy()) for k in range(fields.shape[1])}
        return x, torch.from_numpy(self._arrays["labels"][rows])

    def _loader(self) -> Any:
        """The loader of an epoch, from NumPy columns as in the library's examples."""
        fields = self._arrays["fields"].astype(np.int64)
        parts = slice(self._rows), slice(self._rows, None)
        train, rest = ({f"c{k}": f.copy() for k, f in enumerate(fields[part].T)} for part in parts)
        labels = self._arrays["labels"]
        return DataGenerator(train, labels[: self._rows]).generate_dataloader(
            x_val=rest,
            y_val=labels[self._rows :],
            x_test=rest,
            y_test=labels[self._rows :],
            batch_size=self._batch_size,
        )[0]

    def prepare(self, what: str) -> dict[str, Any]:
        """Builds a model; returns its losses on the first batch and how large it is."""
        how, plain = what.removesuffix("_plain"), what.endswith("_plain")
        net = build(self._model, self._arrays, plain=plain)
        fused = {"fused": True} if how == "fused" else {}
        types = ["classification"] * self._arrays["labels"].shape[1]
        trainer = MTLTrainer(net, types, optimizer_params={"lr": LR, **fused})
        parameters = sum(p.numel() for p in net.parameters())
        starts = range(0, self._rows, self._batch_size)
        batches = [self._batch(slice(start, start + self._batch_size)) for start in starts]
        first = self._batch(self._arrays["first"])
        if how == "fused":
            losses = [bare_step(trainer, *first) for _ in range(CHECKED)]
            self.calls[what] = lambda: [bare_step(trainer, *batch) for batch in batches]
        else:
            losses = [float(np.mean(epoch(trainer, [first]))) for _ in range(CHECKED)]
            given = self._loader() if how == "trainer" else batches
            self.calls[what] = lambda: epoch(trainer, given)
        return {"losses": [float(loss) for loss in losses], "parameters": parameters}


def epoch(trainer: Any, batches: Any) -> list[float]:
    """One epoch by the trainer, which prints; returns the mean loss of each task."""
    with contextlib.redirect_stdout(io.StringIO()):
        return trainer.train_one_epoch(batches)


def bare_step(trainer: Any, x: dict[str, Any], y: Any) -> Any:
    """A step by the trainer's model, losses and optimiser; returns the loss, a tensor."""
    trainer.optimizer.zero_grad()
    out = trainer.model(x)
    pairs = zip(trainer.loss_fns, out.unbind(1), y.unbind(1), strict=True)
    loss = torch.stack([loss_fn(a, b) for loss_fn, a, b in pairs]).mean()
    loss.backward()
    trainer.optimizer.step()
    return loss.detach()
