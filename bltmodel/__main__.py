"""`python -m bltmodel` is the command `bltmodel`, for those who start processes, such as `torchrun -m bltmodel train`."""

from bltmodel.cli import main

main()
