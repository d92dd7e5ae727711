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

from bltdata.errors import BltError, ConfigError
from bltdata.nn import prepare_allocator, resolve_device, resolve_precision
from bltdata.nn.machine import Precision
from bltdata.training.checkpoint import load_model_metadata
from bltmodel.evaluation.config import EvaluationConfig
from bltmodel.evaluation.cutting import Cutter
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


@register_model("blt")
class BLTModel(LM):  # type: ignore[misc]
    """What lm-evaluation-harness asks a model, asked of a BLT.

    Args:
        model: folder of a trained BLT.
        entropy_model: folder of the entropy model of its shards; None where their rule reads no entropies.
        source: cut texts as documents of this source are; needed where sources have rules of their own.
        device: where to compute.
        precision: type of matrix products.
        context_tokens: tokens that are read together at most; None for as many as a row had in training.
        stride: see `EvaluationConfig.stride`; a continuation that isn't longer has as much of the text before it as fits.
        batch_size: texts as long as the context that go through the model at once.
        seed: fixes what is drawn, where a task has bytes drawn.

    Raises:
        ConfigError: lm-evaluation-harness isn't installed, the entropy model is missing, or a setting makes no sense.
        CheckpointError: there is no model, or the entropy model is another.
    """

    def __init__(
        self,
        model: str | Path,
        entropy_model: str | Path | None = None,
        *,
        source: str = "",
        device: str = "auto",
        precision: Precision = "float32",
        context_tokens: int | None = None,
        stride: int | None = None,
        batch_size: int | str = ROWS_AT_ONCE,
        seed: int = 0,
    ) -> None:
        if LM is object:
            raise ConfigError("lm-evaluation-harness is not installed; run pip install 'blt-toolkit[eval]'.")
        super().__init__()
        if not isinstance(batch_size, int) and batch_size != "auto":
            raise ConfigError(f"The batch size is {batch_size!r}; it must be a whole number, or auto.")
        prepare_allocator()
        config = EvaluationConfig(context_tokens=context_tokens, stride=stride, precision=precision, seed=seed)
        if device == _DEVICE_OF_HARNESS and not torch.cuda.is_available():
            device = "auto"
        folder, where = Path(model), resolve_device(device)
        metadata = load_model_metadata(folder, KIND)
        self._cutter = Cutter.for_blt(metadata, folder, Path(entropy_model) if entropy_model else None, where)
        by_source = self._cutter.rules.by_source
        if by_source and source not in by_source:
            raise ConfigError(f"There is no rule for the source {source!r}; give source, one of {', '.join(by_source)}.")
        self._blt = BLT.load(folder).to(where)
        self._source = source
        self._dtype = resolve_precision(precision, where)
        self._context_tokens = context_tokens or trained_context(metadata, folder)
        self._stride = config.stride_of(self._context_tokens)
        self._rows_at_once = ROWS_AT_ONCE if batch_size == "auto" else max(int(batch_size), 1)
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
            requests: instances with `args` of a text and settings: `until`, `max_gen_toks` (bytes), `do_sample`, `temperature`, `top_k`
                and `top_p`. Bytes that are no UTF-8 come as replacement characters.
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

    def _generate(self, prompts: list[bytes], stop: tuple[bytes, ...], max_new_bytes: int, sampling: SamplingConfig) -> list[bytes]:
        cutter = self._cutter
        return self._blt.generate(
            prompts,
            entropy_model=cutter.entropy_model,
            rule=cutter.rules.rule_for(self._source),
            max_new_bytes=max_new_bytes,
            sampling=sampling,
            seed=self._seed,
            stop=stop,
            entropy_precision=cutter.entropy_precision,
            reset_at_newline=cutter.reset_at_newline,
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


def _bytes(text: str) -> bytes:
    """UTF-8; halves of a surrogate pair, which a JSON file may hold, as three bytes each."""
    return text.encode("utf-8", "surrogatepass")


def _told(settings: Mapping[str, Any]) -> tuple[tuple[bytes, ...], int, SamplingConfig]:
    """Stop strings, length, and sampling that a task asks for."""
    known = ("until", "do_sample", *_LENGTHS, *_SAMPLED)
    for name in settings:
        if name not in known:
            raise ConfigError(f"A task sets {name!r} for generating, and a BLT knows {', '.join(known)}; leave it out.")
    until = settings.get("until") or []
    stop = tuple(_bytes(text) for text in ([until] if isinstance(until, str) else until))
    length = next((int(settings[name]) for name in _LENGTHS if settings.get(name) is not None), DEFAULT_NEW_BYTES)
    drawn = {name: settings[name] for name in _SAMPLED if settings.get(name) is not None}
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
