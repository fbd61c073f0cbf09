"""A state as named host arrays, and back."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Tree = Any
Leaves = dict[str, np.ndarray]
CHUNK = 1 << 24  # bytes a broadcast; one shape, so that it compiles once


class Spec(NamedTuple):
    """Shape and dtype (by name) of one leaf."""

    shape: list[int]
    dtype: str


def take(state: Tree) -> Leaves:
    """Copies a state to the host: `{"params/dense/kernel": array, ...}`.

    Copies even where host and device share memory: the next step may reuse a donated buffer, and
    numpy leaves may be changed in place. Leaves may be arrays or Python numbers; None and empty
    containers have no leaves.

    Raises:
      TypeError: a leaf that is no number or array of numbers, or a PRNG key. Keys follow from
        (seed, step) and are never stored.
      ValueError: an array that is spread over devices of several processes, or equal paths.
    """
    leaves: Leaves = {}
    for path, leaf in _named(state):
        if path in leaves:
            raise ValueError(f"two leaves of the state are both called {path!r}")
        if isinstance(leaf, jax.Array):
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                raise TypeError(f"{path} is a PRNG key; derive keys from (seed, step) instead")
            if leaf.is_fully_replicated:
                leaf = leaf.addressable_data(0)
            elif not leaf.is_fully_addressable or jax.process_count() > 1:
                raise ValueError(
                    f"{path} differs between processes; only replicated leaves are saved"
                )
        array = np.array(leaf)
        if array.dtype.kind in "OSUmM":
            raise TypeError(f"{path} is a {type(leaf).__name__}; a state holds numbers only")
        leaves[path] = array
    return leaves


def describe(leaves: Leaves) -> dict[str, Spec]:
    """Returns the `Spec` of every leaf."""
    return {path: Spec(list(leaf.shape), leaf.dtype.name) for path, leaf in leaves.items()}


def mismatch(template: Tree, specs: dict[str, Spec]) -> str | None:
    """Says how the first leaf of `template` differs from what was saved; None if it all fits."""
    wanted = dict(_named(template))
    for path, leaf in wanted.items():
        if path not in specs:
            return f"{path} is not in the checkpoint"
        if not hasattr(leaf, "shape"):
            leaf = np.asarray(leaf)
        there, here = specs[path], Spec(list(leaf.shape), leaf.dtype.name)
        if there != here:
            return f"{path} is {there.dtype}{there.shape} there, {here.dtype}{here.shape} here"
    extra = sorted(set(specs) - set(wanted))
    return f"{extra[0]} is in the checkpoint but not in this state" if extra else None


def rebuild(template: Tree, leaves: Leaves) -> Tree:
    """Puts the leaves into the structure of `template`, as numpy; Python numbers stay such."""

    def put(path: str, leaf: Any) -> Any:
        return (
            type(leaf)(leaves[path])
            if isinstance(leaf, bool | int | float | complex)
            else leaves[path]
        )

    return jax.tree.unflatten(
        jax.tree.structure(template), [put(path, leaf) for path, leaf in _named(template)]
    )


def broadcast(data: bytes) -> bytes:
    """Returns process 0's bytes on every process; all processes must call it.

    Bytes, because the underlying sum over processes would turn -0.0 into 0.0.
    """
    from jax.experimental import multihost_utils

    def send(part: bytes, size: int) -> bytes:
        block = np.zeros(size, np.uint8)
        block[: len(part)] = np.frombuffer(part, np.uint8)
        return np.asarray(multihost_utils.broadcast_one_to_all(block)).astype(np.uint8).tobytes()

    total = int.from_bytes(send(len(data).to_bytes(8, "little"), 8), "little")
    parts = [send(data[start : start + CHUNK], CHUNK) for start in range(0, total, CHUNK)]
    return b"".join(parts)[:total]


def pack(leaves: Leaves) -> bytes:
    """Returns the bytes of all leaves, one after the other."""
    return b"".join(leaf.tobytes() for leaf in leaves.values())


def unpack(data: bytes, specs: dict[str, Spec]) -> Leaves:
    """Cuts what `pack` made into leaves again."""
    leaves, start = {}, 0
    for path, spec in specs.items():
        dtype, count = jnp.dtype(spec.dtype), int(np.prod(spec.shape))
        leaves[path] = np.frombuffer(data, dtype, count, start).reshape(spec.shape).copy()
        start += leaves[path].nbytes
    return leaves


def _named(tree: Tree) -> list[tuple[str, Any]]:
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in flat]
