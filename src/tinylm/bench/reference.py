"""The authors' way, written with `transformers`: what ours is measured against.

Texts are padded to 128 tokens, logits are formed at every position, AdamW is
PyTorch's. Batches and masked tokens are drawn as in `tinylm.train`, so that both sides
learn from the same ones.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from tinylm.model.config import Convolution, ModelConfig
from tinylm.ops.autograd import IGNORED
from tinylm.ops.device import CPU
from tinylm.ops.packed import Batch, make_batch
from tinylm.text.store import TokenIds
from tinylm.text.tokenizer import Tokenizer
from tinylm.train.finetune import EncodedTask
from tinylm.train.masking import MASKS, Masking, epoch_batches, generator
from tinylm.train.recipes import PhaseConfig, Recipe

BATCH = 32


class ReferenceRun:
    """A `transformers` model being trained.

    Args:
        model: with a `loss` in its output.
        phase: learning rate and weight decay; the rate stays at its highest.
        steps_per_epoch: batches of one epoch.
        inputs: the padded batch of a step, counted from 0.
        device: where it is trained.
    """

    def __init__(
        self,
        model: Any,
        phase: PhaseConfig,
        steps_per_epoch: int,
        inputs: Callable[[int], dict[str, Tensor]],
        device: torch.device = CPU,
    ) -> None:
        self.model, self.steps_per_epoch, self.inputs = model.train().to(device), steps_per_epoch, inputs
        self.device, self.scaler = device, torch.amp.GradScaler("cuda", enabled=device.type == "cuda")
        rate, decay = phase.learning_rate, phase.weight_decay
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay)

    def step(self, number: int, *, autocast: bool = False) -> float:
        """Take the step of that number and return its loss.

        With `autocast`, products are in bf16 on a CPU; on a GPU in fp16, whose small range
        `GradScaler` makes up for.
        """
        self.optimizer.zero_grad()
        inputs = {name: tensor.to(self.device) for name, tensor in self.inputs(number).items()}
        half = torch.bfloat16 if self.device.type == "cpu" else torch.float16
        with torch.autocast(self.device.type, half, enabled=autocast):
            loss = self.model(**inputs).loss
        if autocast and self.scaler.is_enabled():
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            loss.backward()
            self.optimizer.step()
        return loss.item()


class ReferenceProcess:
    """A `ReferenceRun` in a process of its own.

    While ours train, the C library's allocator has other settings (`system/memory.py`). A process has
    one allocator, and the reference is to have the default settings.

    Args:
        make: makes the run; importable by name, as the other process must find it.
    """

    def __init__(self, make: Callable[[], ReferenceRun]) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, make, torch.get_num_threads()), daemon=True
        )
        self._process.start()

    def inputs(self, number: int) -> dict[str, Tensor]:
        """As of `ReferenceRun`."""
        return {name: torch.from_numpy(array) for name, array in self._request("inputs", number).items()}

    def step(self, number: int, *, autocast: bool = False) -> float:
        """As of `ReferenceRun`."""
        loss: float = self._request("step", number, autocast)
        return loss

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join()

    def _request(self, *request: Any) -> Any:
        self._connection.send(request)
        return self._connection.recv()


def _serve(connection: Connection, make: Callable[[], ReferenceRun], threads: int) -> None:
    torch.set_num_threads(threads)
    run = make()
    with contextlib.suppress(EOFError):  # the other side has closed
        while True:
            what, number, *rest = connection.recv()
            if what == "inputs":
                connection.send({name: tensor.numpy() for name, tensor in run.inputs(number).items()})
            else:
                connection.send(run.step(number, autocast=rest[0]))


def pretraining_reference(
    paragraphs: TokenIds,
    tokenizer: Tokenizer,
    config: ModelConfig,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device = CPU,
) -> ReferenceRun:
    """The counterpart of `tinylm.train.pretrain.pretraining_run`; arguments as there."""
    masking = Masking(tokenizer, recipe.mask_rate)
    batch_size = recipe.pretrain.batch_size
    steps_per_epoch = -(-len(paragraphs) // batch_size)

    def inputs(number: int) -> dict[str, Tensor]:
        epoch, step = divmod(number, steps_per_epoch)
        rows = epoch_batches(len(paragraphs), batch_size, seed, epoch)[step]
        batch, _ = make_batch(paragraphs, rows, config.max_tokens)
        masked = masking.draw(batch.ids, generator(seed, MASKS, number))
        labels = torch.full_like(batch.ids, IGNORED).index_copy(0, masked.positions, masked.targets)
        padded = pad(batch.with_ids(masked.ids), config.max_tokens)
        return padded | {"labels": _to_rows(batch, labels, config.max_tokens, IGNORED)}

    settings = bert_config(config, dropout=recipe.pretrain.dropout)
    model = with_front_end(transformers.BertForMaskedLM(settings), config.convolution)
    return ReferenceRun(model, recipe.pretrain, steps_per_epoch, inputs, device)


def finetuning_reference(
    task: EncodedTask, config: ModelConfig, recipe: Recipe, *, seed: int, device: torch.device = CPU
) -> ReferenceRun:
    """The counterpart of `tinylm.train.finetune.finetuning_run`; arguments as there."""
    batch_size = recipe.finetune.batch_size
    steps_per_epoch = -(-len(task.train) // batch_size)
    labels = torch.from_numpy(task.train_labels)

    def inputs(number: int) -> dict[str, Tensor]:
        epoch, step = divmod(number, steps_per_epoch)
        rows = epoch_batches(len(task.train), batch_size, seed, epoch)[step]
        batch, rows = make_batch(task.train, rows, config.max_tokens)
        return pad(batch, config.max_tokens) | {"labels": labels[rows]}

    settings = bert_config(config, dropout=recipe.finetune.dropout, num_labels=task.n_labels)
    model = with_front_end(transformers.BertForSequenceClassification(settings), config.convolution)
    return ReferenceRun(model, recipe.finetune, steps_per_epoch, inputs, device)


def bert_config(config: ModelConfig, *, dropout: float = 0.0, num_labels: int = 2) -> transformers.BertConfig:
    """The same architecture for `transformers`."""
    out = transformers.BertConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=4 * config.width,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        max_position_embeddings=config.max_tokens,
    )
    out.num_labels = num_labels
    return out


def with_front_end(model: Any, front: Convolution | None) -> Any:
    """Put plain convolutions between the embeddings and the encoder of a `transformers` BERT."""
    if front is None:
        return model
    channels = [1] + [front.channels] * front.layers
    sizes = [(a, b, front.kernel) for a, b in zip(channels, channels[1:], strict=False)]
    stages: list[nn.Module] = []
    for channels_in, channels_out, kernel in [*sizes, (front.channels, 1, (1, 1))]:
        stages.append(nn.Conv2d(channels_in, channels_out, kernel, padding="same"))
        stages += [nn.BatchNorm2d(channels_out), nn.GELU()]
    layers = nn.Sequential(*stages)
    embeddings = model.bert.embeddings
    embeddings.front_end = layers  # so that the optimizer finds its weights
    embeddings.register_forward_hook(lambda module, inputs, x: layers(x.unsqueeze(1)).squeeze(1))
    return model


def pad(batch: Batch, max_tokens: int) -> dict[str, Tensor]:
    """A packed batch as `transformers` takes it, every text padded to `max_tokens`."""
    ids = _to_rows(batch, batch.ids, max_tokens, 0)
    return {"input_ids": ids, "attention_mask": _to_rows(batch, torch.ones_like(batch.ids), max_tokens, 0)}


def _to_rows(batch: Batch, packed: Tensor, max_tokens: int, padding: int) -> Tensor:
    """`[tokens]` to `[texts, max_tokens]`."""
    rows = packed.new_full((len(batch), max_tokens), padding)
    rows[batch.text_of_token, batch.positions] = packed
    return rows


class ReferenceClassifier:
    """A `transformers` classifier with its tokenizer, in fp32, with random weights.

    Args:
        tokenizer: its vocabulary is used.
        config: the architecture.
        n_labels: number of logits.
    """

    def __init__(self, tokenizer: Tokenizer, config: ModelConfig, n_labels: int) -> None:
        self.model = transformers.BertForSequenceClassification(
            bert_config(config, num_labels=n_labels)
        ).eval()
        self.max_tokens = config.max_tokens
        with tempfile.TemporaryDirectory() as folder:
            tokenizer.save(Path(folder), config.max_tokens)
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def predict(self, texts: Sequence[str]) -> list[int]:
        """Number of each text's label: one text as it is, several padded to `max_tokens`."""
        padding = "max_length" if len(texts) > 1 else False
        labels = []
        for first in range(0, len(texts), BATCH):
            inputs = self.tokenizer(
                list(texts[first : first + BATCH]),
                padding=padding,
                truncation=True,
                max_length=self.max_tokens,
                return_tensors="pt",
            )
            with torch.inference_mode():
                labels.append(self.model(**inputs).logits.argmax(1).numpy())
        return np.concatenate(labels).tolist()
