"""Muon for matrices whose rows are shared out among processes."""

from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from bltdata.training.muon import Muon, orthogonalised


class ShardedMuon(Muon):
    """Muon whose momentum is shared out like its matrices.

    A step is orthogonalised as a whole: each process gathers the matrix, one at a time, and computes what a process alone would. In parts
    it would be several messages an iteration and, in bfloat16, other sums.

    Source: arXiv:2502.16982, section 2.
    """

    def orthogonalised(self, update: Tensor) -> Tensor:
        """This process's part of what the whole update gives."""
        assert isinstance(update, DTensor)
        whole = orthogonalised(update.full_tensor(), self.dtype)
        return distribute_tensor(whole, update.device_mesh, update.placements, src_data_rank=None)
