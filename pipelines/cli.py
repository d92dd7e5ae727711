"""The command `python -m pipelines`."""

from pathlib import Path

import click

from bltdata.cli.common import ANY_PATH, command, print_json
from bltdata.cli.training_options import device_option
from pipelines.recipe import read_recipe


@command(
    "pipelines",
    example="""
    python -m pipelines quickstart
    python -m pipelines my-recipe.toml --out runs/mine
    """,
    resumes=True,
)
@click.argument("name")
@click.option("--out", type=ANY_PATH, metavar="FOLDER", help="Where everything goes.  [default: runs/NAME]")
@click.option("--workers", type=click.IntRange(min=1), help="Processes that build shards.  [default: one a core]")
@device_option
def main(name: str, out: Path | None, workers: int | None, device: str) -> None:
    """Run a recipe: corpus, entropy model, shards, statistics, BLT, evaluation, a sample.

    NAME is quickstart, openwebtext, or the path of a TOML file like theirs. A stage whose inputs haven't changed is skipped, and one
    that was stopped goes on. The last line on stdout is one JSON object with what the run came to.
    """
    recipe = read_recipe(name)

    from pipelines.run import Pipeline

    print_json(Pipeline(recipe, out or Path("runs") / Path(name).stem, device, workers).run())
