"""The text that names a corpus, e.g. `jsonl:pages/*.jsonl.zst#text=body&limit=1000`, and what it means.

    KIND:LOCATION#key=value&key=value

A path or pattern alone is enough where its ending says what it holds: `pages.jsonl.gz`, `rows.parquet`, `notes/`. So is an address,
such as `s3://bucket/pages/*.jsonl.gz`; whatever fsspec reads can be meant.
"""

import dataclasses
import os
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any, Literal, get_args

from bltdata.address import check_url, is_url
from bltdata.config import nearest
from bltdata.corpus.paths import fixed_part, printable
from bltdata.errors import ConfigError

Kind = Literal["python-docs", "files", "jsonl", "parquet", "hf"]
DocumentUnit = Literal["file", "line", "paragraph"]
InvalidRecords = Literal["stop", "leave-out"]

KINDS: tuple[str, ...] = get_args(Kind)
_CHOICES = {"document": get_args(DocumentUnit), "invalid": get_args(InvalidRecords)}

_COMMON_OPTIONS = ("source", "limit", "min_bytes", "max_bytes")
_RECORD_OPTIONS = ("text", "id", "invalid")
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "python-docs": _COMMON_OPTIONS,
    "files": ("document", *_COMMON_OPTIONS),
    "jsonl": (*_RECORD_OPTIONS, *_COMMON_OPTIONS),
    "parquet": (*_RECORD_OPTIONS, *_COMMON_OPTIONS),
    "hf": (*_RECORD_OPTIONS, *_COMMON_OPTIONS),
}
"""Kind -> the options it takes after `#`."""

DEFAULT_HUB_SPLIT = "train"

_BY_ENDING = (
    (re.compile(r"\.(jsonl|ndjson)(\.(gz|zst|bz2|xz))?$", re.IGNORECASE), "jsonl"),
    (re.compile(r"\.parquet$", re.IGNORECASE), "parquet"),
)
_COMPRESSED_ENDING = re.compile(r"\.(gz|zst|bz2|xz)$", re.IGNORECASE)
_LAST_ENDING = re.compile(r"(?<=.)\.\w+$")
# Two letters at least: a single one is a drive, not a kind.
_KIND_PREFIX = re.compile(r"^([A-Za-z][\w-]+):")
# A dataset of the hub is NAME or OWNER/NAME; a folder that merely holds an `@` has no revision.
_HUB_REVISION = re.compile(r"^(\w[\w.-]*(?:/\w[\w.-]*)?)@(.+)$")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CorpusSpec:
    """One source of documents; `CorpusSpec.parse` makes it from a text, `str` gives the text back."""

    kind: Kind
    location: str = ""
    """A file, a folder, a pattern, an address of one of these, or the name of a Hugging Face dataset; nothing for `python-docs`."""
    document: DocumentUnit = "file"
    """What one document is, for `files`."""
    text: str | None = None
    """The column that holds the document; without it `text`, else `content`."""
    id: str | None = None
    """The column that names the document; without it the file and the number of the line or row."""
    invalid: InvalidRecords = "stop"
    """What to do about a line that is no JSON object, or a record without a text or an id: `stop` with an error that says where it is, or
    `leave-out` such records and count them."""
    source: str | None = None
    """The label; without it the name of the file, folder or dataset."""
    limit: int | None = None
    """Take the first so many documents of the source only, counted before any is left out by split or length, or as invalid."""
    min_bytes: int = 0
    """Leave out, and count, documents shorter than this."""
    max_bytes: int | None = None
    """Leave out, and count, documents longer than this."""
    config: str | None = None
    """The configuration of a Hugging Face dataset."""
    hub_split: str = DEFAULT_HUB_SPLIT
    """The split of a Hugging Face dataset, as its publisher made it."""
    revision: str | None = None
    """The commit, branch or tag of a Hugging Face dataset."""
    is_guess: bool = dataclasses.field(default=False, compare=False)
    """Whether nothing but the want of an ending says that these are `files`; what is there may say otherwise."""

    def __post_init__(self) -> None:
        """Check what no single field shows."""
        # First of all: other errors repeat what was given.
        check_url(self.location)
        if self.kind != "python-docs" and not self.location:
            raise ConfigError(f"The corpus {str(self)!r} lacks a location; write e.g. {self.kind}:LOCATION.")
        if self.kind == "python-docs" and self.location:
            raise ConfigError(f"The corpus python-docs takes no location, but {self.location!r} was given; leave it out.")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit is {self.limit}; it must be at least 1.")
        check_lengths(self.min_bytes, self.max_bytes)
        if self.source is not None and (not self.source or "/" in self.source or not self.source.isprintable()):
            # The label and the rest of a document's id are joined by a slash: one in the label would make ids ambiguous.
            raise ConfigError(f"source is {self.source!r}; it must be a printable name without '/'.")

    @classmethod
    def parse(cls, text: str) -> "CorpusSpec":
        """Read a corpus spec.

        Args:
            text: `KIND:LOCATION#key=value&key=value`, or a path or pattern alone. The options follow the last `#`; a location
                that holds one is ended by another. Values are percent-decoded, so `text=a%26b` is the column `a&b`.

        Raises:
            ConfigError: an unknown kind or option (with the nearest), an option that the kind doesn't take, or a bad value.

        >>> CorpusSpec.parse("notes/*.txt.gz#document=line").kind
        'files'
        >>> str(CorpusSpec.parse("hf:Salesforce/wikitext:wikitext-103-raw-v1:validation#limit=100"))
        'hf:Salesforce/wikitext:wikitext-103-raw-v1:validation#limit=100'
        """
        check_url(re.sub(r"^(files|jsonl|parquet):(?=\w+:)", "", text))
        address, _, options_text = text.rpartition("#") if "#" in text else (text, "", "")
        said, location = _split_kind(address)
        kind = said or "files"
        values: dict[str, Any] = {"kind": kind, "location": location, "is_guess": said is None}
        if kind == "hf":
            values |= _split_hub_name(location)
        values |= _parse_options(kind, options_text, text)
        return cls(**values)

    def __str__(self) -> str:
        """The text that `parse` reads back."""
        address = self.kind if self.kind == "python-docs" else f"{self.kind}:{self._hub_name() if self.kind == 'hf' else self.location}"
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        given = {name: str(getattr(self, name)) for name in OPTIONS[self.kind] if getattr(self, name) != defaults[name]}
        options = [f"{name}={re.sub('[%&#]', lambda match: urllib.parse.quote(match[0]), value)}" for name, value in given.items()]
        return f"{address}#{'&'.join(options)}" if options or "#" in address else address

    @property
    def label(self) -> str:
        """The source's name: the one given, or that of the file, the folder, or the Hugging Face configuration or dataset."""
        if self.source is not None:
            return self.source
        if self.kind == "python-docs":
            return "python-docs"
        if self.kind == "hf":
            return self.config or os.path.basename(os.path.normpath(self.location))
        if is_url(self.location):
            # Whether it is a folder is not worth asking its store.
            name, is_folder = os.path.basename(fixed_part(self.location).rstrip("/")), fixed_part(self.location) != self.location
            is_folder = is_folder or self.location.endswith("/")
        else:
            path = os.path.abspath(fixed_part(os.path.expanduser(self.location)))
            name, is_folder = os.path.basename(path), os.path.isdir(path)
        return printable(name if is_folder else _LAST_ENDING.sub("", _COMPRESSED_ENDING.sub("", name))) or self.kind

    @property
    def leaves_out(self) -> bool:
        """Whether records that are no documents are left out and counted."""
        return self.invalid == "leave-out"

    def _hub_name(self) -> str:
        name = self.location if self.revision is None else f"{self.location}@{self.revision}"
        if self.hub_split != DEFAULT_HUB_SPLIT:
            return f"{name}:{self.config or ''}:{self.hub_split}"
        return name if self.config is None else f"{name}:{self.config}"


def check_lengths(min_bytes: int, max_bytes: int | None) -> None:
    """Refuse limits on a document's length that nothing can meet.

    Raises:
        ConfigError: a negative minimum, or a maximum below it.
    """
    if min_bytes < 0:
        raise ConfigError(f"min_bytes is {min_bytes}; it must be at least 0.")
    if max_bytes is not None and max_bytes < min_bytes:
        raise ConfigError(f"max_bytes is {max_bytes}; it must be at least min_bytes, which is {min_bytes}.")


def kind_of_name(name: str) -> str | None:
    """The kind that the ending of a file's name says, such as `jsonl`; None where it says none."""
    return next((kind for ending, kind in _BY_ENDING if ending.search(name)), None)


def _split_kind(address: str) -> tuple[str | None, str]:
    if address == "python-docs":
        return address, ""
    prefix = _KIND_PREFIX.match(address)
    if prefix and (prefix[1] in KINDS or not is_url(address)):
        if prefix[1] not in KINDS:
            raise ConfigError(
                f"The corpus {address!r} has an unknown kind {prefix[1]!r} (for a file of that name, write files:{address})"
                f"{nearest(prefix[1], KINDS)}."
            )
        return prefix[1], address[prefix.end() :]
    if not address:
        raise ConfigError("A corpus spec is empty; write e.g. python-docs, notes/, or pages.jsonl.gz.")
    return kind_of_name(address), address


def _split_hub_name(location: str) -> dict[str, Any]:
    parts = location.split(":")
    if len(parts) > 3:
        raise ConfigError(f"The corpus 'hf:{location}' has too many parts; write hf:NAME, hf:NAME:CONFIG or hf:NAME:CONFIG:SPLIT.")
    name, config, split = [*parts, "", ""][:3]
    revision = _HUB_REVISION.match(name)
    return {
        "location": revision[1] if revision else name,
        "revision": revision[2] if revision else None,
        "config": config or None,
        "hub_split": split or DEFAULT_HUB_SPLIT,
    }


def _parse_options(kind: str, options_text: str, text: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for option in filter(None, options_text.split("&")):
        name, equals, value = option.partition("=")
        if not equals:
            raise ConfigError(
                f"The corpus {text!r} has the option {option!r}, which isn't key=value; where the '#' belongs to the path, "
                "end the spec with another '#'."
            )
        if name not in OPTIONS[kind]:
            raise ConfigError(f"The corpus {text!r} has an option {name!r} that {kind} doesn't take{nearest(name, OPTIONS[kind])}.")
        if name in values:
            raise ConfigError(f"The corpus {text!r} gives the option {name!r} twice; leave one out.")
        values[name] = _parse_value(name, urllib.parse.unquote(value, errors="surrogateescape"), text)
    return values


def _parse_value(name: str, value: str, text: str) -> Any:
    if name in ("limit", "min_bytes", "max_bytes"):
        least = 1 if name == "limit" else 0
        if not re.fullmatch(r"[+-]?\d+(_\d+)*", value, re.ASCII) or int(value) < least:
            raise ConfigError(f"The corpus {text!r} has {name}={value}; it must be a whole number, at least {least}.")
        return int(value)
    if name in _CHOICES and value not in _CHOICES[name]:
        raise ConfigError(f"The corpus {text!r} has {name}={value}{nearest(value, _CHOICES[name])}.")
    if not value:
        raise ConfigError(f"The corpus {text!r} has nothing after {name}=; give a value or leave the option out.")
    return value
