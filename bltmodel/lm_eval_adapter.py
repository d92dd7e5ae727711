"""A BLT as a model of lm-evaluation-harness (extra `eval`), under the name `blt`.

On a command line, with every option and task of `lm_eval`, and in Python:

    python -m bltmodel.lm_eval_adapter --model blt --model_args model=runs/blt,entropy_model=runs/entropy-model --tasks hellaswag

    import lm_eval
    from bltmodel.lm_eval_adapter import BLTModel

    lm_eval.simple_evaluate(BLTModel("runs/blt", "runs/entropy-model"), tasks=["hellaswag"])

A token is a byte. Context and continuation are one document, cut by the entropy model and the rule of the shards that the BLT was
trained on, as every document is; its end is never part of a log-likelihood.
"""

import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bltdata.config import nearest
from bltdata.errors import BltError, ConfigError
from bltdata.nn import prepare_cpu, resolve_device, resolve_precision
from bltdata.nn.machine import Precision
from bltdata.training.checkpoint import load_model_metadata
from bltmodel.cutting import Cutter, LearnedPatches
from bltmodel.evaluation.config import EvaluationConfig
from bltmodel.evaluation.evaluator import trained_context
from bltmodel.evaluation.scores import ROWS_AT_ONCE, Scores, score
from bltmodel.evaluation.windows import PatchedDocument
from bltmodel.model import BLT, KIND
from bltmodel.sampling_config import SamplingConfig

try:
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
except ImportError:
    # Without the extra this can still be imported; whoever makes a `BLTModel` is told what to install.
    LM = object

    def register_model(*names: str) -> Any:
        """Register nothing."""
        return lambda cls: cls


DEFAULT_NEW_BYTES = 256
"""Bytes of a continuation, where a task doesn't say."""

_DEVICE_OF_HARNESS = "cuda:0"
"""What the harness's command line asks for where nobody asked for a device."""

_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""What tasks call the length of a continuation; the first that is given counts, as in the harness itself."""

_SAMPLED = ("temperature", "top_k", "top_p")

_ARGUMENTS = ("model", "entropy_model", "source", "device", "precision", "context_tokens", "stride", "batch_size", "max_batch_size", "seed")
"""What `--model_args` may set."""


@register_model("blt")
class BLTModel(LM):  # type: ignore[misc]
    """What lm-evaluation-harness asks a model, asked of a BLT.

    Args:
        model: folder of a trained BLT, on patches that look at nothing ahead.
        entropy_model: folder of the entropy model of its shards; None where their rule reads no entropies.
        source: cut texts as documents of this source are; needed where sources have rules of their own.
        device: where to compute.
        precision: type of matrix products.
        context_tokens: tokens that are read together at most; None for as many as a row had in training. Of a text that is to be
            continued the last ones are read, so that the continuation has room, or half of them at least.
        stride: see `EvaluationConfig.stride`; a continuation that isn't longer has as much of the text before it as fits.
        batch_size: texts as long as the context that go through the model at once: a number, or `auto`.
        max_batch_size: no more at once, even so.
        seed: fixes what is drawn, where a task has bytes drawn.
        unknown: what else `--model_args` sets, which is a mistake.

    Raises:
        ConfigError: lm-evaluation-harness isn't installed, the entropy model is missing, or a setting makes no sense.
        CheckpointError: there is no model, or the entropy model is another.
    """

    def __init__(
        self,
        model: str | Path = "",
        entropy_model: str | Path | None = None,
        *,
        source: str = "",
        device: str = "auto",
        precision: Precision = "float32",
        context_tokens: int | None = None,
        stride: int | None = None,
        batch_size: int | str = ROWS_AT_ONCE,
        max_batch_size: int | None = None,
        seed: int = 0,
        **unknown: Any,
    ) -> None:
        if LM is object:
            raise ConfigError("lm-evaluation-harness is not installed; run pip install 'blt-toolkit[eval]'.")
        super().__init__()
        for name in unknown:
            raise ConfigError(f"A BLT has no argument {name!r}{nearest(name, _ARGUMENTS)}.")
        if not model:
            raise ConfigError("There is no model; give the folder of a trained BLT, as in --model_args model=runs/blt.")
        rows_at_once = _rows_at_once(batch_size)
        prepare_cpu()
        config = EvaluationConfig(context_tokens=context_tokens, stride=stride, precision=precision, seed=seed)
        if device == _DEVICE_OF_HARNESS and not torch.cuda.is_available():
            device = "auto"
        folder, where = Path(model), resolve_device(device)
        metadata = load_model_metadata(folder, KIND)
        patches = LearnedPatches.of(metadata, folder)
        if patches.looks_ahead:
            raise ConfigError(
                f"The patches that {folder} was trained on look ahead, so that where one starts tells of the bytes that a task asks for; "
                "train on shards of another rule."
            )
        self._rule = patches.rule_for(source)
        self._cutter = Cutter(patches, patches.entropy_model(Path(entropy_model) if entropy_model else None, where))
        self._blt = BLT.load(folder).to(where)
        self._source = source
        self._dtype = resolve_precision(precision, where)
        self._context_tokens = context_tokens or trained_context(metadata, folder)
        self._stride = config.stride_of(self._context_tokens)
        self._rows_at_once = rows_at_once if max_batch_size is None else min(rows_at_once, max_batch_size)
        self._seed = seed

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Natural log-likelihood of each continuation, and whether it is what greedy decoding would write.

        Args:
            requests: instances with `args` of context and continuation.
            disable_tqdm: there is no bar.
        """
        pairs = [tuple(_bytes(text) for text in request.args) for request in requests]
        scores = self._score(pairs)
        is_greedy = scores.num_recalled == scores.num_to_recall
        results = list(zip((-scores.nats).tolist(), is_greedy.tolist(), strict=True))
        self._remember("loglikelihood", requests, results)
        return results

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Natural log-likelihood of each text, from BOS on; a text that is longer than the context is read in windows.

        Args:
            requests: instances with `args` of one text.
            disable_tqdm: there is no bar.
        """
        results: list[float] = (-self._score([(b"", _bytes(text)) for (text,) in (request.args for request in requests)]).nats).tolist()
        self._remember("loglikelihood_rolling", requests, results)
        return results

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Continue each text to a stop string, the end of the document, or a number of bytes.

        Args:
            requests: instances with `args` of a text and settings: `until`, `max_gen_toks` (bytes), `do_sample`, `temperature`, `top_k`,
                `top_p`, or `num_beams`. Bytes that are no UTF-8 come as replacement characters.
            disable_tqdm: there is no bar.

        Raises:
            ConfigError: there is another setting.
        """
        results = [""] * len(requests)
        told = [(_told(request.args[1]), index) for index, request in enumerate(requests)]
        # Texts with the same settings go on side by side.
        for settings, group in itertools.groupby(sorted(told, key=lambda pair: repr(pair[0])), key=lambda pair: pair[0]):
            indices = [index for _, index in group]
            for begin in range(0, len(indices), self._rows_at_once):
                some = indices[begin : begin + self._rows_at_once]
                continued = self._generate([_bytes(requests[index].args[0]) for index in some], *settings)
                for index, new in zip(some, continued, strict=True):
                    results[index] = new.decode(errors="replace")
        self._remember("generate_until", requests, results)
        return results

    def _last_bytes(self, text: bytes, max_new_bytes: int) -> bytes:
        """So much of a text as leaves room for what comes: at positions beyond its training rows a BLT knows nothing."""
        # BOS is a token too.
        room = max(self._context_tokens - 1 - max_new_bytes, self._context_tokens // 2)
        return text[-room:]

    def _generate(self, prompts: list[bytes], stop: tuple[bytes, ...], max_new_bytes: int, sampling: SamplingConfig) -> list[bytes]:
        patches = self._cutter.patches
        return self._blt.generate(
            [self._last_bytes(prompt, max_new_bytes) for prompt in prompts],
            entropy_model=self._cutter.entropy_model,
            rule=self._rule,
            max_new_bytes=max_new_bytes,
            sampling=sampling,
            seed=self._seed,
            stop=stop,
            entropy_precision=patches.entropy_precision,
            reset_at_newline=patches.context.reset_at_newline,
            scoring_dtype=patches.scoring_dtype,
            precision=self._dtype,
        )

    def _score(self, pairs: Iterable[tuple[bytes, ...]]) -> Scores:
        return score(
            self._blt,
            self._documents(pairs),
            context_tokens=self._context_tokens,
            stride=self._stride,
            dtype=self._dtype,
            rows_at_once=self._rows_at_once,
        )

    def _documents(self, pairs: Iterable[tuple[bytes, ...]]) -> Iterator[PatchedDocument]:
        """Of each context and continuation one document, of which the continuation is scored."""
        pairs, read = itertools.tee(pairs)
        for (context, continuation), starts in zip(
            pairs, self._cutter.starts((self._source, b"".join(pair)) for pair in read), strict=True
        ):
            data, first = np.frombuffer(context + continuation, dtype=np.uint8), len(context)
            yield PatchedDocument(data, starts, first=first, with_end=False, recalled_from=first)

    def _remember(self, kind: str, requests: Sequence[Any], results: Sequence[Any]) -> None:
        """Tell the harness's cache, if it has one."""
        for request, result in zip(requests, results, strict=True):
            self.cache_hook.add_partial(kind, request.args, result)


def _rows_at_once(batch_size: int | str) -> int:
    """Of a number, which the harness's command line gives as text, or of `auto`, with or without how often to look: `auto:4`."""
    text = str(batch_size)
    if text.partition(":")[0] == "auto":
        return ROWS_AT_ONCE
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"The batch size is {batch_size!r}; it must be a whole number from 1, or auto.")
    return int(text)


def _bytes(text: str) -> bytes:
    """UTF-8; halves of a surrogate pair, which a JSON file may hold, as three bytes each."""
    return text.encode("utf-8", "surrogatepass")


def _told(settings: Mapping[str, Any]) -> tuple[tuple[bytes, ...], int, SamplingConfig]:
    """Stop strings, length, and sampling that a task asks for."""
    known = ("until", "do_sample", "num_beams", *_LENGTHS, *_SAMPLED)
    for name in settings:
        if name not in known:
            raise ConfigError(f"A task sets {name!r} for generating, and a BLT knows {', '.join(known)}; leave it out.")
    until = settings.get("until") or []
    stop = tuple(_bytes(text) for text in ([until] if isinstance(until, str) else until))
    length = next((int(settings[name]) for name in _LENGTHS if settings.get(name) is not None), DEFAULT_NEW_BYTES)
    drawn = {name: settings[name] for name in _SAMPLED if settings.get(name) is not None}
    num_beams = int(settings.get("num_beams") or 1)
    if num_beams > 1:
        if settings.get("do_sample"):
            raise ConfigError(f"A task sets do_sample, and num_beams to {num_beams}, but in a beam search nothing is drawn; leave one out.")
        return stop, length, SamplingConfig(num_beams=num_beams)
    temperature = float(drawn.get("temperature", 1.0 if settings.get("do_sample") else 0.0))
    if settings.get("do_sample") is False or temperature == 0:
        return stop, length, SamplingConfig(temperature=0.0)
    return stop, length, SamplingConfig(**{**drawn, "temperature": temperature})


def main() -> None:
    """Run `lm_eval` with `blt` among its models."""
    if LM is object:
        sys.exit("Error: lm-evaluation-harness is not installed; run pip install 'blt-toolkit[eval]'.")
    from lm_eval.__main__ import cli_evaluate

    try:
        cli_evaluate()
    except BltError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
