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
    "evaluate-entropy-model": LazyCommand(
        "bltdata.cli.evaluate_entropy_model:evaluate_entropy_model",
        "Measure an entropy model's bits per byte, and whether its entropies can be believed.",
    ),
    "import-entropy-model": LazyCommand(
        "bltdata.cli.import_entropy_model:import_entropy_model",
        "Take the entropy model out of a transformers checkpoint of a BLT or of its patcher.",
    ),
    "export-entropy-model": LazyCommand(
        "bltdata.cli.export_entropy_model:export_entropy_model",
        "Write an entropy model as a checkpoint that transformers opens.",
    ),
    "score": LazyCommand(
        "bltdata.cli.score:score",
        "Score a text, a file or a corpus with an entropy model, and print the entropies.",
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
    "convert": LazyCommand(
        "bltdata.cli.convert:convert",
        "Convert shards to the Arrow files of the reference implementation, or such files to shards.",
    ),
    "entropy-stats": LazyCommand(
        "bltdata.cli.entropy_stats:entropy_stats",
        "Report the entropies, patches and bits per byte of a folder of shards.",
    ),
    "compare": LazyCommand(
        "bltdata.cli.compare:compare",
        "Put datasets side by side: their rules, patch lengths, entropies and bits per byte.",
    ),
    "verify": LazyCommand(
        "bltdata.cli.verify:verify",
        "Check that shards are what their manifest says: every file, every row, every patch.",
    ),
    "show": LazyCommand(
        "bltdata.cli.show:show",
        "Show where the patches of a text, a file or a document of a dataset are, in colours.",
    ),
    "explore": LazyCommand(
        "bltdata.cli.explore:explore",
        "Write a page in which one moves the threshold and watches the patches.",
    ),
}

main = lazy_group(
    "bltdata",
    COMMANDS,
    version=bltdata.__version__,
    help="From raw bytes to the entropies, patches and Parquet shards that a Byte Latent Transformer trains on.",
)
