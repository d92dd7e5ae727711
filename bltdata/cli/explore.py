"""`bltdata explore`: a page in which one moves the threshold and watches the patches."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bltdata.cli.common import ANY_PATH, DATASET_PATH, command, json_option, print_json
from bltdata.cli.inputs import read_input
from bltdata.cli.one_document import Beginning, entropies_as_built
from bltdata.cli.outputs import check_file
from bltdata.config import number_of
from bltdata.errors import ConfigError, PatchingError
from bltdata.remote import AnyPath

if TYPE_CHECKING:
    import numpy as np

    from bltdata.explore import ExplorerDocument
    from bltdata.patching import PatchRule

DEFAULT_BYTES = 200_000
MOST_BYTES = 2_000_000
"""A browser can't scroll through the rows of much more on a telephone."""
DEFAULT_DOCUMENTS = 20
FIRST_MEAN_LENGTH = 4.5
"""Where the page begins with a text, for which there is no rule yet: the patches that the paper has."""


@command(
    example="""
    bltdata explore --shards runs/train --out explore.html
    bltdata explore --shards runs/train --document python-docs/topics/assert --out assert.html
    bltdata explore --file story.txt --entropy-model runs/entropy-model --out story.html
    """
)
@click.option("--shards", type=DATASET_PATH, metavar="FOLDER", help="Explore documents of this dataset, with their stored entropies.")
@click.option("--document", metavar="DOC_ID", help="Only this document of the dataset.  [default: a sample, always the same]")
@click.option(
    "--documents",
    "num_documents",
    type=click.IntRange(min=1),
    help=f"Documents of the sample.  [default: {DEFAULT_DOCUMENTS}]",
)
@click.option("--text", metavar="TEXT", help="Explore this text.")
@click.option("--file", "file", type=ANY_PATH, metavar="FILE", help="Explore this file, whatever its bytes are; - is the standard input.")
@click.option("--entropy-model", "model_folder", type=ANY_PATH, metavar="FOLDER", help="The model that scores the text or the file.")
@click.option("--rule-from", type=DATASET_PATH, metavar="FOLDER", help="Begin with the patch rule of this dataset, for a text or a file.")
@click.option(
    "--max-bytes",
    type=click.IntRange(1, MOST_BYTES),
    default=DEFAULT_BYTES,
    show_default=True,
    help="Put so many bytes into the page at most; of long documents the beginnings.",
)
@click.option("--out", type=ANY_PATH, required=True, metavar="FILE.html", help="Write the page there.")
@json_option
def explore(
    shards: AnyPath | None,
    document: str | None,
    num_documents: int | None,
    text: str | None,
    file: Path | None,
    model_folder: Path | None,
    rule_from: AnyPath | None,
    max_bytes: int,
    out: Path,
    as_json: bool,
) -> None:
    """Write a page in which one moves the threshold and watches the patches.

    The page is one HTML file that needs no network. It begins with the dataset's rule, or for a text with the threshold that makes
    patches of 4.5 bytes. There one changes the rule, its thresholds and the lengths it allows, and sees the patches, the entropies
    under the text, the mean length and how it depends on the threshold. What the page computes is what `PatchRule` computes.
    """
    _check_sources(shards, document, num_documents, text, file, model_folder, rule_from)
    check_file(out, "the page")

    from bltdata.atomic import write_bytes
    from bltdata.explore import explorer_page
    from bltdata.explore.page import page_rule

    if shards is not None:
        documents, title = _from_shards(shards, document, max_bytes, num_documents or DEFAULT_DOCUMENTS), str(shards)
    else:
        title, begin = read_input(text, file, max_bytes)
        assert model_folder is not None, "checked with the sources"
        documents = [_scored(begin, title, model_folder, rule_from)]
    page = explorer_page(documents, page_rule(documents), title=f"Patches of {title}").encode()
    write_bytes(out, page)
    _report(documents, out, len(page), as_json)


def _check_sources(
    shards: AnyPath | None,
    document: str | None,
    num_documents: int | None,
    text: str | None,
    file: Path | None,
    model_folder: Path | None,
    rule_from: AnyPath | None,
) -> None:
    given = [name for name, value in (("--shards", shards), ("--text", text), ("--file", file)) if value is not None]
    if len(given) != 1:
        raise ConfigError(f"{' and '.join(given) or 'None of --shards, --text and --file'} given; give one of the three.")
    if shards is None:
        if model_folder is None:
            raise ConfigError(f"{given[0]} needs --entropy-model, the folder of a trained entropy model, to be scored.")
        for name, value in (("--document", document), ("--documents", num_documents)):
            if value is not None:
                raise ConfigError(f"{name} is given without --shards; say which dataset is meant.")
        return
    for name, path in (("--entropy-model", model_folder), ("--rule-from", rule_from)):
        if path is not None:
            raise ConfigError(f"Both --shards and {name} are given; leave {name} out, a dataset holds its entropies and its rule.")
    if document is not None and num_documents is not None:
        raise ConfigError("Both --document and --documents are given; leave one of them out.")


def _from_shards(folder: AnyPath, document: str | None, max_bytes: int, num_documents: int) -> "list[ExplorerDocument]":
    from bltdata.explore import sample_documents, stored_document
    from bltdata.shards import open_shards

    dataset = open_shards(folder)
    if document is not None:
        return [stored_document(dataset, document, max_bytes=max_bytes)]
    return sample_documents(dataset, max_bytes=max_bytes, num_documents=num_documents)


def _scored(begin: Beginning, name: str, model_folder: Path, rule_from: AnyPath | None) -> "ExplorerDocument":
    from bltdata.config import from_mapping
    from bltdata.explore import ExplorerDocument
    from bltdata.patching import PatchRule, patch
    from bltdata.shards import Manifest

    manifest = Manifest.read(rule_from) if rule_from is not None else None
    rule = from_mapping(PatchRule, manifest.patch_rule, f"The patch rule of {rule_from}") if manifest is not None else None
    if rule is not None and rule.scheme == "bpe":
        raise ConfigError(f"The patch rule of {rule_from} is 'bpe', which a page can't compute; leave --rule-from out.")
    entropy_nats = entropies_as_built(begin.data, model_folder, manifest)
    rule = rule or _first_rule(begin.data, entropy_nats)
    return ExplorerDocument(name=name, patches=patch(begin.data, entropy_nats, rule, document=name), num_left_out=begin.num_left_out)


def _first_rule(data: bytes, entropy_nats: "np.ndarray") -> "PatchRule":
    from bltdata.patching import PatchRule, calibrate
    from bltdata.vocab import MAX_ENTROPY_NATS

    try:
        return calibrate([(data, entropy_nats)], PatchRule(), FIRST_MEAN_LENGTH).rule
    except PatchingError:
        # A text of a few bytes, or of one kind, has no such threshold; the slider begins somewhere then.
        return PatchRule(threshold=min(float(entropy_nats.mean()), MAX_ENTROPY_NATS))


def _report(documents: "list[ExplorerDocument]", out: Path, size_bytes: int, as_json: bool) -> None:
    from bltdata.patching.display import printable_line

    num_bytes = sum(len(document.patches.data) for document in documents)
    num_left_out = sum(document.num_left_out for document in documents)
    if as_json:
        counts = {"documents": len(documents), "num_bytes": num_bytes, "num_bytes_left_out": num_left_out}
        print_json({"out": str(out), "size_bytes": size_bytes, **counts})
        return
    rest = f"; {num_left_out:,} more bytes of them are left out, --max-bytes takes in more" if num_left_out else ""
    told = f"{number_of(len(documents), 'document')}, {number_of(num_bytes, 'byte')}"
    click.echo(printable_line(f"Wrote {out}: {told}{rest}. Open it in a browser."))
