"""A corpus: documents from one or more sources, of one split, within limits of length, planned in fragments."""

import functools
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from bltdata.config import fingerprint, nearest, to_mapping
from bltdata.corpus.document import Document
from bltdata.corpus.files import LineSource, ParagraphSource, WholeFileSource
from bltdata.corpus.fragments import DEFAULT_FRAGMENT_BYTES, Fragment, Piece, group, take
from bltdata.corpus.hub import HubSource
from bltdata.corpus.jsonl import JsonlSource
from bltdata.corpus.parquet import ParquetSource
from bltdata.corpus.paths import printable
from bltdata.corpus.python_docs import PythonDocsSource
from bltdata.corpus.source import Source
from bltdata.corpus.spec import CorpusSpec, check_lengths
from bltdata.corpus.splits import SplitFractions
from bltdata.errors import ConfigError, CorpusError
from bltdata.remote import AnyPath

OTHER_SPLIT = "other split"
TOO_SHORT = "too short"
TOO_LONG = "too long"

Specs = str | CorpusSpec | Sequence[str | CorpusSpec]


def left_out_in_words(left_out: Mapping[str, int]) -> str:
    """How a sentence that counts documents ends: what else there is, by reason.

    >>> left_out_in_words({"too short": 1200, "other split": 3}), left_out_in_words({})
    (', 3 left out (other split), 1,200 left out (too short)', '')
    """
    return "".join(f", {count:,} left out ({reason})" for reason, count in sorted(left_out.items()))


def open_corpus(
    spec: Specs | Mapping[str, Specs] = "python-docs",
    split: str | None = None,
    *,
    min_bytes: int = 0,
    max_bytes: int | None = None,
    fractions: SplitFractions | None = None,
) -> "Corpus":
    """Open a corpus.

    Args:
        spec: where the documents are (see `CorpusSpec`), or several such places, read one after the other. Or a mapping from the
            names of splits to such specs, of which `split` chooses one: then nothing is split by content.
        split: `train`, `validation` or `test`, chosen by a hash of a document's content; None takes every document. It is applied
            after a spec's `limit`, which counts documents as they are read from their source.
        min_bytes: leave out shorter documents. As with `max_bytes`, a spec may ask for more.
        max_bytes: leave out longer documents. None are ever cut.
        fractions: what share each split gets, 0.9, 0.05 and 0.05 by default.

    Returns:
        A corpus, to be iterated over, or to be planned in fragments.

    Raises:
        ConfigError: the spec, split or limits make no sense.
        CorpusError: there is nothing at the place that the spec names.

    >>> corpus = open_corpus("python-docs#limit=3")
    >>> [document.doc_id for document in corpus]
    ['python-docs/topics/assert', 'python-docs/topics/assignment', ...]
    """
    split_by_spec = isinstance(spec, Mapping)
    if isinstance(spec, Mapping):
        if split is None or split not in spec:
            raise ConfigError(f"There is no corpus for the split {split!r}{nearest(str(split), spec)}.")
        spec = spec[split]
    specs = [spec] if isinstance(spec, (str, CorpusSpec)) else list(spec)
    return Corpus(
        [each if isinstance(each, CorpusSpec) else CorpusSpec.parse(each) for each in specs],
        split=split,
        split_by_spec=split_by_spec,
        min_bytes=min_bytes,
        max_bytes=max_bytes,
        fractions=fractions or SplitFractions(),
    )


class Corpus:
    """Documents from one or more sources.

    Iterate over it for all documents, in a fixed order; or call `fragments` for a plan and `read` for each fragment of it, in any
    order and any process: a corpus pickles. What is left out is counted by reason in `left_out`.
    """

    def __init__(
        self,
        specs: Sequence[CorpusSpec],
        *,
        split: str | None,
        split_by_spec: bool,
        min_bytes: int,
        max_bytes: int | None,
        fractions: SplitFractions,
    ) -> None:
        """See `open_corpus`."""
        check_lengths(min_bytes, max_bytes)
        self.specs = _by_label(specs)
        self.split = split
        self.split_by_spec = split_by_spec
        self.min_bytes = min_bytes
        self.max_bytes = max_bytes
        self.fractions = fractions
        if split is not None and not split_by_spec:
            fractions.check(split)
        self.left_out: Counter[str] = Counter()
        """What was left out by the last iteration, and by reading fragments since: reason -> how many."""
        self._sources = {label: _open_source(spec) for label, spec in self.specs.items()}

    def __iter__(self) -> Iterator[Document]:
        """All documents, fragment by fragment.

        Raises:
            CorpusError: there is none, or one can't be read.
        """
        self.left_out = Counter()
        num_documents = 0
        for fragment in self.fragments():
            for document in self.read(fragment):
                num_documents += 1
                yield document
        self.check_not_empty(num_documents, self.left_out)

    def fragments(self, target_bytes: int = DEFAULT_FRAGMENT_BYTES) -> list[Fragment]:
        """Plan the reading: each document is in exactly one fragment, in the order of iteration.

        Small files are put together, in order, up to `target_bytes`; big ones are cut: plain files after the line or paragraph that
        reaches it, Parquet files at a row group, or inside of a big one at a row. The same files give the same plan. What can't be
        cut without reading it from its start, a compressed file or a file of a Hugging Face dataset, stays whole, as does a document.

        Args:
            target_bytes: how many raw bytes a fragment has at most, but for the rest of its last document; at least 1.

        Raises:
            ConfigError: `target_bytes` is too small.
            CorpusError: a file can't be read.
        """
        if target_bytes < 1:
            raise ConfigError(f"target_bytes is {target_bytes}; it must be at least 1.")
        parts: list[tuple[str, Any]] = []
        for label, source in self._sources.items():
            limit = self.specs[label].limit
            pieces = source.pieces(target_bytes)
            parts += [(label, items) for items in group(pieces if limit is None else take(pieces, limit, source.count), target_bytes)]
        return [Fragment(index=index, source=label, items=items) for index, (label, items) in enumerate(parts)]

    def read(self, fragment: Fragment, left_out: Counter[str] | None = None) -> Iterator[Document]:
        """The documents of a fragment, in order.

        Args:
            fragment: from the plan of this corpus, or of the same corpus opened elsewhere.
            left_out: counts what is left out, by reason; without it, `self.left_out` does.

        Raises:
            CorpusError: a file can't be read or isn't the one that was planned, or an id occurs twice.
        """
        counts = self.left_out if left_out is None else left_out
        source, spec = self._source(fragment.source)
        # Ids from a column are only as unique as their owner made them; all others are by their making.
        seen: set[str] | None = set() if spec.id is not None else None
        for piece in fragment.items:
            for record in itertools.islice(source.read(piece, counts), piece.max_documents):
                if isinstance(record, str):
                    counts[record] += 1
                    continue
                local_id, data = record
                doc_id = f"{fragment.source}/{local_id}"
                if seen is not None:
                    if doc_id in seen:
                        raise CorpusError(f"The id {doc_id!r} occurs twice; name another column with '#id=', or none.")
                    seen.add(doc_id)
                reason = self._reason_to_leave_out(data, spec)
                if reason is None:
                    yield Document(doc_id, fragment.source, data)
                else:
                    counts[reason] += 1

    def check_not_empty(self, num_documents: int, left_out: Mapping[str, int]) -> None:
        """Refuse to call a corpus read that gave nothing; for those who read its fragments themselves.

        Raises:
            CorpusError: `num_documents` is 0; the message says what was left out, and why.
        """
        if num_documents == 0:
            reasons = ", ".join(f"{count:,} ({reason})" for reason, count in sorted(left_out.items()))
            advice = f"all there is was left out: {reasons}" if reasons else "there is nothing in its files"
            part = f" in the split {self.split!r}" if self.split is not None else ""
            names = ", ".join(printable(str(spec)) for spec in self.specs.values())
            raise CorpusError(f"The corpus {names} has no documents{part}; {advice}.")

    def check_readable(self, fragments: Iterable[Fragment]) -> None:
        """Read the first document of each source: what is wrong with all of them is better known before a plan is made.

        Raises:
            CorpusError: it can't be read, such as for want of the column.
        """
        firsts: dict[str, Piece] = {}
        for fragment in fragments:
            firsts.setdefault(fragment.source, fragment.items[0])
        for label, piece in firsts.items():
            next(self._sources[label].read(piece, Counter()), None)

    def check_apart(self, folder: AnyPath, names: Iterable[str]) -> None:
        """Refuse a folder in which the corpus, opened again, would take what is written for documents.

        Args:
            folder: where files are to be written; needn't exist.
            names: of the files, below the folder.

        Raises:
            CorpusError: it would read one of them.
        """
        for name in names:
            for label, source in self._sources.items():
                if source.would_read(folder / name):
                    raise CorpusError(
                        f"{folder} lies where the corpus {printable(str(self.specs[label]))} is read, "
                        f"which would take {name} for documents; choose a folder outside of it."
                    )

    def describe(self) -> dict[str, Any]:
        """What the documents depend on, as JSON can hold it: for manifests."""
        return {
            "specs": [printable(str(spec)) for spec in self.specs.values()],
            "split": self.split,
            "split_fractions": to_mapping(self.fractions) if self._splits_by_content else None,
            "min_bytes": self.min_bytes,
            "max_bytes": self.max_bytes,
            "sources": {label: source.describe() for label, source in self._sources.items()},
        }

    @functools.cached_property
    def fingerprint(self) -> str:
        """Names the corpus: the specs as they were written, split, limits, and the files' names and sizes, but not their times."""
        return fingerprint(self.describe())

    @property
    def files_fingerprint(self) -> str:
        """Names the files as they are on the disk, their times of change among it: while it is the same, so is every plan."""
        return fingerprint({label: source.state() for label, source in self._sources.items()})

    @property
    def _splits_by_content(self) -> bool:
        return self.split is not None and not self.split_by_spec

    def _source(self, label: str) -> tuple[Source, CorpusSpec]:
        if label not in self._sources:
            raise CorpusError(f"The corpus has no source {label!r}{nearest(label, self._sources)}.")
        return self._sources[label], self.specs[label]

    def _reason_to_leave_out(self, data: bytes, spec: CorpusSpec) -> str | None:
        # The split comes first, so that each split reports the lengths of its own documents only.
        if self._splits_by_content and self.fractions.split_of(data) != self.split:
            return OTHER_SPLIT
        if len(data) < max(self.min_bytes, spec.min_bytes):
            return TOO_SHORT
        if any(limit is not None and len(data) > limit for limit in (self.max_bytes, spec.max_bytes)):
            return TOO_LONG
        return None


def _open_source(spec: CorpusSpec) -> Source:
    if spec.kind == "files":
        by_unit: dict[str, type[WholeFileSource | LineSource]] = {"file": WholeFileSource, "line": LineSource, "paragraph": ParagraphSource}
        return by_unit[spec.document](spec)
    by_kind: dict[str, Any] = {"python-docs": PythonDocsSource, "jsonl": JsonlSource, "parquet": ParquetSource, "hf": HubSource}
    source: Source = by_kind[spec.kind](spec)
    return source


def _by_label(specs: Sequence[CorpusSpec]) -> dict[str, CorpusSpec]:
    if not specs:
        raise ConfigError("No corpus was given; name at least one, e.g. python-docs.")
    labels: dict[str, CorpusSpec] = {}
    for spec in specs:
        if spec.label in labels:
            raise ConfigError(
                f"The corpora {str(labels[spec.label])!r} and {str(spec)!r} are both called {spec.label!r}; "
                "give one of them another name with '#source=NAME'."
            )
        labels[spec.label] = spec
    return labels
