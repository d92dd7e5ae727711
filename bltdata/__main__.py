"""`python -m bltdata` is the command `bltdata`, for those who start processes, such as `torchrun -m bltdata train-entropy-model`."""

from bltdata.cli import main

main()
