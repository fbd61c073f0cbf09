"""The only file that names pmap, shard_map, Mesh or devices.

Every function handed to `data_parallel` is written for one device's share of the batch and calls
`psum` where it needs the whole; outside a parallel run `psum` is the identity, so the same
function also runs in a plain `jax.jit`. State and resident data have no device axis: they are
replicated arrays, so that checkpoints and host reads need no unreplicate step.

Both backends compile ahead of time, once, for one set of shapes. That gives the compile time
apart from the run time, lets XLA options through, makes a silent recompilation impossible (a new
shape is an error), and calls about ten times faster than the traced wrapper (benchmarks/dispatch).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mtl_jax.errors import UserError
from mtl_jax.layers.axis import bound_axis
from mtl_jax.layers.platform import cpu_compiler_options

AXIS = "batch"
Backend = Literal["pmap", "shard_map"]
Array = jax.Array
Tree = Any


def initialise(coordinator: str = "", num_processes: int = 1, process_id: int = 0) -> None:
    """Joins a multi-process run; does nothing for a single process.

    Args:
      coordinator: "host:port" of process 0, or "auto" where the platform knows (TPU pods, Slurm).
      num_processes: how many processes there are in all.
      process_id: this one's number.

    Raises:
      UserError: options that do not fit together, or processes that cannot meet.
    """
    if num_processes < 1:
        raise UserError(f"--num-processes is {num_processes}; it must be 1 or more")
    if not 0 <= process_id < num_processes:
        raise UserError(
            f"--process-id is {process_id} with --num-processes {num_processes}; it must be in"
            f" 0..{num_processes - 1}, another one for each process"
        )
    if not coordinator and num_processes == 1:
        return
    if not coordinator:
        raise UserError(f"{num_processes} processes need --coordinator host:port of process 0")
    host, _, port = coordinator.rpartition(":")
    if coordinator != "auto" and not (host and port.isdecimal() and 0 < int(port) < 65536):
        raise UserError(f"--coordinator is {coordinator!r}; it must be host:port, or auto")
    if coordinator != "auto" and num_processes == 1:
        raise UserError(
            f"--coordinator is {coordinator} with --num-processes 1; give the number of processes,"
            " or leave the coordinator out"
        )
    try:
        if coordinator == "auto":
            jax.distributed.initialize()
        else:
            jax.distributed.initialize(coordinator, num_processes, process_id)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"--coordinator {coordinator}: process {process_id} cannot join the others"
            f" ({str(error).splitlines()[0]}); check the address, and that all of them run"
        ) from None


def is_bound() -> bool:
    """Whether the code being traced runs inside the parallel axis."""
    return bound_axis(AXIS) is not None


def psum(tree: Tree) -> Tree:
    """Sums over the devices of a parallel run; the identity elsewhere."""
    return lax.psum(tree, AXIS) if is_bound() else tree


def pmean(tree: Tree) -> Tree:
    """Averages over the devices of a parallel run; the identity elsewhere."""
    return lax.pmean(tree, AXIS) if is_bound() else tree


def example_index(local_batch: int) -> Array:
    """Returns the positions [local_batch] of this device's examples in the global batch."""
    first = lax.axis_index(AXIS) * local_batch if is_bound() else 0
    return first + jnp.arange(local_batch, dtype=jnp.int32)


def keep_compiled_programs() -> None:
    """Keeps compiled programs in ~/.cache/mtl_jax/xla, so that a resumed run starts at once.

    A directory that JAX has been given already (JAX_COMPILATION_CACHE_DIR) is left as it is.
    """
    if not getattr(jax.config, "jax_compilation_cache_dir", None):
        folder = Path.home() / ".cache" / "mtl_jax" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(folder))


def process_index() -> int:
    """This process's number; 0 writes logs and checkpoints."""
    return jax.process_index()


def process_count() -> int:
    """How many processes take part."""
    return jax.process_count()


def device_count() -> int:
    """How many devices take part, over all processes."""
    return jax.device_count()


def describe_devices() -> str:
    """One phrase for logs and result files, such as "8 x cpu (TFRT_CPU)"."""
    kind = jax.devices()[0]
    return f"{jax.device_count()} x {kind.platform} ({kind.device_kind})"


def _mesh() -> Mesh:
    return Mesh(np.asarray(jax.devices()), (AXIS,))


def check_batch_size(batch_size: int, microbatches: int = 1) -> None:
    """Raises a `UserError` unless the batch divides over devices and micro-batches."""
    parts = jax.device_count() * microbatches
    if batch_size <= 0 or batch_size % parts:
        raise UserError(
            f"batch size {batch_size} does not divide over {jax.device_count()} devices"
            f" x {microbatches} micro-batches; use a multiple of {parts}"
        )


def replicate(tree: Tree) -> Tree:
    """Places host arrays on every device. The source must not be used afterwards."""
    sharding = NamedSharding(_mesh(), PartitionSpec())
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def place(leaf: Any) -> Array:
        host = np.asarray(leaf)
        return jax.make_array_from_process_local_data(sharding, host, host.shape)

    return jax.tree.map(place, tree)


def shard(batch: Tree) -> Tree:
    """Places this process's part [B / processes, ...] of a batch as [devices, B / devices, ...]."""
    sharding = NamedSharding(_mesh(), PartitionSpec(AXIS))
    local = jax.local_device_count()

    def place(leaf: Any) -> Array:
        host = np.asarray(leaf)
        return jax.make_array_from_process_local_data(
            sharding, host.reshape(local, -1, *host.shape[1:])
        )

    return jax.tree.map(place, batch)


def to_host(tree: Tree) -> Tree:
    """Fetches replicated arrays as numpy, from this process's first device."""
    return jax.tree.map(
        lambda leaf: np.asarray(leaf.addressable_data(0) if isinstance(leaf, jax.Array) else leaf),
        tree,
    )


def any_process(flag: bool) -> bool:
    """Whether the flag is set on any process, so that all stop at the same step."""
    if jax.process_count() == 1:
        return flag
    from jax.experimental import multihost_utils

    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def barrier(name: str) -> None:
    """Waits until every process is here."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


class DataParallel:
    """A function (carry, resident, batch) -> (carry, out), compiled once over all devices.

    `carry` and `resident` are replicated, `batch` is sharded on axis 0 and arrives in the
    function as this device's [B / devices, ...]. Everything returned must be equal on every
    device. With `donate` the carry's buffers are reused: never touch the old carry again.

    Attributes:
      compile_seconds: time of the one compilation; 0.0 before it.
    """

    def __init__(self, fn: Callable, backend: Backend = "pmap", donate: bool = True) -> None:
        donated = (0,) if donate else ()
        if backend == "pmap":
            self._traced = jax.pmap(
                fn, axis_name=AXIS, in_axes=(None, None, 0), out_axes=None, donate_argnums=donated
            )
        elif backend == "shard_map":

            def on_device(carry: Tree, resident: Tree, batch: Tree) -> Tree:
                return fn(carry, resident, jax.tree.map(lambda leaf: leaf[0], batch))

            everywhere, split = PartitionSpec(), PartitionSpec(AXIS)
            # check_vma would insert its own psum into gradients of replicated values: ours would
            # then count every device twice.
            mapped = jax.shard_map(
                on_device,
                mesh=_mesh(),
                in_specs=(everywhere, everywhere, split),
                out_specs=everywhere,
                check_vma=False,
            )
            self._traced = jax.jit(mapped, donate_argnums=donated)
        else:
            raise UserError(f"unknown parallel backend {backend!r}; known: pmap, shard_map")
        self._is_pmap = backend == "pmap"
        self._compiled: Any = None
        self.compile_seconds = 0.0

    def compile(self, carry: Tree, resident: Tree, batch: Tree) -> Any:
        """Compiles for these shapes; `batch` is a host batch of this process."""
        start = time.perf_counter()
        if self._is_pmap:  # pmap is lowered with the process-local view of a batch
            local = jax.local_device_count()
            example = jax.tree.map(
                lambda leaf: np.asarray(leaf).reshape(local, -1, *np.shape(leaf)[1:]), batch
            )
        else:
            example = shard(batch)
        lowered = self._traced.lower(carry, resident, example)
        options: dict[str, str | bool] = {**cpu_compiler_options()}
        self._compiled = lowered.compile(compiler_options=options)
        self.compile_seconds = time.perf_counter() - start
        return self._compiled

    def __call__(self, carry: Tree, resident: Tree, batch: Tree) -> tuple[Tree, Tree]:
        """Runs on a host batch: this process's part, [B / processes, ...]."""
        compiled = self._compiled or self.compile(carry, resident, batch)
        return compiled(carry, resident, shard(batch))

    def flops(self) -> float:
        """XLA's count of floating-point operations a call, on one device; 0 if unknown."""
        analysis = self._compiled.cost_analysis() if self._compiled is not None else None
        return float((analysis or {}).get("flops", 0.0))

    def temp_bytes(self) -> int:
        """Temporary memory of a call, on one device; 0 if unknown."""
        memory = self._compiled.memory_analysis() if self._compiled is not None else None
        return int(getattr(memory, "temp_size_in_bytes", 0))
