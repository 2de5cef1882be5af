"""From texts to logits: a tokenizer and one onnxruntime session.

A session computes on the thread that calls it. A tiny model predicts one text in a fraction of a
millisecond, less than it takes to wake other threads. Many texts are cut into batches, which several
threads compute side by side. These threads end with the call, so a process may be forked after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime

from tinylm.system.cores import cores
from tinylm.text.tokenizer import Tokenizer

MOST, FEWEST = 64, 8  # texts in a batch, where there are that many


class Engine:
    """Members that share a vocabulary, ready to compute.

    Args:
        model: an ONNX file, or the same in memory; see `model/graph.py` for inputs and outputs.
        tokenizer: of the members.
        max_tokens: of the longest member.
        arrays: weights that `model` leaves out, by name.
        folder: holds the files with further weights.
    """

    def __init__(
        self,
        model: Path | bytes,
        tokenizer: Tokenizer,
        max_tokens: int,
        arrays: Mapping[str, np.ndarray] | None = None,
        folder: Path | None = None,
    ) -> None:
        self._tokenizer, self._max_tokens = tokenizer, max_tokens
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        if arrays:
            values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in arrays.values()]
            options.add_external_initializers(list(arrays), values)
        if folder is not None:
            options.add_session_config_entry(
                "session.model_external_initializers_file_folder_path", str(folder)
            )
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._shape = self._session.get_outputs()[1].shape

    def member_logits(self, texts: Sequence[str]) -> np.ndarray:
        """Each member's logits, `float32 [members, texts, labels]`."""
        encoded = self._tokenizer.encode(texts, self._max_tokens)
        # Texts of similar length share a batch, so that it holds little padding. Equally long ones are
        # sorted too: the same texts give the same batches, hence the same bits, in whatever order.
        rows = [encoded[row].tobytes() for row in range(len(encoded))]
        order = np.array(sorted(range(len(rows)), key=lambda row: (len(rows[row]), rows[row])), np.int64)
        threads = cores()
        size = min(MOST, max(FEWEST, -(-len(order) // threads)))
        batches = [order[start : start + size] for start in range(0, len(order), size)]

        def compute(rows: np.ndarray) -> np.ndarray:
            batch = encoded.take(rows)
            lengths = batch.lengths
            mask = np.arange(lengths.max()) < lengths[:, None]
            ids = np.zeros(mask.shape, np.int64)
            ids[mask] = batch.ids
            feed = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
            logits: np.ndarray = self._session.run(["member_logits"], feed)[0]
            return logits

        if len(batches) <= 1 or threads == 1:
            found = [compute(rows) for rows in batches]
        else:
            with ThreadPoolExecutor(min(threads, len(batches))) as pool:
                found = list(pool.map(compute, batches))
        if not found:
            return np.zeros((self._shape[0], 0, self._shape[2]), np.float32)
        out = np.empty_like(found[0], shape=(found[0].shape[0], len(order), found[0].shape[2]))
        out[:, order] = np.concatenate(found, axis=1)
        return out
