"""What the CPU compiler needs to be told."""

from __future__ import annotations

import functools

import jax

_KEEP_CONVOLUTIONS_ON_EIGEN = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
}


@functools.cache
def _accepted() -> bool:
    """Whether this jaxlib knows the options: tried once, by compiling a one-line program."""
    try:
        probe = jax.jit(lambda x: x + 1, compiler_options=_KEEP_CONVOLUTIONS_ON_EIGEN)
        probe(1.0).block_until_ready()
    except (jax.errors.JaxRuntimeError, ValueError):
        return False
    return True


def cpu_compiler_options() -> dict[str, str]:
    """Returns the options for `jax.jit(f, compiler_options=...)` that make convolutions fast.

    The CPU compiler hands convolutions and matmuls to YNNPACK, whose convolutions run on one
    thread up to about 80 output channels (measured, jaxlib 0.10.2). The option keeps its matmuls
    and gives convolutions back to Eigen. It only works on the outermost `jit`; after
    `f.lower(...)`, hand it to `.compile(compiler_options=...)`.

    Returns:
      The options; empty when the default backend is no CPU, or when this jaxlib does not know
      them.
    """
    if jax.default_backend() != "cpu" or not _accepted():
        return {}
    return dict(_KEEP_CONVOLUTIONS_ON_EIGEN)
