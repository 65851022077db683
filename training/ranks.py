"""Several processes that train one network, as `torchrun` starts them; or one alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Ranks:
    """This process among all. rank: 0 writes; count: of processes; device: its own."""

    rank: int
    count: int
    device: str

    @property
    def is_first(self) -> bool:
        """Whether this process validates and writes."""
        return self.rank == 0

    def share(self, network: nn.Module) -> nn.Module:
        """The network with gradients averaged over all processes; its weights are those of the first."""
        if self.count == 1:
            return network
        return DistributedDataParallel(network, [self.device] if self.device.startswith("cuda") else None)

    def tell(self, figure: float) -> float:
        """The first process's figure, in all of them."""
        if self.count == 1:
            return figure
        told = torch.tensor([figure], dtype=torch.float64, device=self.device)
        distributed.broadcast(told, 0)
        return float(told)


@contextmanager
def join(device: str) -> Iterator[Ranks]:
    """Join the other processes of a `torchrun`, each with a GPU of its own where they compute on such."""
    if not distributed.is_torchelastic_launched():
        yield Ranks(0, 1, device)
        return
    is_cuda = device.startswith("cuda")
    distributed.init_process_group("nccl" if is_cuda else "gloo")
    rank = distributed.get_rank()
    try:
        yield Ranks(
            rank, distributed.get_world_size(), f"cuda:{rank % torch.cuda.device_count()}" if is_cuda else device
        )
    finally:
        distributed.destroy_process_group()
