"""From Arrow files of the reference implementation to a dataset of shards; see `bltdata.convert` for what is which value.

The shards are made as a build makes them: whole or not at all, the same for any number of workers, and a run that was stopped goes on.
Nobody knows which model made the entropies, so the manifest's entropy model has no fingerprint, and no document a likelihood.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bltdata.config import from_mapping, number_of, to_mapping
from bltdata.convert.arrow_files import ArrowDocument, ArrowFile, ArrowFragment, find_files, fragments_of, read_documents
from bltdata.convert.config import FromArrowConfig
from bltdata.engines import open_engine
from bltdata.engines.resume import BuildReporter, agreed_plan, finish_shards, plan_fingerprint
from bltdata.errors import CorpusError
from bltdata.lock import exclusive
from bltdata.patching.batch import DocumentBatch, batches_of
from bltdata.patching.calibration import calibrate_sources
from bltdata.patching.sources import SourceRules
from bltdata.remote import AnyPath, published
from bltdata.repatch import RepatchConfig, calibration_sentence
from bltdata.shards import Manifest, ShardRecord, ShardWriter
from bltdata.shards.folder import check_out
from bltdata.shards.schema import shard_name

UNKNOWN_MODEL: Mapping[str, Any] = {"fingerprint": None, "made_by": "unknown: the entropies were read from Arrow files"}
"""What shards and manifest say of the entropy model."""


@dataclass(frozen=True)
class ArrowPlan:
    """What a conversion does, as `plan.json` has it."""

    fragments: Sequence[ArrowFragment]
    rules: SourceRules
    fingerprint: str
    """Names the plan; every shard says which one it belongs to."""


@dataclass(frozen=True)
class FromArrowJob:
    """Makes a shard of a fragment. It pickles: a worker gets a copy."""

    files: Mapping[str, ArrowFile]
    config: FromArrowConfig
    rules: SourceRules
    folder: AnyPath
    plan_fingerprint: str

    def __call__(self, fragment: ArrowFragment) -> ShardRecord:
        """Read and cut the documents of `fragment`, and write their shard."""
        path = self.folder / shard_name(fragment.index)
        with published(path) as file, ShardWriter(file, self.metadata(fragment)) as writer:
            for document in read_documents(self.files[fragment.file], fragment, self.config):
                rule = self.rules.rule_for(document.source)
                writer.add(
                    doc_id=document.doc_id,
                    source=document.source,
                    data=document.data,
                    entropy_nats=document.entropy_nats,
                    patch_lengths=rule.lengths(document.data, document.entropy_nats, document=document.where),
                    nll_nats=None,
                )
        return writer.record

    def metadata(self, fragment: ArrowFragment) -> dict[str, Any]:
        """What the shard's own footer says of how it was made."""
        return {
            "plan": self.plan_fingerprint,
            "fragment": fragment.index,
            "arrow": {"file": fragment.file, "first_row": fragment.first_row},
            "entropy_model": dict(UNKNOWN_MODEL),
            "entropy_precision": self.config.entropy_precision,
            **self.rules.to_mapping(),
        }


def arrow_to_shards(
    locations: Sequence[Path],
    cut: RepatchConfig,
    config: FromArrowConfig,
    folder: AnyPath,
    *,
    workers: int | None = 1,
    reporter: BuildReporter | None = None,
) -> Manifest:
    """Build the dataset `folder` from Arrow files, or finish one that was begun.

    Args:
        locations: Arrow files, and folders of files that have their markers.
        cut: where patches start.
        config: how the files are read.
        folder: gets `plan.json`, the shards, and last of all `manifest.json`; of this machine, or of a store (`bltdata.remote`).
        workers: processes; None for one a core. They change nothing but the time it takes.
        reporter: who is told how it goes.

    Returns:
        The manifest; its `corpus` lists the files.

    Raises:
        CorpusError: a file is missing, half-written or damaged, or a row isn't what it must be: the message names file and row.
        BuildError: the folder holds something else, or another process is at it.
        BltError: the calibration can't reach its target.
    """
    engine = open_engine("local", workers)
    reporter = reporter or BuildReporter()
    files = find_files(locations)
    check_out(folder)
    with exclusive(folder, reporter.said):
        plan = _agreed(files, cut, config, folder, reporter)
        manifest = finish_shards(
            folder,
            FromArrowJob({file.name: file for file in files}, config, plan.rules, folder, plan.fingerprint),
            {shard_name(fragment.index): fragment for fragment in plan.fragments},
            plan.fingerprint,
            engine=engine,
            reporter=reporter,
            num_bytes=lambda missing: sum(fragment.num_bytes for fragment in missing),
            publish=lambda records: _publish(files, plan.rules, config, records, folder),
        )
    assert manifest is not None, "who makes all shards publishes them"
    return manifest


def _agreed(files: Sequence[ArrowFile], cut: RepatchConfig, config: FromArrowConfig, folder: AnyPath, reporter: BuildReporter) -> ArrowPlan:
    """The plan of the run in `folder`, or a new one, which is written."""
    wanted = {"files": _described(files), "settings": to_mapping(config) | {"cut": to_mapping(cut)}}
    differences = {"files": "other Arrow files", "settings": "other settings"}
    modified = [file.modified_ns for file in files]

    def decide() -> dict[str, Any]:
        fragments = list(fragments_of(files, config.fragment_bytes))
        if not fragments:
            raise CorpusError(f"The Arrow files hold no documents ({number_of(len(files), 'file')} without a row); give others.")
        rules = _rules(files, fragments, cut, config, reporter)
        return {"modified_ns": modified, **rules.to_mapping(), "fragments": [to_mapping(fragment) for fragment in fragments]}

    def read(plan: Mapping[str, Any]) -> ArrowPlan:
        fragments = [from_mapping(ArrowFragment, fragment, "The plan") for fragment in plan["fragments"]]
        rules = SourceRules.from_mapping(plan, "The plan")
        return ArrowPlan(fragments, rules, plan_fingerprint(plan))

    def outdated(plan: Mapping[str, Any]) -> str | None:
        # Times of change are no part of what the shards are.
        return None if plan.get("modified_ns") == modified else "other Arrow files (they have changed)"

    return agreed_plan(folder, "from_arrow", wanted, differences, decide=decide, read=read, outdated=outdated, replaced=reporter.said)


def _rules(
    files: Sequence[ArrowFile], fragments: Sequence[ArrowFragment], cut: RepatchConfig, config: FromArrowConfig, reporter: BuildReporter
) -> SourceRules:
    if cut.target_patch_length is None:
        return SourceRules(default=cut.rule, by_source=cut.source_rules)
    by_name = {file.name: file for file in files}

    def read() -> Iterator[DocumentBatch]:
        documents = (document for fragment in fragments for document in read_documents(by_name[fragment.file], fragment, config))
        return _batches(documents, needs_bytes=cut.rule.needs_bytes)

    found = calibrate_sources(read, cut.rule, cut.target_patch_length, by_source=cut.by_source)
    reporter.said(calibration_sentence(found))
    return found.rules


def _batches(documents: Iterable[ArrowDocument], *, needs_bytes: bool) -> Iterator[DocumentBatch]:
    for source, of_source in itertools.groupby(documents, key=lambda document: document.source):
        pairs = ((document.data, document.entropy_nats) for document in of_source)
        for batch in batches_of(pairs, keeps_bytes=needs_bytes):
            yield dataclasses.replace(batch, source=source)


def _described(files: Sequence[ArrowFile]) -> list[dict[str, Any]]:
    return [{"file": file.name, "size_bytes": file.size_bytes} for file in files]


def _publish(
    files: Sequence[ArrowFile], rules: SourceRules, config: FromArrowConfig, records: list[ShardRecord], folder: AnyPath
) -> Manifest:
    manifest = Manifest.create(
        entropy_model=UNKNOWN_MODEL,
        entropy_precision=config.entropy_precision,
        corpus={"arrow": _described(files), "framing": config.framing, "doc_ids": config.doc_ids},
        shards=records,
        **rules.to_mapping(),
    )
    manifest.write(folder)
    return manifest
