"""`bltdata score`: entropies alone, as JSON lines or as a Parquet file."""

import contextlib
import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bltdata.cli.common import ANY_PATH, command
from bltdata.cli.inputs import STDIN
from bltdata.cli.outputs import check_file
from bltdata.cli.progress import Advance, format_amount, progress, say
from bltdata.cli.settings import config_option, given_options, options_from, read_sections, section_name, settings
from bltdata.cli.training_options import device_option
from bltdata.config import number_of, to_mapping
from bltdata.corpus.config import ALL, CorpusConfig
from bltdata.errors import ConfigError

if TYPE_CHECKING:
    from bltdata.corpus import Corpus, Document
    from bltdata.entropy import Score

DECIMALS = 6
"""Of a number in JSON: as fine as float32 arithmetic is sure of."""

ENTROPIES_A_WRITE = 1 << 16
"""So many are formatted at once: their text takes more than ten times the room of the bytes that they are about."""

Take = Callable[["Document", "Score"], None]

SECTIONS = ("corpus",)
"""Of a file that is given with `--config`."""


@command(
    example="""
    bltdata score --text 'Once upon a time' --entropy-model runs/entropy-model
    zcat story.txt.gz | bltdata score --file - --entropy-model runs/entropy-model
    bltdata score --corpus 'pages/*.jsonl.gz#text=body' --entropy-model runs/entropy-model --out scores.parquet
    """
)
@click.option("--text", metavar="TEXT", help="Score this text.")
@click.option(
    "--file", type=ANY_PATH, metavar="FILE", help="Score this file as one document, whatever its bytes are; - is the standard input."
)
@options_from(CorpusConfig, exclude=["validation_corpus"], show_defaults=False)
@click.option("--split", help="Documents of the corpus to take: train, validation, test, or all.  [default: all]")
@click.option("--entropy-model", "model_folder", type=ANY_PATH, required=True, metavar="FOLDER", help="The trained entropy model.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Type of the model's matrix products.",
)
@click.option("--reset-scoring-at-newline", "reset_at_newline", is_flag=True, help="Score each line as if nothing stood before it.")
@device_option
@click.option("--out", type=ANY_PATH, metavar="FILE.parquet", help="Write a Parquet file instead, whole or not at all.")
@config_option(*SECTIONS)
@click.pass_context
def score(
    ctx: click.Context,
    text: str | None,
    file: Path | None,
    split: str | None,
    model_folder: Path,
    precision: str,
    reset_at_newline: bool,
    device: str,
    out: Path | None,
    config_file: Path | None,
    **_: Any,
) -> None:
    """Score a text, a file or a corpus with an entropy model, and print the entropies.

    There is a line of JSON for each document, as soon as it is known: its name, source and number of bytes n, its negative
    log-likelihood in nats and in bits per byte, and n + 1 entropies in nats. Entry i is about byte i given what stands before it, entry
    n about the end. A Parquet file has the same columns.
    """
    table = read_sections(config_file, SECTIONS)["corpus"]
    corpora = settings(ctx, CorpusConfig, table, where=section_name(config_file, "corpus"))
    given = {*table, *given_options(ctx, {*(field.name for field in dataclasses.fields(CorpusConfig)), "split"})}
    _check_sources(text, file, given)
    _check_out(out)

    from bltdata.entropy import EntropyModel
    from bltdata.entropy.scores import check_room, scored
    from bltdata.nn import prepare_cpu, resolve_device, resolve_precision

    where = resolve_device(device)
    corpus = corpora.open(split or ALL) if "corpus" in given else None
    documents = _documents(text, file) if corpus is None else corpus
    if out is not None:
        # As they are read: scoring one takes hours for nothing.
        documents = map(check_room, documents)
    prepare_cpu()
    model = EntropyModel.load(model_folder).to(where)
    how = {
        "entropy_model": {"fingerprint": model.fingerprint, "config": to_mapping(model.config)},
        "precision": precision,
        "device": where.type,
        "reset_at_newline": reset_at_newline,
        "corpus": corpus.describe() if corpus is not None else None,
    }
    totals = _Totals()
    with _writer(out, how) as take, _bar(out) as advance:
        pairs = scored(model, documents, resolve_precision(precision, where), reset_at_newline=reset_at_newline)  # type: ignore[arg-type]
        for document, document_score in pairs:
            take(document, document_score)
            totals.add(document, document_score)
            advance(len(document.data))
    say(totals.in_words(corpus, out))


class _Totals:
    """What the last line says of all documents."""

    def __init__(self) -> None:
        self.num_documents = 0
        self.num_bytes = 0
        self.nll_nats = 0.0

    def add(self, document: "Document", score: "Score") -> None:
        self.num_documents += 1
        self.num_bytes += len(document.data)
        self.nll_nats += score.nll_nats

    def in_words(self, corpus: "Corpus | None", out: Path | None) -> str:
        from bltdata.corpus.corpus import left_out_in_words

        rate = f", {self.nll_nats / math.log(2) / self.num_bytes:.3f} bits per byte" if self.num_bytes else ""
        left_out = "" if corpus is None else left_out_in_words(corpus.left_out)
        place = f" in {out}" if out is not None else ""
        return f"{number_of(self.num_documents, 'document')}, {format_amount(self.num_bytes, 'bytes')}{rate}{place}{left_out}."


def _check_sources(text: str | None, file: Path | None, given: set[str]) -> None:
    sources = [
        name for name, found in (("--text", text is not None), ("--file", file is not None), ("--corpus", "corpus" in given)) if found
    ]
    if len(sources) != 1:
        raise ConfigError(f"{' and '.join(sources) or 'None of --text, --file and --corpus'} given; give one of the three.")
    if "corpus" not in given and given:
        raise ConfigError(f"--{min(given).replace('_', '-')} is given without --corpus; it chooses among the documents of one.")


def _check_out(out: Path | None) -> None:
    if out is None:
        return
    if out.suffix != ".parquet":
        raise ConfigError(f"The name of {out} doesn't end in .parquet; end it so, or leave --out away to get JSON lines.")
    check_file(out, "the scores")


def _documents(text: str | None, file: Path | None) -> Iterable["Document"]:
    from bltdata.corpus import Document

    if text is not None:
        return [Document("text", "text", text.encode(errors="surrogateescape"))]
    assert file is not None, "there is something to score"
    if str(file) == STDIN:
        return [Document("stdin", "stdin", sys.stdin.buffer.read())]
    return [Document(str(file), "file", file.read_bytes())]


@contextlib.contextmanager
def _writer(out: Path | None, how: dict[str, Any]) -> Iterator[Take]:
    if out is None:
        yield _print_line
        return
    from bltdata.entropy.scores import score_file

    with score_file(out, how) as file:
        yield file.add


def _bar(out: Path | None) -> contextlib.AbstractContextManager[Advance]:
    # Lines and a bar on one terminal would tear each other apart; the lines are progress enough.
    if out is None and sys.stdout.isatty():
        return contextlib.nullcontext(_no_bar)
    return progress(None, "Scoring", "bytes")


def _no_bar(amount: float = 1, note: str | None = None) -> None:
    """Stand in for a bar."""


def _print_line(document: "Document", score: "Score") -> None:
    """Print a document's line in pieces, and at once: whoever reads it needn't wait for the next document."""
    from bltdata.entropy.scores import describe_score

    described = {
        name: round(value, DECIMALS) if isinstance(value, float) else value for name, value in describe_score(document, score).items()
    }
    sys.stdout.write(f'{json.dumps(described, allow_nan=False)[:-1]}, "entropy_nats": [')
    entropies = score.entropy_nats
    for begin in range(0, len(entropies), ENTROPIES_A_WRITE):
        numbers = entropies[begin : begin + ENTROPIES_A_WRITE].astype("float64").round(DECIMALS).tolist()
        sys.stdout.write((", " if begin else "") + json.dumps(numbers, allow_nan=False)[1:-1])
    sys.stdout.write("]}\n")
    sys.stdout.flush()
