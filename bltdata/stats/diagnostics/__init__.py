"""What may be wrong with a dataset, one function a question: each gives a verdict, the numbers behind it, and what to do.

A diagnostic that finds nothing says so, and one that can't be made says why. The limits stand as constants beside each.
"""

from collections.abc import Sequence

from bltdata.shards import Manifest
from bltdata.stats.diagnostics import documents, model, patching
from bltdata.stats.diagnostics.diagnosis import Case, Diagnosis, Verdict
from bltdata.stats.overlap import Overlap
from bltdata.stats.sample import Sample
from bltdata.stats.sources import DatasetStatistics

DIAGNOSTICS = (
    model.entropy_range,
    patching.threshold,
    patching.fixed_stride,
    patching.starts_follow_entropies,
    model.context_model,
    model.leak,
    model.expectation,
    documents.drift,
    documents.seams,
    documents.sources,
    documents.shared_documents,
)


def diagnose(statistics: DatasetStatistics, manifest: Manifest, sample: Sample, overlaps: Sequence[Overlap] = ()) -> list[Diagnosis]:
    """Ask every question about one dataset.

    Args:
        statistics: from `collect_statistics`.
        manifest: the dataset's.
        sample: from `take_sample`.
        overlaps: what it shares with other datasets.
    """
    case = Case(statistics=statistics, overall=statistics.overall(), manifest=manifest, sample=sample, overlaps=tuple(overlaps))
    return [check(case) for check in DIAGNOSTICS]


__all__ = ["DIAGNOSTICS", "Case", "Diagnosis", "Verdict", "diagnose"]
