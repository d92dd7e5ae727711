"""`bltmodel generate`."""

import sys
from pathlib import Path
from typing import Any

import click

from bltdata.cli.common import ANY_PATH, command, json_option, print_json
from bltdata.cli.settings import options_from, settings
from bltdata.errors import CheckpointError, ConfigError
from bltmodel.sampling_config import SamplingConfig


@command(
    example="""
    bltmodel generate --model runs/blt --entropy-model runs/entropy-model --prompt 'def main(' --max-new-bytes 200
    bltmodel generate --model runs/blt --entropy-model runs/entropy-model --prompt-file start.txt --temperature 0
    """
)
@click.option("--model", type=ANY_PATH, required=True, metavar="FOLDER", help="A trained BLT.")
@click.option("--entropy-model", "entropy_folder", type=ANY_PATH, required=True, metavar="FOLDER", help="The entropy model of its shards.")
@click.option("--prompt", default=None, help="Text to continue.  [default: the beginning of a document]")
@click.option("--prompt-file", type=ANY_PATH, metavar="FILE", help="File to continue, any bytes.")
@click.option("--source", help="Cut the text as documents of this source are; needed where sources have rules of their own.")
@click.option("--max-new-bytes", type=click.IntRange(min=0), default=200, show_default=True, help="Bytes to add at most.")
@options_from(SamplingConfig)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Fixes what is chosen.")
@json_option
@click.pass_context
def generate(
    ctx: click.Context,
    model: Path,
    entropy_folder: Path,
    prompt: str | None,
    prompt_file: Path | None,
    source: str | None,
    max_new_bytes: int,
    seed: int,
    as_json: bool,
    **_: Any,
) -> None:
    """Continue a prompt, byte by byte.

    The prompt and its continuation are written to stdout as they are, which may be bytes that are no text.
    """
    if prompt is not None and prompt_file is not None:
        raise ConfigError("Both --prompt and --prompt-file are given; leave one of them out.")
    sampling = settings(ctx, SamplingConfig, {})
    start = prompt_file.read_bytes() if prompt_file else (prompt or "").encode(errors="surrogateescape")

    from bltdata.entropy import EntropyModel
    from bltdata.patching.sources import SourceRules
    from bltdata.training.checkpoint import load_model_metadata
    from bltmodel.model import BLT, KIND
    from bltmodel.training import trained_on

    data = trained_on(load_model_metadata(model, KIND), model)
    rules = SourceRules.from_mapping(data, f"What {model} says of its data")
    if rules.by_source and source not in rules.by_source:
        wrong = "Nothing says" if source is None else f"There is no source {source!r} to say"
        raise ConfigError(
            f"{wrong} with which rule to cut the text: the shards that {model} was trained on have one for each source; "
            f"give --source, one of {', '.join(rules.by_source)}."
        )
    rule = rules.rule_for(source or "")
    entropy_model, named = EntropyModel.load(entropy_folder), data["entropy_model"]["fingerprint"]
    if named is None and rule.needs_entropies:
        raise CheckpointError(
            f"Nobody knows which entropy model made the shards that {model} was trained on, because they were converted from Arrow files, "
            "so a text can't be cut as they were; train on shards of build-shards to generate."
        )
    if named is not None and entropy_model.fingerprint != named:
        raise CheckpointError(f"{entropy_folder} isn't the entropy model of the shards that {model} was trained on; give that one.")
    (new,) = BLT.load(model).generate(
        [start],
        entropy_model=entropy_model,
        rule=rule,
        max_new_bytes=max_new_bytes,
        sampling=sampling,
        seed=seed,
        entropy_precision=data["entropy_precision"],
        reset_at_newline=data["entropy_model"].get("context", {}).get("reset_at_newline", False),
    )
    if as_json:
        print_json({"prompt_hex": start.hex(), "new_hex": new.hex(), "text": (start + new).decode(errors="replace")})
    else:
        sys.stdout.buffer.write(start + new + b"\n")
