"""Four equivalent ways to batch over tasks: batched matrix products, vmap, vmap in chunks, or a loop over tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch.utils import _pytree as pytree

Batching = Literal["batched", "vmap", "chunks", "loop"]
BATCHINGS: tuple[Batching, ...] = ("batched", "vmap", "chunks", "loop")


def over_tasks(
    function: Callable[..., Any], tree_dims: Mapping[str, int | None], batching: Batching, chunk_size: int = 8
) -> Callable[..., Any]:
    """Turn a `function` of one task into a function of all tasks.

    The first argument is a dict whose entries have a leading task axis where `tree_dims` is 0 and are shared by all
    tasks where it is None; all other arguments are trees of tensors with a leading task axis. "batched" returns the
    function itself, which must then accept all tasks at once.
    """
    if batching == "batched":
        return function

    def batched(params: Mapping[str, Any], *rest: Any) -> Any:
        in_dims = (dict(tree_dims), *(0 for _ in rest))
        if batching != "loop":
            chunk = chunk_size if batching == "chunks" else None
            return torch.vmap(function, in_dims, chunk_size=chunk)(dict(params), *rest)
        outputs = []
        for task in range(pytree.tree_leaves(rest)[0].shape[0]):
            own = {name: value if tree_dims[name] is None else value[task] for name, value in params.items()}
            outputs.append(function(own, *pytree.tree_map(lambda leaf: leaf[task], rest)))  # noqa: B023
        return pytree.tree_map(lambda *leaves: torch.stack(leaves), *outputs)

    return batched
