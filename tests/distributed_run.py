"""One process of a group: ``distributed_run.py WHAT RANK FOLDER``, started by test_torch_distributed.py.

The processes meet through a file in FOLDER; each saves what it found there, as RANK.pt.
"""

from __future__ import annotations

import faulthandler
import os
import sys
from datetime import timedelta
from pathlib import Path

import lstm_fast.torch as lt
import torch
import torch.distributed as dist
from lstm_fast import _lstm_fast_core as core
from torch.nn.utils import rnn

PROCESSES = 2
SECONDS = 60  # no process outlives them, whatever the others do
INPUTS, HIDDEN, OUTPUTS = 5, 9, 3
STEPS, BATCH, UPDATES = 11, 8, 6
# The halves of the batch differ in their numbers of steps; neither is sorted.
LENGTHS = torch.tensor([3, 11, 1, 7, 10, 11, 9, 11])


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Linear(INPUTS, INPUTS)
        self.lstm = torch.nn.LSTM(INPUTS, HIDDEN, num_layers=2, bidirectional=True)
        self.head = torch.nn.Linear(2 * HIDDEN, OUTPUTS)

    def forward(self, x, lengths=None):
        x = self.embed(x)
        if lengths is None:
            return self.head(self.lstm(x)[0])
        packed, _ = self.lstm(rnn.pack_padded_sequence(x, lengths, enforce_sorted=False))
        return self.head(rnn.pad_packed_sequence(packed, total_length=STEPS)[0])


def model_of(seed, accelerated=True):
    torch.manual_seed(seed)
    model = Model().double()
    return lt.accelerate(model) if accelerated else model


def train(model, rows, packed, updates=UPDATES):
    """Train on these rows of every batch; return the losses."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(STEPS, BATCH, INPUTS, generator=generator, dtype=torch.float64)
    wanted = torch.randn(STEPS, BATCH, OUTPUTS, generator=generator, dtype=torch.float64)
    losses = []
    for _ in range(updates):
        optimizer.zero_grad()
        y = model(x[:, rows], LENGTHS[rows] if packed else None)
        # A sum over steps, a mean over rows: what the processes average is then the mean over the whole batch.
        loss = (y - wanted[:, rows]).square().sum(0).mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def ours(rank):
    """Every process's rows of the batch."""
    return slice(rank * BATCH // PROCESSES, (rank + 1) * BATCH // PROCESSES)


def data_parallel(rank):
    """Parameters after padded and packed training, twice each. The processes start from different ones: DDP's job."""
    found = {}
    for packed in (False, True):
        for turn in range(2):
            model = torch.nn.parallel.DistributedDataParallel(model_of(seed=rank))
            train(model, ours(rank), packed)
            found[packed, turn] = {name: p.detach() for name, p in model.module.named_parameters()}
    return found


def fully_sharded(rank):
    """Losses, parameters and gradients, and of which types a parameter of the LSTM was."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (PROCESSES,))
    found = {}
    for alone in (True, False):
        model = model_of(seed=0)
        if alone:  # its parameters are freed after forward and gathered again for backward
            fully_shard(model.lstm, mesh=mesh, reshard_after_forward=True)
        fully_shard(model, mesh=mesh)
        types = set()
        model.lstm.register_forward_pre_hook(lambda lstm, _, types=types: types.add(type(lstm.weight_hh_l0).__name__))
        losses = [train(model, ours(rank), packed) for packed in (False, True)]
        parameters = {name: p.full_tensor().detach() for name, p in model.named_parameters()}
        gradients = {name: p.grad.full_tensor() for name, p in model.named_parameters()}
        outside = type(model.lstm.weight_hh_l0).__name__
        found[alone] = {"losses": losses, "parameters": parameters, "gradients": gradients}
        found[alone] |= {"inside": list(types), "outside": outside}
    return found


def threads(rank):
    """(threads that torch has, threads that forward used, that backward used), as started and as set afterwards."""
    core.use_team_always(True)
    lstm = lt.LSTM(INPUTS, HIDDEN, bidirectional=True)
    found = []
    for given in (None, 1, 2, 5):
        if given is not None:
            torch.set_num_threads(given)
        y, _ = lstm(torch.randn(STEPS, BATCH, INPUTS))
        forward = core.threads_used()
        y.sum().backward()
        found.append((torch.get_num_threads(), forward, core.threads_used()))
    return found


def main(what, rank, folder):
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    work = {"ddp": data_parallel, "fsdp": fully_sharded, "threads": threads}[what]
    if what != "threads":
        meeting = (folder / "meeting").as_uri()
        limit = timedelta(seconds=SECONDS)
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=PROCESSES, timeout=limit)
    found = work(rank)
    torch.save({"found": found, "stats": lt.stats()}, folder / f"{rank}.pt")
    if what != "threads":
        dist.barrier()  # nobody leaves while another still needs the group
        # Not through the end of PyTorch's threads: after fully_shard had done all, it aborted once in several runs.
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
