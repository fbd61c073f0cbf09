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


def all_gather(x: Array) -> Array:
    """Every device's x [n, ...], one after the other: [devices n, ...]; the identity elsewhere."""
    return lax.all_gather(x, AXIS, tiled=True) if is_bound() else x


def own_part(x: Array) -> Array:
    """This device's part [n, ...] of what `all_gather` returned."""
    if not is_bound():
        return x
    count = x.shape[0] // lax.axis_size(AXIS)
    return lax.dynamic_slice_in_dim(x, lax.axis_index(AXIS) * count, count)


def pmin(x: Array) -> Array:
    """The least over the devices, element by element; the identity elsewhere."""
    return lax.pmin(x, AXIS) if is_bound() else x


def sum_to_owners(x: Array, axis: int = 0) -> Array:
    """Sums x [devices n, ...] over the devices, of which each gets its own [n, ...].

    With another `axis` that is the one of length devices n.
    """
    return lax.psum_scatter(x, AXIS, scatter_dimension=axis, tiled=True) if is_bound() else x


def position() -> tuple[Array | int, int]:
    """This device's number on the parallel axis and how many there are; (0, 1) elsewhere."""
    return (lax.axis_index(AXIS), lax.axis_size(AXIS)) if is_bound() else (0, 1)


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

    def place(leaf: Any) -> Array:
        return jax.make_array_from_process_local_data(sharding, _by_device(leaf))

    return jax.tree.map(place, batch)


def _by_device(leaf: Any) -> np.ndarray:
    """A leaf [B, ...] as [devices, B / devices, ...]; also one without elements, [B, 0]."""
    host, local = np.asarray(leaf), jax.local_device_count()
    return host.reshape(local, host.shape[0] // local, *host.shape[1:])


def deal(leaf: Any) -> Array:
    """Spreads the rows of [V, ...] over the devices, row r to device r % P, slot r // P.

    Returns:
      [P, ceil(V / P), ...], split over the devices on axis 0; zeros fill up the last slots. Rows
      that are looked up often mostly have low numbers, and are shared out too.
    """
    host, devices = np.asarray(leaf), jax.device_count()
    slots = -(-host.shape[0] // devices)

    def part(index: Any) -> np.ndarray:
        rows = host[index[0].start or 0 :: devices]
        full = np.zeros((1, slots, *host.shape[1:]), host.dtype)
        full[0, : len(rows)] = rows
        return full

    sharding = NamedSharding(_mesh(), PartitionSpec(AXIS))
    return jax.make_array_from_callback((devices, slots, *host.shape[1:]), sharding, part)


def collect(leaf: Array, rows: int) -> np.ndarray:
    """Undoes `deal`: returns [rows, ...] on the host. All processes must call it."""
    host = np.zeros((rows, *leaf.shape[2:]), leaf.dtype)
    if leaf.is_fully_addressable:
        parts = {shard.index[0].start or 0: shard.data for shard in leaf.addressable_shards}
    else:
        from jax.experimental import multihost_utils

        whole = multihost_utils.process_allgather(leaf, tiled=True)
        parts = {device: whole[device, None] for device in range(leaf.shape[0])}
    for device, part in parts.items():
        own = host[device :: leaf.shape[0]]
        own[...] = np.asarray(part)[0, : len(own)]
    return host


def to_host(tree: Tree) -> Tree:
    """Fetches replicated arrays as numpy, from this process's first device.

    Raises:
      ValueError: an array that is split over devices; `collect` fetches those.
    """

    def fetch(leaf: Any) -> np.ndarray:
        if not isinstance(leaf, jax.Array):
            return np.asarray(leaf)
        if not leaf.is_fully_replicated:
            raise ValueError(f"an array {leaf.shape} is split over devices; collect it first")
        return np.asarray(leaf.addressable_data(0))

    return jax.tree.map(fetch, tree)


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

    Args:
      fn: the function of one device's share.
      backend: pmap or shard_map.
      donate: whether the carry that comes back takes the place of the one given.
      is_dealt: `is_dealt(carry) -> tree of bool`, True for leaves [devices, ...] that are split
        over the devices (`deal`) and arrive in the function without that axis; None for no such
        leaves. What it marks in a carry comes back so in a carry of the same structure; a function
        that is not donated its carry returns no such leaves.

    Attributes:
      compile_seconds: time of the one compilation; 0.0 before it.
    """

    def __init__(
        self,
        fn: Callable,
        backend: Backend = "pmap",
        donate: bool = True,
        is_dealt: Callable[[Tree], Tree] | None = None,
    ) -> None:
        if backend not in ("pmap", "shard_map"):
            raise UserError(f"unknown parallel backend {backend!r}; known: pmap, shard_map")
        self._fn, self._donate, self._is_dealt = fn, donate, is_dealt
        self._is_pmap = backend == "pmap"
        self._compiled: Any = None
        self.compile_seconds = 0.0

    def _trace(self, dealt: Tree) -> Any:
        """Returns the function over all devices; `dealt` marks the leaves of its carry."""
        donated = (0,) if self._donate else ()
        if self._is_pmap:
            axes = None if dealt is None else jax.tree.map(lambda yes: 0 if yes else None, dealt)
            out = (axes, None) if self._donate and dealt is not None else None
            return jax.pmap(
                self._fn,
                axis_name=AXIS,
                in_axes=(axes, None, 0),
                out_axes=out,
                donate_argnums=donated,
            )

        def strip(carry: Tree) -> Tree:
            return jax.tree.map(lambda leaf, yes: leaf[0] if yes else leaf, carry, dealt)

        def restore(carry: Tree) -> Tree:
            return jax.tree.map(lambda leaf, yes: leaf[None] if yes else leaf, carry, dealt)

        def on_device(carry: Tree, resident: Tree, batch: Tree) -> Tree:
            own = jax.tree.map(lambda leaf: leaf[0], batch)
            if dealt is None:
                return self._fn(carry, resident, own)
            carry, out = self._fn(strip(carry), resident, own)
            return (restore(carry) if self._donate else carry), out

        everywhere, split = PartitionSpec(), PartitionSpec(AXIS)
        of_carry: Any = everywhere
        if dealt is not None:
            of_carry = jax.tree.map(lambda yes: split if yes else everywhere, dealt)
        # check_vma would insert its own psum into gradients of replicated values: ours would
        # then count every device twice.
        mapped = jax.shard_map(
            on_device,
            mesh=_mesh(),
            in_specs=(of_carry, everywhere, split),
            out_specs=(of_carry, everywhere) if self._donate else everywhere,
            check_vma=False,
        )
        return jax.jit(mapped, donate_argnums=donated)

    def compile(self, carry: Tree, resident: Tree, batch: Tree) -> Any:
        """Compiles for these shapes; `batch` is a host batch of this process."""
        start = time.perf_counter()
        dealt = None if self._is_dealt is None else self._is_dealt(carry)
        _check_dealt(carry, dealt)
        # pmap is lowered with the process-local view of a batch.
        example = jax.tree.map(_by_device, batch) if self._is_pmap else shard(batch)
        lowered = self._trace(dealt).lower(carry, resident, example)
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

    def text(self) -> str:
        """The compiled program of one device, as XLA prints it; "" before the compilation."""
        return "" if self._compiled is None else str(self._compiled.as_text())

    def temp_bytes(self) -> int:
        """Temporary memory of a call, on one device; 0 if unknown."""
        memory = self._compiled.memory_analysis() if self._compiled is not None else None
        return int(getattr(memory, "temp_size_in_bytes", 0))


def _check_dealt(carry: Tree, dealt: Tree) -> None:
    """Raises a ValueError for a carry whose leaves have not been dealt to the devices."""
    if dealt is None:
        return
    for leaf, yes in zip(jax.tree.leaves(carry), jax.tree.leaves(dealt), strict=True):
        if yes and (leaf.ndim < 2 or leaf.shape[0] != jax.device_count()):
            raise ValueError(
                f"a leaf {leaf.shape} is to be split over {jax.device_count()} devices;"
                " place the state first (`tables.place`)"
            )
