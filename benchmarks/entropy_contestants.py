"""Who scores in the benchmark of scoring, and what their work is: ours, transformers, FLOPs, and how far their results are apart."""

import functools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from training_steps import TYPES

from bltdata.entropy import PRESETS, EntropyModel, EntropyModelConfig
from bltdata.entropy.interop import patcher_config, patcher_state
from bltdata.patching import PatchRule, calibrate
from bltdata.vocab import BOE_ID, VOCAB_SIZE, encode
from bltmodel import flops

if TYPE_CHECKING:
    from transformers.models.blt.modeling_blt import BltPatcher

TARGET_PATCH_LENGTH = 4.5
LARGEST_DIFFERENCE = 1e-2
"""Nats that no rounding explains. What rounding does is reported: the peer's positions count from the document's start, so its rotary
angles, in float32, lose digits as the document goes on."""
EARLY = 512
"""Positions of a document that count as its beginning."""
HEAD_SCALE = 3.0
"""Of random weights: as they are, they find every byte as hard as the next, and nothing would be compared."""

CONFIGS = {**PRESETS, "reference-256x4": EntropyModelConfig(dim=256, num_layers=4, num_heads=4, ffn_dim=768, window=512)}


Entropies = list[np.ndarray]
Contestant = Callable[[], Entropies]


@dataclass(frozen=True, kw_only=True)
class Field:
    """Who runs."""

    types: tuple[str, ...]
    """Types of matrix products, names of `TYPES`."""
    peers: tuple[str, ...]
    """How transformers is driven: plain, padded."""
    block_tokens: int
    """Tokens that padded documents are cut and padded to."""


def random_model(config: EntropyModelConfig) -> EntropyModel:
    """Weights that nobody trained, whose entropies differ."""
    model = EntropyModel(config)
    with torch.no_grad():
        model.head.weight *= HEAD_SCALE
    return model.eval()


def make_models(presets: tuple[str, ...], folders: tuple[str, ...]) -> dict[str, EntropyModel]:
    """Models by name; trained ones take the place of the presets of their architecture."""
    models = {name: random_model(CONFIGS[name]) for name in presets}
    for folder in folders:
        trained = EntropyModel.load(folder)
        models = {name: model for name, model in models.items() if model.config != trained.config}
        models[folder] = trained
    return models


def scored(model: EntropyModel, documents: list[bytes], kind: str) -> Entropies:
    """Entropies by us."""
    return [score.entropy_nats for score in model.score_with_nll(documents, TYPES[kind])]


@torch.inference_mode()
def scored_by_peer(patcher: "BltPatcher", documents: list[bytes], block: int | None) -> Entropies:
    """Entropies by transformers, document by document; cut into blocks and padded where `block` says how long they are."""
    entropies = []
    for data in documents:
        ids = encode(data, bos=True)[None]
        if block is not None:
            ids = np.pad(ids[0], (0, -ids.size % block), constant_values=BOE_ID).reshape(-1, block)
        entropies.append(patcher(torch.from_numpy(ids))[0].flatten()[: len(data) + 1].float().numpy())
    return entropies


def make_peer(model: EntropyModel, kind: str) -> "BltPatcher":
    """Transformers' model with the weights of ours."""
    # Here and not above, so that neither a run without it nor the processes beside this one load it.
    from transformers.models.blt.configuration_blt import BltPatcherConfig
    from transformers.models.blt.modeling_blt import BltPatcher

    patcher = BltPatcher(BltPatcherConfig(**patcher_config(model.config))).eval()
    patcher.load_state_dict(patcher_state(model))
    frequencies = patcher.rotary_emb.inv_freq
    patcher.to(TYPES[kind])
    # As in a model that was loaded in this type; rounded, they would blur positions.
    patcher.rotary_emb.inv_freq = frequencies
    return patcher


def make_contestants(model: EntropyModel, documents: list[bytes], field: Field) -> dict[str, Contestant]:
    """What is timed, by name and type."""
    contestants: dict[str, Contestant] = {f"ours {kind}": functools.partial(scored, model, documents, kind) for kind in field.types}
    for kind in field.types if field.peers else ():
        patcher = make_peer(model, kind)
        for style in field.peers:
            block = field.block_tokens if style == "padded" else None
            contestants[f"{style} {kind}"] = functools.partial(scored_by_peer, patcher, documents, block)
    return contestants


def compare(results: dict[str, Entropies], documents: list[bytes], field: Field) -> dict[str, Any]:
    """How far the results are from each other; stops where ours are not those of the same model in transformers."""
    report: dict[str, Any] = {}
    if "ours float32" not in results:
        return report
    exact = results["ours float32"]
    spread = np.concatenate(exact)
    report["mean_entropy_nats"], report["deviation_nats"] = round(float(spread.mean()), 4), round(float(spread.std()), 4)
    whole = [index for index, data in enumerate(documents) if len(data) < field.block_tokens]
    for name, chosen in (("plain float32", range(len(documents))), ("padded float32", whole)):
        if name in results and chosen:
            apart = [np.abs(exact[index] - results[name][index]) for index in chosen]
            difference = max(float(each.max()) for each in apart)
            report[f"largest_difference_nats, {name}"] = difference
            report[f"largest_difference_nats, {name}, first {EARLY}"] = max(float(each[:EARLY].max()) for each in apart)
            if difference > LARGEST_DIFFERENCE:
                sys.exit(f"entropies differ from those of {name} by {difference:.2g} nats")
    threshold = calibrate(zip(documents, exact, strict=True), PatchRule(), TARGET_PATCH_LENGTH).threshold
    for ours, theirs in (("ours bfloat16", "ours float32"), ("plain bfloat16", "plain float32")):
        if ours in results and theirs in results:
            rounded, truth = (np.concatenate([each[1:] for each in results[name]]) > np.float32(threshold) for name in (ours, theirs))
            report[f"same_decisions, {ours}"] = round(float((rounded == truth).mean()), 6)
            report[f"kept_boundaries, {ours}"] = round(float((rounded & truth).sum() / max(truth.sum(), 1)), 6)
    return report


def useful_flops(config: EntropyModelConfig, documents: list[bytes]) -> float:
    """Forward FLOPs that these documents need; see `bltmodel.flops`."""
    total = 0.0
    for num_tokens in (len(data) + 1 for data in documents):
        block = flops._block(config.dim, config.ffn_dim, flops._mean_keys(num_tokens, config.window))
        total += num_tokens * (config.num_layers * block + 2 * config.dim * VOCAB_SIZE)
    return total


def peak_flops(kind: str, *, small: bool) -> float:
    """FLOPs per second of the best matrix product in a type."""
    shapes = [(512, 512, 512)] if small else [(2048, 2048, 2048), (4096, 256, 768), (4096, 768, 2048), (4096, 2048, 768), (8192, 768, 4096)]
    best = 0.0
    for rows, inner, columns in shapes:
        x, weight = (torch.randn(shape, dtype=torch.float32).to(TYPES[kind]) for shape in ((rows, inner), (columns, inner)))
        for _ in range(6):
            begin = time.process_time()
            torch.nn.functional.linear(x, weight)
            best = max(best, 2 * rows * inner * columns / max(time.process_time() - begin, 1e-6))
    return best
