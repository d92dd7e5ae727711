"""Statistics of a dataset: exact, in one pass, in bounded memory, and the same in whichever order shards are read.

`collect_statistics` makes them, `to_mapping` and `render` show them, `write_plots` draws them.
"""

from bltdata.stats.accumulators import EntropyHistogram, IntegerHistogram
from bltdata.stats.collect import collect_statistics
from bltdata.stats.report import render, to_mapping
from bltdata.stats.sources import DatasetStatistics, SourceStatistics
from bltdata.stats.summary import Summary

__all__ = [
    "DatasetStatistics",
    "EntropyHistogram",
    "IntegerHistogram",
    "SourceStatistics",
    "Summary",
    "collect_statistics",
    "render",
    "to_mapping",
]
