"""The command `bltmodel`: one file a command, loaded only when it is called (see `bltdata.cli`)."""

import bltmodel
from bltdata.cli.common import LazyCommand, lazy_group

COMMANDS = {
    "train": LazyCommand(
        "bltmodel.cli.train:train",
        "Train a Byte Latent Transformer on a folder of shards.",
    ),
    "evaluate": LazyCommand(
        "bltmodel.cli.evaluate:evaluate",
        "Measure bits per byte by source, beside general-purpose compressors.",
    ),
    "generate": LazyCommand(
        "bltmodel.cli.generate:generate",
        "Continue a prompt, byte by byte.",
    ),
    "summary": LazyCommand(
        "bltmodel.cli.summary:summary",
        "Count the parameters of each part, and the FLOPs per byte.",
    ),
    "export": LazyCommand(
        "bltmodel.cli.export:export",
        "Write a BLT as a checkpoint that transformers opens.",
    ),
    "import": LazyCommand(
        "bltmodel.cli.import_:import_command",
        "Read a BLT from a transformers checkpoint.",
    ),
}

main = lazy_group(
    "bltmodel",
    COMMANDS,
    version=bltmodel.__version__,
    help="Train, evaluate and sample Byte Latent Transformers on the shards that bltdata writes.",
)
