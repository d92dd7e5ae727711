"""`bltmodel generate`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bltdata.cli.common import ANY_PATH, command, json_option, print_json, wants_colour
from bltdata.cli.progress import say
from bltdata.cli.settings import options_from, settings
from bltdata.cli.training_options import device_option
from bltdata.errors import ConfigError
from bltmodel.sampling_config import SamplingConfig

if TYPE_CHECKING:
    from bltmodel.generation import GenerationSettings
    from bltmodel.model import BLT


@command(
    example="""
    bltmodel generate --model runs/blt --entropy-model runs/entropy-model --prompt 'def main(' --max-new-bytes 200
    bltmodel generate --model runs/blt --entropy-model runs/entropy-model --prompt-file start.txt --temperature 0 --stop $'\\n\\n'
    bltmodel generate --model runs/blt --entropy-model runs/entropy-model --prompt Once --prompt Twice --num-beams 4 --json
    bltmodel generate --model runs/blt --entropy-model runs/entropy-model --interactive
    """
)
@click.option("--model", type=ANY_PATH, required=True, metavar="FOLDER", help="A trained BLT.")
@click.option(
    "--entropy-model",
    "entropy_folder",
    type=ANY_PATH,
    metavar="FOLDER",
    help="The entropy model of its shards; needed where their rule, or the temperature, reads entropies.",
)
@click.option("--prompt", "prompts", multiple=True, help="Text to continue; several at once may be given.  [default: nothing]")
@click.option("--prompt-file", type=ANY_PATH, metavar="FILE", help="File to continue, any bytes.")
@click.option("--source", help="Cut the text as documents of this source are; needed where sources have rules of their own.")
@click.option("--max-new-bytes", type=click.IntRange(min=0), default=200, show_default=True, help="Bytes to add at most.")
@click.option("--stop", "stop_texts", multiple=True, metavar="TEXT", help="End where this would come; may be given several times.")
@options_from(SamplingConfig)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Fixes what is chosen.")
@click.option("--interactive", is_flag=True, help="Read lines from stdin and go on after each; the text so far is the context.")
@click.option(
    "--cache/--no-cache", default=True, show_default=True, help="Remember what was computed; without, it takes longer and less memory."
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Type of the BLT's matrix products; auto is bfloat16 where the hardware multiplies it.",
)
@device_option
@json_option
@click.pass_context
def generate(
    ctx: click.Context,
    model: Path,
    entropy_folder: Path | None,
    prompts: tuple[str, ...],
    prompt_file: Path | None,
    source: str | None,
    max_new_bytes: int,
    stop_texts: tuple[str, ...],
    seed: int,
    interactive: bool,
    cache: bool,
    precision: Any,
    device: str,
    as_json: bool,
    **_: Any,
) -> None:
    """Continue a prompt, byte by byte.

    The prompt and its continuation are written to stdout as they are, which may be bytes that are no text, and as soon as they are
    certain; with several prompts or beams, in the end. On a terminal an interactive session shows each byte's entropy as a colour, and
    underlines where patches start.
    """
    sampling = settings(ctx, SamplingConfig, {})
    starts = _starts(prompts, prompt_file)
    if interactive:
        _check_session(starts, sampling, as_json=as_json)
    from bltdata.nn import prepare_cpu, resolve_device, resolve_precision
    from bltdata.training.checkpoint import load_model_metadata
    from bltmodel.cutting import LearnedPatches
    from bltmodel.generation import GenerationSettings
    from bltmodel.model import BLT, KIND

    prepare_cpu()
    place = resolve_device(device)
    patches = LearnedPatches.of(load_model_metadata(model, KIND), model)
    how = GenerationSettings(
        rule=patches.rule_for(source),
        max_new_bytes=max_new_bytes,
        entropy_model=patches.entropy_model(entropy_folder, place),
        sampling=sampling,
        seed=seed,
        stop=[text.encode(errors="surrogateescape") for text in stop_texts],
        precision=resolve_precision(precision, place),
        use_cache=cache,
        entropy_precision=patches.entropy_precision,
        reset_at_newline=patches.context.reset_at_newline,
        scoring_dtype=patches.scoring_dtype,
    )
    if source and source not in patches.rules.by_source and patches.rules.by_source:
        say(f"No rule is for the source {source!r} alone, so the text is cut by that of all sources without one.")
    blt = BLT.load(model).to(place)
    if interactive:
        from bltmodel.cli.session import converse

        converse(blt, how, starts[0], seed, coloured=wants_colour())
    elif as_json:
        _print_json(blt, starts, how)
    else:
        _print(blt, starts, how)


def _starts(prompts: tuple[str, ...], prompt_file: Path | None) -> list[bytes]:
    if prompts and prompt_file is not None:
        raise ConfigError("Both --prompt and --prompt-file are given; leave one of them out.")
    if prompt_file is not None:
        return [prompt_file.read_bytes()]
    return [prompt.encode(errors="surrogateescape") for prompt in prompts or ("",)]


def _check_session(starts: list[bytes], sampling: SamplingConfig, *, as_json: bool) -> None:
    if as_json:
        raise ConfigError("Both --interactive and --json are given; leave one of them out.")
    if len(starts) > 1:
        raise ConfigError(f"There are {len(starts)} prompts, and an interactive session has one text; give one --prompt or none.")
    if sampling.num_beams > 1:
        raise ConfigError("Both --interactive and --num-beams are given, but a beam search shows nothing before its end; leave one out.")


def _print(blt: "BLT", starts: list[bytes], how: "GenerationSettings") -> None:
    from bltmodel.generation import generate as continuations

    if len(starts) == 1 and how.sampling.num_beams == 1:
        sys.stdout.buffer.write(starts[0])
        for piece in blt.stream(starts[0], how):
            sys.stdout.buffer.write(piece)
            # At once: somebody may be looking.
            sys.stdout.buffer.flush()
    else:
        texts = [start + new for start, new in zip(starts, continuations(blt, starts, how), strict=True)]
        sys.stdout.buffer.write(b"\n\n".join(texts))
    sys.stdout.buffer.write(b"\n")


def _print_json(blt: "BLT", starts: list[bytes], how: "GenerationSettings") -> None:
    from bltmodel.generation import generate as continuations

    objects = [
        {"prompt_hex": start.hex(), "new_hex": new.hex(), "text": (start + new).decode(errors="replace")}
        for start, new in zip(starts, continuations(blt, starts, how), strict=True)
    ]
    print_json(objects[0] if len(objects) == 1 else {"continuations": objects})
