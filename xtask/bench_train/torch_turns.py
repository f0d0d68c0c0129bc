"""Trains the base network with PyTorch, eager, in turns: torch_turns.py DATA THREADS f32|bf16."""

import contextlib
import sys

import torch
from torch import nn
from torch.nn import functional

from turns import BATCH, load, serve

folder, threads, precision = sys.argv[1:]
torch.set_num_threads(int(threads))
torch.manual_seed(1)

# NHWC in memory
(x, labels), (x_test, labels_test) = [
    (
        torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last),
        torch.from_numpy(labels),
    )
    for x, labels in load(folder)
]
network = nn.Sequential(
    nn.Conv2d(1, 32, 3),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Conv2d(32, 64, 3),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Conv2d(64, 64, 3),
    nn.ReLU(),
    nn.Flatten(),
    nn.Linear(576, 70),
    nn.ReLU(),
    nn.Linear(70, 10),
).to(memory_format=torch.channels_last)
optimizer = torch.optim.RMSprop(network.parameters(), lr=0.001, alpha=0.9, eps=1e-7, foreach=True)


def forward(x):
    cast = (
        torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
    )
    with cast:
        return network(x).float()


def batches():
    while True:
        order = torch.randperm(len(x))
        for start in range(0, len(x), BATCH):
            rows = order[start : start + BATCH]
            yield x[rows], labels[rows]


stream = batches()


def train(steps):
    loss_sum = correct = 0
    for _ in range(steps):
        x, labels = next(stream)
        logits = forward(x)
        loss = functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss_sum += loss.item() * len(labels)
        correct += (logits.argmax(1) == labels).sum().item()


@torch.no_grad()
def evaluate():
    loss_sum = correct = 0
    for x, labels in zip(x_test.split(250), labels_test.split(250)):
        logits = forward(x)
        loss_sum += functional.cross_entropy(logits, labels, reduction="sum").item()
        correct += (logits.argmax(1) == labels).sum().item()


serve(train, evaluate)
