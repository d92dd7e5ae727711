"""The command `bltdata`: one file a command, loaded only when it is called.

The table holds the line that `bltdata --help` shows for each command, so that showing it imports none of them. A test
compares it with the command's own first line.
"""

import bltdata
from bltdata.cli.common import LazyCommand, lazy_group

COMMANDS = {
    "train-entropy-model": LazyCommand(
        "bltdata.cli.train_entropy_model:train_entropy_model",
        "Train the small byte model that says where the next byte is hard to predict.",
    ),
    "build-shards": LazyCommand(
        "bltdata.cli.build_shards:build_shards",
        "Score a corpus, cut it into patches, and write both as Parquet shards.",
    ),
    "calibrate": LazyCommand(
        "bltdata.cli.calibrate:calibrate",
        "Find the threshold that gives patches a wanted mean length, from stored entropies.",
    ),
    "repatch": LazyCommand(
        "bltdata.cli.repatch:repatch",
        "Cut shards again with another rule, from their stored entropies.",
    ),
    "entropy-stats": LazyCommand(
        "bltdata.cli.entropy_stats:entropy_stats",
        "Report the entropies, patches and bits per byte of a folder of shards.",
    ),
    "show": LazyCommand(
        "bltdata.cli.show:show",
        "Show where the patches of a text, a file or a document of a dataset are, in colours.",
    ),
}

main = lazy_group(
    "bltdata",
    COMMANDS,
    version=bltdata.__version__,
    help="From raw bytes to the entropies, patches and Parquet shards that a Byte Latent Transformer trains on.",
)
