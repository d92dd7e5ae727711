"""How fast does a BLT generate, with caches and without, against transformers with the same weights?

One thread, CPU time, the allocator prepared for all. transformers' BltForCausalLM runs with `use_cache=False`, its only mode that is
right; it gets our weights by the way of `bltmodel export`, the entropy model as its patcher, and the threshold that starts the same
patches, calibrated to a mean patch length of 4.5 on the text. One document at a time, since transformers can't do more.

Two questions, for each number of new bytes after `--prompt-bytes` bytes:

    greedy   what each chooses itself: its `generate`, from prompt to last byte
    forced   the bytes of a real text (documentation that Python ships, or --text): each step is told what comes, then predicts.
             So this is what a byte costs where it stands: caches have read the prompt before the clock starts, and of the steps
             without a cache, which read everything whatever came before, only every --sample-every'th is computed and timed.

All take turns, `--repeats` times, after a round that isn't timed. First they are compared: logits at every position of both texts must be
equal to 1e-4, and the bytes of the greedy texts up to where the two most probable are closer to each other than that.

Weights are random unless --model and --entropy-model are given. The patches of random text are short, so a trained model says more.

    python benchmarks/bench_generation.py --model runs/quickstart/blt --entropy-model runs/quickstart/entropy-model
"""

import contextlib
import itertools
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import click
import numpy as np
import torch
from timing import cpu_seconds
from torch import Tensor

from bltdata.entropy import EntropyModel
from bltdata.nn import prepare_cpu
from bltdata.patching import PatchRule, calibrate
from bltdata.shards import round_entropies
from bltdata.vocab import BYTE_OFFSET, encode
from bltmodel.generation import CachedDecoding, GenerationSettings, PatchesOfRule, generate
from bltmodel.interop.exporting import export_blt
from bltmodel.interop.thresholds import unrounded_threshold
from bltmodel.model import BLT
from bltmodel.sampling_config import SamplingConfig

GREEDY = SamplingConfig(temperature=0.0, stop_at_eos=False)
TARGET_PATCH_LENGTH = 4.5
TOLERANCE = 1e-4
SPECIAL_IDS = list(range(BYTE_OFFSET))


@dataclass(frozen=True)
class Models:
    """The same weights three times: ours with and without caches, and transformers'."""

    blt: BLT
    entropy_model: EntropyModel
    theirs: Any
    rule: PatchRule

    def settings(self, new_bytes: int, *, use_cache: bool) -> GenerationSettings:
        """Greedy, without an end."""
        return GenerationSettings(
            rule=self.rule, entropy_model=self.entropy_model, max_new_bytes=new_bytes, sampling=GREEDY, use_cache=use_cache
        )

    def lengths(self, text: bytes) -> np.ndarray:
        """The patches of a text."""
        return self.rule.lengths(text, round_entropies(next(iter(self.entropy_model.score([text])))))


def make_models(folder: Path | None, entropy_folder: Path | None, preset: str, entropy_preset: str, text: bytes) -> Models:
    """Load or invent the weights, calibrate the rule on the text, and give both to transformers."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import BltForCausalLM

    blt = BLT.load(folder) if folder else BLT.from_preset(preset).eval()
    entropy_model = EntropyModel.load(entropy_folder) if entropy_folder else EntropyModel.from_preset(entropy_preset).eval()
    entropies = round_entropies(next(iter(entropy_model.score([text]))))
    rule = calibrate([(text, entropies)], PatchRule(), TARGET_PATCH_LENGTH).rule
    assert rule.threshold is not None
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        blt.save(place / "blt")
        entropy_model.save(place / "entropy-model")
        threshold = unrounded_threshold(rule.threshold, "grid")
        export_blt(place / "blt", place / "theirs", entropy_model=place / "entropy-model", threshold=threshold)
        # How weights are loaded is shown on stdout and stderr otherwise.
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            theirs = BltForCausalLM.from_pretrained(place / "theirs").eval()
    return Models(blt, entropy_model, theirs, rule)


def ids_of(text: bytes) -> Tensor:
    """A text with BOS as transformers takes it."""
    return torch.from_numpy(encode(text, bos=True))[None]


@torch.no_grad()
def their_logits(models: Models, text: bytes) -> Tensor:
    """What transformers predicts after the whole text."""
    return models.theirs(ids_of(text), use_cache=False, logits_to_keep=1).logits[0, -1].float()


@torch.no_grad()
def their_text(models: Models, prompt: bytes, new_bytes: int) -> bytes:
    """What transformers chooses."""
    ids = models.theirs.generate(
        ids_of(prompt), max_new_tokens=new_bytes, do_sample=False, use_cache=False, eos_token_id=None, suppress_tokens=SPECIAL_IDS
    )
    return bytes((ids[0, 1 + len(prompt) :] - BYTE_OFFSET).tolist())


def after_prompt(models: Models, prompt: bytes) -> CachedDecoding:
    """Caches that have read the prompt."""
    return CachedDecoding(models.blt, [prompt], PatchesOfRule([prompt], models.settings(1, use_cache=True)))


def steps(decoding: CachedDecoding, new: bytes) -> Iterator[Tensor]:
    """What we predict after each of these bytes, with caches."""
    for value in new:
        decoding.append([value])
        yield decoding.logits_BV[0]


def check(models: Models, prompt: bytes, new: bytes, sample_every: int) -> float:
    """The largest difference between what the three predict along a text; stops if it is too large."""
    text = prompt + new
    plain = models.blt.logits(text, models.lengths(text))
    largest = 0.0
    decoding = after_prompt(models, prompt)
    for step, cached in enumerate(itertools.chain([decoding.logits_BV[0]], steps(decoding, new[:-1]))):
        position = len(prompt) + step
        others = [plain[position]]
        if step % sample_every == 0:
            others.append(their_logits(models, text[:position]))
        largest = max(largest, *(float((cached - other).abs().max()) for other in others))
    if not largest < TOLERANCE:
        sys.exit(f"predictions differ by {largest:.2g} after {len(prompt)} bytes")
    return largest


def check_choices(models: Models, prompt: bytes, ours: bytes, other: bytes, who: str) -> int:
    """How many bytes two greedy texts share; stops if they part where one byte is clearly the most probable."""
    shared = next((place for place, pair in enumerate(zip(ours, other, strict=True)) if pair[0] != pair[1]), len(ours))
    if shared < len(ours):
        text = prompt + ours[:shared]
        best = models.blt.logits(text, models.lengths(text))[-1, BYTE_OFFSET:].topk(2).values
        if best[0] - best[1] > TOLERANCE:
            sys.exit(f"{who} chooses another byte after {shared} bytes, where the best leads by {float(best[0] - best[1]):.2g}")
    return shared


def greedy(models: Models, prompt: bytes, new_bytes: int) -> dict[str, Callable[[], object]]:
    """Contestants that choose themselves."""
    return {
        "cached": lambda: generate(models.blt, [prompt], models.settings(new_bytes, use_cache=True)),
        "uncached": lambda: generate(models.blt, [prompt], models.settings(new_bytes, use_cache=False)),
        "transformers": lambda: their_text(models, prompt, new_bytes),
    }


def forced(models: Models, prompt: bytes, new: bytes, sample_every: int, rounds: int) -> dict[str, Callable[[], object]]:
    """Contestants that are told what comes, for so many rounds; those without a cache take a sample of the steps."""
    lengths = [models.lengths((prompt + new)[: len(prompt) + step]) for step in range(0, len(new), sample_every)]
    decodings = [after_prompt(models, prompt) for _ in range(rounds)]

    def uncached() -> None:
        # Entropies are carried along in this mode too; they are left out here, in its favour.
        for number, each in enumerate(lengths):
            models.blt.logits((prompt + new)[: len(prompt) + number * sample_every], each)

    def theirs() -> None:
        for step in range(0, len(new), sample_every):
            their_logits(models, (prompt + new)[: len(prompt) + step])

    return {"cached": lambda: list(steps(decodings.pop(), new)), "uncached": uncached, "transformers": theirs}


def rates(contestants: dict[str, Callable[[], object]], computed: dict[str, int], repeats: int) -> dict[str, Any]:
    """Bytes per second of each, which computes so many, and how many times as fast the one with caches is."""
    seconds = cpu_seconds(contestants, repeats)
    each = {name: [computed[name] / second for second in seconds[name]] for name in contestants}
    median = {name: statistics.median(values) for name, values in each.items()}
    return {
        "bytes_per_second": {name: round(value, 2) for name, value in median.items()},
        "spread": {name: [round(min(values), 2), round(max(values), 2)] for name, values in each.items()},
        "cached_over_uncached": round(median["cached"] / median["uncached"], 2),
        "cached_over_transformers": round(median["cached"] / median["transformers"], 2),
    }


def measure(models: Models, text: bytes, prompt_bytes: int, new_bytes: int, repeats: int, sample_every: int) -> list[dict[str, Any]]:
    """Both questions for a number of new bytes."""
    prompt, real = text[:prompt_bytes], text[prompt_bytes : prompt_bytes + new_bytes]
    (own,) = generate(models.blt, [prompt], models.settings(new_bytes, use_cache=True))
    (plain,) = generate(models.blt, [prompt], models.settings(new_bytes, use_cache=False))
    others = {"uncached": plain, "transformers": their_text(models, prompt, new_bytes)}
    shared = {who: check_choices(models, prompt, own, other, who) for who, other in others.items()}
    cases = []
    for question, new in (("greedy", own), ("forced", real)):
        every = sample_every if question == "forced" else 1
        contestants = greedy(models, prompt, new_bytes) if question == "greedy" else forced(models, prompt, real, every, repeats + 1)
        sampled = len(range(0, new_bytes, every))
        case = {
            "question": question,
            "new_bytes": new_bytes,
            "largest_difference": check(models, prompt, new, sample_every),
            "mean_patch_length": round((len(new) + 1) / sum(np.cumsum(models.lengths(prompt + new)) > prompt_bytes), 2),
            **({"bytes_shared_with": shared} if question == "greedy" else {}),
            **rates(contestants, {"cached": new_bytes, "uncached": sampled, "transformers": sampled}, repeats),
        }
        cases.append(case)
        for name, rate in case["bytes_per_second"].items():
            low, high = case["spread"][name]
            print(f"{question:8}{new_bytes:6} new bytes  {name:14}{rate:9.2f} bytes/s  ({low:.2f} to {high:.2f})", flush=True)
    return cases


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--model", type=click.Path(path_type=Path, exists=True), help="A trained BLT.  [default: random weights]")
@click.option("--entropy-model", type=click.Path(path_type=Path, exists=True), help="A trained entropy model.  [default: random weights]")
@click.option("--preset", default="tiny", show_default=True, help="Size of a BLT of random weights.")
@click.option("--entropy-preset", default="small", show_default=True, help="Size of an entropy model of random weights.")
@click.option("--text", type=click.Path(path_type=Path, exists=True), help="A file with the real text.  [default: Python's documentation]")
@click.option("--prompt-bytes", default=32, show_default=True, help="Bytes of the text that are the prompt.")
@click.option("--new-bytes", default="256,1024", show_default=True, help="Numbers of new bytes, with commas between them.")
@click.option("--repeats", default=3, show_default=True, help="Timed rounds.")
@click.option("--sample-every", default=8, show_default=True, help="Of the forced steps without a cache, one in so many is timed.")
@click.option("--small", is_flag=True, help="Seconds instead of an hour: tiny models, 12 and 24 new bytes, one round.")
def main(
    model: Path | None,
    entropy_model: Path | None,
    preset: str,
    entropy_preset: str,
    text: Path | None,
    prompt_bytes: int,
    new_bytes: str,
    repeats: int,
    sample_every: int,
    small: bool,
) -> None:
    """Print a table, and one line of JSON."""
    if small:
        entropy_preset, new_bytes, repeats, sample_every = "tiny", "12,24", 1, 4
    torch.set_num_threads(1)
    prepare_cpu()
    data = text.read_bytes() if text else "\n".join(topics[name] for name in sorted(topics)).encode()
    sizes = [int(size) for size in new_bytes.split(",")]
    if len(data) < prompt_bytes + max(sizes):
        sys.exit(f"{text} has {len(data)} bytes; {prompt_bytes + max(sizes)} are needed")
    data = data[: max(prompt_bytes + max(sizes), 4096)]
    models = make_models(model, entropy_model, preset, entropy_preset, data)
    cases = [case for size in sizes for case in measure(models, data, prompt_bytes, size, repeats, sample_every)]
    about = {"model": str(model or preset), "entropy_model": str(entropy_model or entropy_preset), "threads": 1}
    print(json.dumps({**about, "prompt_bytes": prompt_bytes, "repeats": repeats, "sample_every": sample_every, "cases": cases}))


if __name__ == "__main__":
    main()
