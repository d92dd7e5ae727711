"""From corpora to a trained entropy model in a folder."""

from pathlib import Path
from typing import Any

from bltdata.config import from_mapping, to_mapping
from bltdata.corpus import Corpus, Spool, write_spool
from bltdata.corpus.corpus import left_out_in_words
from bltdata.entropy.config import EntropyModelConfig, preset
from bltdata.entropy.training import run_identity, train_entropy_model
from bltdata.errors import CorpusError
from bltdata.training.config import TrainingConfig
from bltdata.training.identity import check_run
from bltdata.training.keeping import Keeping
from bltdata.training.loop import Reporter
from bltdata.training.world import World, exclusive_to

DATA_FOLDER = "data"


def pretrain(
    train: Corpus,
    validation: Corpus,
    architecture: EntropyModelConfig,
    config: TrainingConfig,
    folder: Path,
    *,
    device: str = "auto",
    reporter: Reporter | None = None,
    resume: bool = True,
    keeping: Keeping | None = None,
    world: World | None = None,
) -> dict[str, Any]:
    """Train an entropy model on `train` into `folder`, judged on `validation`.

    The documents are copied into `folder/data` first, so that they can be picked in any order. Of several processes the
    first does that, and all map the copy.

    Returns:
        The metrics of the best evaluation.

    Raises:
        BltError: a corpus is empty or can't be read, another process trains there, or the folder holds another run.
    """
    reporter, world = reporter or Reporter(), world or World()
    corpora = {"train": train, "validation": validation}
    with world.together():
        # Before a corpus is copied for nothing.
        config.share(world.size)
        data = {name: corpus.describe() for name, corpus in corpora.items()}
    where = world.device(device)
    with exclusive_to(world, folder):
        with world.together(takes_long=True):
            if world.is_first:
                if resume:
                    # Before the copy is replaced that another run goes on from.
                    check_run(folder, run_identity(architecture, data), config, keeping)
                for name, corpus in corpora.items():
                    _spool(corpus, folder / DATA_FOLDER / name, reporter)
        with world.together():
            spools = {name: Spool.open(folder / DATA_FOLDER / name) for name in corpora}
        return train_entropy_model(
            architecture,
            config,
            spools["train"],
            spools["validation"],
            folder,
            data=data,
            device=where,
            reporter=reporter,
            resume=resume,
            keeping=keeping,
            world=world,
        )


def architecture_of(preset_name: str, changes: dict[str, Any], where: str) -> EntropyModelConfig:
    """The settings of a preset with some of them changed.

    Raises:
        ConfigError: there is no such preset, or no such setting.
    """
    return from_mapping(EntropyModelConfig, {**to_mapping(preset(preset_name)), **changes}, where)


def _spool(corpus: Corpus, folder: Path, reporter: Reporter) -> None:
    try:
        if Spool.open(folder).fingerprint == corpus.fingerprint:
            return
    except CorpusError:
        # There is none yet, or a run was killed while it was written.
        pass
    spool = write_spool(corpus, folder, fingerprint=corpus.fingerprint)
    reporter.said(f"{spool.num_documents:,} documents, {spool.num_bytes:,} bytes in {folder}{left_out_in_words(corpus.left_out)}.")
