"""From a corpus and an entropy model to a dataset of shards.

A plan comes first (`bltdata.plan`): the corpus cut into fragments, each of which becomes one shard. What a shard holds depends on its
fragment, the model and the settings alone, so it has the same bytes whichever process writes it, and when. A shard that
was made by this plan, was listed, and is still what was listed is finished; so running the same build again goes on where
it stopped, and jobs that know nothing of each other can share one.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bltdata.config import to_mapping
from bltdata.corpus import Corpus, Fragment
from bltdata.corpus.sample import expected_bytes
from bltdata.engines import EngineName, open_engine
from bltdata.engines.resume import BuildReporter, finish_shards
from bltdata.engines.share import WHOLE, Share
from bltdata.entropy import EntropyModel
from bltdata.entropy.scores import scored
from bltdata.errors import BuildError
from bltdata.nn import one_thread, prepare_cpu, resolve_device
from bltdata.patching import PatchRule
from bltdata.plan import BuildConfig, BuildPlan, agreed_build_plan, describe_model
from bltdata.remote import AnyPath, published
from bltdata.shards import Manifest, ShardRecord, ShardWriter, round_entropies
from bltdata.shards.folder import MADE_BY_A_BUILD, check_out
from bltdata.shards.ledger import Ledger
from bltdata.shards.schema import PLAN_FILE, shard_name

__all__ = ["BuildConfig", "BuildReporter", "ShardJob", "Share", "build_shards", "build_share", "describe_model", "plan_shards"]


@dataclass(frozen=True)
class ShardJob:
    """Makes the shard of a fragment. It pickles: a worker gets a copy and opens the model itself."""

    corpus: Corpus
    model_folder: Path
    model_fingerprint: str
    rule: PatchRule
    config: BuildConfig
    folder: AnyPath
    plan_fingerprint: str

    def __call__(self, fragment: Fragment) -> ShardRecord:
        """Read, score and cut the documents of `fragment`, and write their shard."""
        if not (self.folder / PLAN_FILE).exists():
            raise BuildError(f"A worker can't see {self.folder / PLAN_FILE}; --out must be a folder that every machine of the run shares.")
        model = _load_model(self.model_folder, self.model_fingerprint, self.config.device)
        metadata = self.metadata(fragment, model)
        path = self.folder / shard_name(fragment.index)
        with one_thread(), published(path) as file, ShardWriter(file, metadata) as writer:
            documents = self.corpus.read(fragment, writer.left_out)
            for document, score in scored(model, documents, self.config.torch_type, reset_at_newline=self.config.reset_at_newline):
                entropies = round_entropies(score.entropy_nats, self.config.entropy_precision)
                lengths = self.rule.lengths(document.data, entropies, document=document.doc_id)
                writer.add(
                    doc_id=document.doc_id,
                    source=document.source,
                    data=document.data,
                    entropy_nats=entropies,
                    patch_lengths=lengths,
                    nll_nats=score.nll_nats,
                )
        return writer.record

    def metadata(self, fragment: Fragment, model: EntropyModel) -> dict[str, Any]:
        """What the shard's own footer says of how it was made."""
        return {
            "plan": self.plan_fingerprint,
            "fragment": fragment.index,
            "entropy_model": describe_model(model, self.config),
            "patch_rule": to_mapping(self.rule),
            "entropy_precision": self.config.entropy_precision,
            "corpus": {"fingerprint": self.corpus.fingerprint, "split": self.corpus.split},
        }


def build_shards(
    corpus: Corpus,
    model_folder: Path,
    config: BuildConfig,
    folder: AnyPath,
    *,
    workers: int | None = 1,
    engine: EngineName = "local",
    reporter: BuildReporter | None = None,
) -> Manifest:
    """Build the dataset `folder`, or finish one that was begun, by whomever.

    Args:
        corpus: what to read.
        model_folder: the trained entropy model.
        config: how shards are made.
        folder: gets `plan.json`, the shards, and last of all `manifest.json`; of this machine, or of a store (`bltdata.remote`).
        workers: how many work at once; None for as many as the engine finds room for. They change nothing but the time it takes.
        engine: where they work: `local` processes, or `ray` for a cluster, which changes nothing either.
        reporter: who is told how it goes.

    Returns:
        The manifest.

    Raises:
        BuildError: the folder holds another build or something else, or another process is at it.
        BltError: the corpus can't be read or would read the folder too, or the calibration can't reach its target.
    """
    manifest = build_share(corpus, model_folder, config, folder, WHOLE, workers=workers, engine=engine, reporter=reporter)
    assert manifest is not None, "who makes all shards publishes them"
    return manifest


def build_share(
    corpus: Corpus,
    model_folder: Path,
    config: BuildConfig,
    folder: AnyPath,
    share: Share,
    *,
    workers: int | None = 1,
    engine: EngineName = "local",
    reporter: BuildReporter | None = None,
) -> Manifest | None:
    """Make one job's share of the dataset `folder`; the other jobs make theirs, at the same time or not, on this machine or another.

    Whichever job comes first writes the plan, and whichever finishes last the manifest. So does `build_shards` with the same settings,
    which makes what the jobs left.

    Args:
        corpus: what to read.
        model_folder: the trained entropy model.
        config: how shards are made.
        folder: a folder that all jobs see.
        share: which shards are this job's.
        workers: as in `build_shards`.
        engine: as in `build_shards`.
        reporter: who is told how it goes.

    Returns:
        The manifest, or None where shards of other jobs are missing.

    Raises:
        BuildError: the folder holds another build or something else, or another process is at it or at this share.
        BltError: the corpus can't be read or would read the folder too, or the calibration can't reach its target.
    """
    run = open_engine(engine, workers, gpu=config.device == "cuda")
    reporter = reporter or BuildReporter()
    prepare_cpu()
    model = EntropyModel.load(model_folder)
    _check_out(corpus, folder)
    with share.writing(folder, reporter.said):
        plan = _agreed(corpus, model, config, folder, share, reporter)
        # An engine may run it in another folder.
        paths = model_folder.resolve(), folder.resolve()
        job = ShardJob(corpus, paths[0], model.fingerprint, plan.rule, config, paths[1], plan.fingerprint)
        return finish_shards(
            folder,
            job,
            {shard_name(fragment.index): fragment for fragment in plan.fragments},
            plan.fingerprint,
            share=share,
            engine=run,
            reporter=reporter,
            num_bytes=lambda missing: expected_bytes(corpus, missing),
            publish=lambda records: _publish(job, folder, model, records),
        )


def plan_shards(
    corpus: Corpus, model_folder: Path, config: BuildConfig, folder: AnyPath, *, reporter: BuildReporter | None = None
) -> BuildPlan:
    """Write the plan of a build, or read the one that is there, and make no shard: its jobs then need not wait for each other.

    Raises:
        BuildError: the folder holds another build or something else, or a process is at it.
        BltError: the corpus can't be read or would read the folder too, or the calibration can't reach its target.
    """
    model = EntropyModel.load(model_folder)
    reporter = reporter or BuildReporter()
    _check_out(corpus, folder)
    with WHOLE.writing(folder, reporter.said):
        return _agreed(corpus, model, config, folder, WHOLE, reporter)


def _check_out(corpus: Corpus, folder: AnyPath) -> None:
    check_out(folder)
    corpus.check_apart(folder, MADE_BY_A_BUILD)


def _agreed(corpus: Corpus, model: EntropyModel, config: BuildConfig, folder: AnyPath, share: Share, reporter: BuildReporter) -> BuildPlan:
    waiting = functools.partial(reporter.said, f"Another job is writing the plan of {folder}; waiting for it.")
    with share.turn(folder, "plan", waiting):
        return agreed_build_plan(corpus, model, config, folder, reporter, is_alone=share.count == 1)


def _publish(job: ShardJob, folder: AnyPath, model: EntropyModel, records: list[ShardRecord]) -> Manifest:
    manifest = Manifest.create(
        entropy_model=describe_model(model, job.config),
        patch_rule=to_mapping(job.rule),
        entropy_precision=job.config.entropy_precision,
        corpus=job.corpus.describe(),
        shards=records,
    )
    if manifest.totals.num_documents == 0:
        for name in (PLAN_FILE, *(record.file for record in records)):
            (folder / name).unlink()
        Ledger(folder).close()
    job.corpus.check_not_empty(manifest.totals.num_documents, manifest.totals.left_out)
    manifest.write(folder)
    return manifest


@functools.lru_cache(maxsize=1)
def _load_model(folder: Path, expected: str, device: str) -> EntropyModel:
    prepare_cpu()
    model = EntropyModel.load(folder)
    if model.fingerprint != expected:
        raise BuildError(f"The entropy model in {folder} was replaced while shards were built with it; run the same command again.")
    return model.to(resolve_device(device))
