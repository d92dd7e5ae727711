"""What the commands that train have in common."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from bltdata.cli.common import EXIT_INTERRUPTED
from bltdata.cli.progress import format_amount, progress, say
from bltdata.cli.settings import shown
from bltdata.training.config import TrainingConfig
from bltdata.training.progress import Reporter

if TYPE_CHECKING:
    from bltdata.training.world import World


def resume_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--resume/--no-resume`, which arrives as `resume: bool`."""
    return click.option(
        "--resume/--no-resume",
        default=True,
        show_default=True,
        help="Go on from the last state in --out where there is one. --no-resume starts anew, and deletes the models, states and metrics "
        "of the run there.",
    )(function)


def device_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--device`, which arrives as `device: str`."""
    return click.option("--device", default="auto", show_default=True, help="Where to compute: auto, cpu, cuda, cuda:1 ...")(function)


def defaults_by_preset(training: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Setting of `TrainingConfig` -> its default, as help shows it, where that depends on the preset.

    Args:
        training: preset -> setting -> default, of presets that have defaults of their own.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(TrainingConfig)}
    names = dict.fromkeys(name for settings_of in training.values() for name in settings_of)
    return {
        name: ", ".join(
            [f"{shown(settings_of[name])} for {preset}" for preset, settings_of in training.items() if name in settings_of]
            + [f"{shown(defaults[name])} for others"]
        )
        for name in names
    }


@contextlib.contextmanager
def training_world() -> Iterator["World"]:
    """The processes that `torchrun` started, this one among them; they end with one voice.

    What another one says, this one needn't repeat: it ends without a word.
    """
    from bltdata.training.world import PeerFailedError, World

    world = World()
    try:
        if os.environ.get("WORLD_SIZE", "1") == "1":
            yield world
            return
        from bltdata.training.processes import joined

        with joined() as world:
            yield world
    except PeerFailedError as error:
        raise click.exceptions.Exit(1) from error
    except KeyboardInterrupt:
        if world.is_first:
            raise
        raise click.exceptions.Exit(EXIT_INTERRUPTED) from None


@contextlib.contextmanager
def training_reporter(steps: int, world: "World | None" = None) -> Iterator[Reporter]:
    """Tells the user at the terminal how a training run of `steps` steps goes; the first process of `world` does."""
    if world and not world.is_first:
        yield Reporter()
        return
    with progress(steps, "Training", "steps") as advance:
        yield Reporter(
            said=say,
            evaluated=lambda metrics: say(metrics_line(metrics)),
            stepped=lambda count: advance(count),
        )


def metrics_line(metrics: dict[str, Any]) -> str:
    """The metrics of an evaluation as one line."""
    return (
        f"step {metrics['step']:>6}  loss {metrics['loss']:.4f}  bits/byte {metrics['bits_per_byte']:.4f}  "
        f"accuracy {metrics['accuracy']:.3f}  perplexity {metrics['perplexity']:.3f}  "
        f"confidence {metrics['confidence_mean']:.3f} ({metrics['confidence_min']:.3f} to {metrics['confidence_max']:.3f})  "
        f"lr {metrics['learning_rate']:.2e}  {format_amount(metrics['bytes_per_second'], 'bytes')}/s  "
        f"memory {format_amount(metrics['memory_bytes'], 'bytes')}  epoch {metrics['epoch']:.2f}  {metrics['seconds']:.0f} s"
    )
