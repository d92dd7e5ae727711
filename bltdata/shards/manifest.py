"""`manifest.json`: what a dataset is, and the shards that belong to it. A folder without one is not finished."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bltdata import __version__, atomic, config
from bltdata.errors import ConfigError, RemoteError, ShardError
from bltdata.remote import AnyPath, as_path
from bltdata.shards.folder import instead_of_dataset, run_again
from bltdata.shards.footer import check_format_version, decode_json
from bltdata.shards.precision import Precision
from bltdata.shards.record import ShardRecord
from bltdata.shards.schema import FORMAT_VERSION, MANIFEST_NAME

_LARGEST_COUNT = 2**48
"""Bytes or rows of a shard: more than any file has, and few enough for the sums over any number of shards."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Totals:
    """Sums over a dataset's shards."""

    num_shards: int
    """Files."""
    num_documents: int
    """Rows."""
    num_bytes: int
    """Raw bytes, ends of documents not counted."""
    num_patches: int
    """Patches."""
    left_out: dict[str, int]
    """Documents that are in no shard, by reason."""

    @staticmethod
    def of(shards: Sequence[ShardRecord]) -> "Totals":
        """Add up the records."""
        left_out: Counter[str] = Counter()
        for shard in shards:
            left_out.update(shard.left_out)
        return Totals(
            num_shards=len(shards),
            num_documents=sum(shard.num_documents for shard in shards),
            num_bytes=sum(shard.num_bytes for shard in shards),
            num_patches=sum(shard.num_patches for shard in shards),
            left_out=dict(sorted(left_out.items())),
        )

    @property
    def mean_patch_length(self) -> float | None:
        """Bytes (and ends of documents) in a patch; None without any."""
        return (self.num_bytes + self.num_documents) / self.num_patches if self.num_patches else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """A finished dataset: how it was made and what it consists of."""

    format_version: int
    """Version of the shards and of this file."""
    tool_version: str
    """Version of the package that wrote it."""
    entropy_model: dict[str, Any]
    """Fingerprint of the entropy model, its configuration, and how it was given context."""
    patch_rule: dict[str, Any]
    """The rule with every parameter; applied to the stored entropies it gives the stored patches."""
    source_rules: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    """Sources that are cut by another rule than `patch_rule`, and theirs; empty where there is one rule for all."""
    entropy_precision: Precision
    """How entropies were rounded before they were stored."""
    corpus: dict[str, Any]
    """Where the documents came from, and which split they are."""
    shards: tuple[ShardRecord, ...]
    """The files, in the order of the plan; a file that is not listed is no part of the dataset."""
    totals: Totals
    """Sums over `shards`."""
    fingerprint: str
    """Name of the dataset: equal for equal settings and shards, wherever the folder is and however it was built."""

    @staticmethod
    def create(
        *,
        entropy_model: Mapping[str, Any],
        patch_rule: Mapping[str, Any],
        entropy_precision: Precision,
        corpus: Mapping[str, Any],
        shards: Sequence[ShardRecord],
        source_rules: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> "Manifest":
        """The manifest of these shards, with versions, totals and fingerprint filled in."""
        return Manifest(
            format_version=FORMAT_VERSION,
            tool_version=__version__,
            entropy_model=dict(entropy_model),
            patch_rule=dict(patch_rule),
            source_rules={name: dict(rule) for name, rule in (source_rules or {}).items()},
            entropy_precision=entropy_precision,
            corpus=dict(corpus),
            shards=tuple(shards),
            totals=Totals.of(shards),
            fingerprint=_fingerprint(entropy_model, patch_rule, source_rules or {}, entropy_precision, shards),
        )

    def write(self, folder: AnyPath | str) -> AnyPath:
        """Write `manifest.json` into `folder`, whole or not at all: from then on the dataset is finished."""
        path = as_path(folder) / MANIFEST_NAME
        atomic.write_json(path, config.to_mapping(self))
        return path

    @staticmethod
    def read(folder: AnyPath | str) -> "Manifest":
        """Read and check `manifest.json` in `folder`; the shards themselves are not looked at.

        Raises:
            ShardError: there is none, it is of another format version, or it contradicts itself.
        """
        manifest = Manifest.parse(folder)
        manifest._check(as_path(folder) / MANIFEST_NAME)
        return manifest

    @staticmethod
    def parse(folder: AnyPath | str) -> "Manifest":
        """Read `manifest.json` in `folder` though it may contradict itself: for whoever wants to know all that is wrong.

        Raises:
            ShardError: there is none, it is of another format version, or a field is missing, unknown or of another type.
        """
        path = as_path(folder) / MANIFEST_NAME
        mapping = _read_json(path)
        check_format_version(mapping, path)
        try:
            return config.from_mapping(Manifest, mapping, "it")
        except ConfigError as error:
            raise ShardError(f"Restore {path} or {run_again(path.parent)}: {error}") from error

    @property
    def misnamed(self) -> list[str]:
        """Names of shards that aren't the one name of a file in this folder, or stand twice."""
        counts = Counter(shard.file for shard in self.shards)
        return [file for file, count in counts.items() if Path(file).name != file or count > 1 or file in ("", "..") or "\0" in file]

    @property
    def impossible(self) -> list[str]:
        """Names of shards with a count that no file can have."""
        counts = {shard.file: (shard.num_documents, shard.num_bytes, shard.num_patches, shard.size_bytes) for shard in self.shards}
        return [file for file, numbers in counts.items() if not all(0 <= number <= _LARGEST_COUNT for number in numbers)]

    @property
    def expected_fingerprint(self) -> str:
        """The fingerprint that a manifest with these settings and shards has."""
        return _fingerprint(self.entropy_model, self.patch_rule, self.source_rules, self.entropy_precision, self.shards)

    def _check(self, path: AnyPath) -> None:
        for file in self.misnamed:
            raise ShardError(f"{path} lists the shard {file!r}, which is no name of its own in this folder; restore the file.")
        for file in self.impossible:
            raise ShardError(f"{path} lists the shard {file!r} with a count that is negative or too large; restore the file.")
        if self.totals != Totals.of(self.shards) or self.fingerprint != self.expected_fingerprint:
            raise ShardError(
                f"{path} was changed after it was written (totals or fingerprint do not match); restore it or {run_again(path.parent)}."
            )


def _fingerprint(
    entropy_model: Mapping[str, Any],
    patch_rule: Mapping[str, Any],
    source_rules: Mapping[str, Any],
    precision: str,
    shards: Sequence[ShardRecord],
) -> str:
    # The documents are in the checksums; the corpus description isn't here because it may name a path.
    named = {
        "format_version": FORMAT_VERSION,
        "entropy_model": entropy_model,
        "patch_rule": patch_rule,
        "entropy_precision": precision,
        "shards": [shard.checksum for shard in shards],
    }
    if source_rules:
        # Only then, so that datasets with one rule keep their names.
        named["source_rules"] = source_rules
    return config.fingerprint(named)


def _read_json(path: AnyPath) -> dict[str, Any]:
    try:
        mapping = decode_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ShardError(instead_of_dataset(path.parent)) from error
    except RemoteError:
        # Not a fault of the dataset: nobody knows whether there is a manifest.
        raise
    except OSError as error:
        raise ShardError(f"Cannot read {path}: {error.strerror}.") from error
    except ValueError as error:
        raise ShardError(f"{path} is not valid JSON ({error}); restore it or {run_again(path.parent)}.") from error
    if not isinstance(mapping, dict):
        raise ShardError(f"{path} is no manifest; restore it or {run_again(path.parent)}.")
    return mapping
