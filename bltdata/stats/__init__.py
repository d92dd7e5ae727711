"""Statistics of a dataset: exact, in one pass, in bounded memory, and the same in whichever order shards are read.

`collect_statistics` makes them, `to_mapping`, `render`, `to_markdown` and `to_page` show them, and `diagnose` says what may be wrong
with the dataset; it needs `take_sample` as well.
"""

from bltdata.stats.accumulators import EntropyHistogram, IntegerHistogram
from bltdata.stats.collect import collect_shard, collect_statistics
from bltdata.stats.diagnostics import Diagnosis, Verdict, diagnose
from bltdata.stats.overlap import Overlap
from bltdata.stats.page import to_comparison_page, to_page
from bltdata.stats.rendering import render, to_markdown
from bltdata.stats.report import to_mapping
from bltdata.stats.sample import Sample, take_sample
from bltdata.stats.sources import DatasetStatistics, SourceStatistics
from bltdata.stats.summary import Summary

__all__ = [
    "DatasetStatistics",
    "Diagnosis",
    "EntropyHistogram",
    "IntegerHistogram",
    "Overlap",
    "Sample",
    "SourceStatistics",
    "Summary",
    "Verdict",
    "collect_shard",
    "collect_statistics",
    "diagnose",
    "render",
    "take_sample",
    "to_comparison_page",
    "to_mapping",
    "to_markdown",
    "to_page",
]
