"""Which kernel should banded attention use on a CPU: torch's fused one, two plain matrix products, or these block by block?

One process, one thread, CPU time. For each window and type, the kernels run in turn, `--repeats` times after one untimed round: forward
alone, as in scoring, and forward with backward, as in training. Each kernel gets blocks of its own size. One row of `--tokens` tokens of
documents of `--document-tokens`. The results are compared before anything is timed.

    python benchmarks/bench_attention.py --tokens 8192 --windows 128,512
"""

import json
import statistics
import sys
from collections.abc import Callable
from unittest import mock

import click
import torch
from timing import cpu_seconds
from torch import Tensor

from bltdata.nn import attention, prepare_cpu

KERNELS = {"fused": attention._fused, "plain": attention._plain, "blockwise": attention._plain}
"""What computes all blocks at once; `blockwise` takes one after the other."""

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def make_inputs(tokens: int, heads: int, head_dim: int, kind: torch.dtype) -> list[Tensor]:
    """Queries, keys and values of one row."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, heads, tokens, head_dim, generator=generator).to(kind) for _ in range(3)]


def forward(kernel: str, inputs: list[Tensor], mask: attention.AttentionMask) -> Tensor:
    """Attention as the models call it, with the kernel that is asked for instead of the one that suits."""
    q, k, v = inputs
    with (
        mock.patch.object(attention, "_attend_blocks", KERNELS[kernel]),
        mock.patch.object(attention, "_blockwise_wins", return_value=kernel == "blockwise"),
    ):
        return attention.attend(q, k, v, mask)


def make_mask(kernel: str, visible_from: Tensor, window: int) -> attention.AttentionMask:
    """The mask in blocks of the size that the kernel gets."""
    with mock.patch.object(attention, "_plain_wins", return_value=kernel != "fused"):
        return attention.banded_mask(visible_from, window)


def contestant(kernel: str, inputs: list[Tensor], masks: dict[str, attention.AttentionMask], *, backward: bool) -> Callable[[], object]:
    """What is timed."""
    if not backward:
        return lambda: forward(kernel, inputs, masks[kernel])
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    weights = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(1)).to(inputs[0].dtype)
    return lambda: torch.autograd.grad(forward(kernel, leaves, masks[kernel]), leaves, weights)


def check(inputs: list[Tensor], masks: dict[str, attention.AttentionMask]) -> None:
    """Stop if the kernels don't agree."""
    fused, *others = (forward(kernel, inputs, masks[kernel]) for kernel in KERNELS)
    difference = max(float((fused - other).abs().max()) for other in others)
    if not difference < (1e-4 if inputs[0].dtype == torch.float32 else 0.1):
        sys.exit(f"the kernels differ by {difference}")


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--tokens", default=4096, show_default=True, help="Tokens of the row.")
@click.option("--document-tokens", default=1000, show_default=True, help="Tokens of a document.")
@click.option("--windows", default="64,128,512", show_default=True, help="Windows, with commas between them.")
@click.option("--types", default="float32,bfloat16", show_default=True, help="Types, with commas between them.")
@click.option("--heads", default=4, show_default=True, help="Attention heads.")
@click.option("--head-dim", default=64, show_default=True, help="Size of a head.")
@click.option("--repeats", default=5, show_default=True, help="Timed rounds.")
@click.option("--small", is_flag=True, help="Seconds instead of a minute: 1024 tokens, one window, two rounds.")
def main(tokens: int, document_tokens: int, windows: str, types: str, heads: int, head_dim: int, repeats: int, small: bool) -> None:
    """Print a table, and one line of JSON."""
    if small:
        tokens, windows, repeats = 1024, "128", 2
    torch.set_num_threads(1)
    prepare_cpu()
    positions = torch.arange(tokens)
    visible_from = (positions - positions % document_tokens)[None]
    cases = []
    for window in map(int, windows.split(",")):
        masks = {kernel: make_mask(kernel, visible_from, window) for kernel in KERNELS}
        for name in types.split(","):
            inputs = make_inputs(tokens, heads, head_dim, TYPES[name])
            check(inputs, masks)
            for backward in (False, True):
                seconds = cpu_seconds({kernel: contestant(kernel, inputs, masks, backward=backward) for kernel in KERNELS}, repeats)
                passes = "forward and backward" if backward else "forward"
                median = {kernel: statistics.median(values) for kernel, values in seconds.items()}
                for kernel, values in seconds.items():
                    spread = f"{min(values) * 1e3:8.2f} to {max(values) * 1e3:8.2f} ms"
                    print(f"window {window:5}  {name:8}  {passes:20}  {kernel:9}  {median[kernel] * 1e3:8.2f} ms  ({spread})")
                milliseconds = {kernel: round(value * 1e3, 3) for kernel, value in median.items()}
                ratio = round(median["fused"] / median["plain"], 3)
                cases.append({"window": window, "type": name, "passes": passes, "milliseconds": milliseconds, "fused_over_plain": ratio})
    print(json.dumps({"tokens": tokens, "heads": heads, "head_dim": head_dim, "repeats": repeats, "cases": cases}))


if __name__ == "__main__":
    main()
