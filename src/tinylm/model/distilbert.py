"""DistilBERT read as a BERT-n: the same blocks under other names.

DistilBERT (the paper's model for all of Wikipedia) is a BERT-6 without token types and without
pooler, and its parameters have other names. With BERT's names, and zeros for the token type, it
computes the same as a BERT-6.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from tinylm.model.weights import Weight

# DistilBERT's name -> BERT's.
NAMES = {
    r"^distilbert\.embeddings\.": "bert.embeddings.",
    r"^distilbert\.transformer\.layer\.": "bert.encoder.layer.",
    r"\.attention\.q_lin\.": ".attention.self.query.",
    r"\.attention\.k_lin\.": ".attention.self.key.",
    r"\.attention\.v_lin\.": ".attention.self.value.",
    r"\.attention\.out_lin\.": ".attention.output.dense.",
    r"\.sa_layer_norm\.": ".attention.output.LayerNorm.",
    r"\.ffn\.lin1\.": ".intermediate.dense.",
    r"\.ffn\.lin2\.": ".output.dense.",
    r"\.output_layer_norm\.": ".output.LayerNorm.",
    r"^vocab_transform\.": "cls.predictions.transform.dense.",
    r"^vocab_layer_norm\.": "cls.predictions.transform.LayerNorm.",
    r"^vocab_projector\.": "cls.predictions.",
}
MODEL_TYPE = "distilbert"


def is_distilbert(raw: dict[str, Any]) -> bool:
    """Whether a `config.json` is DistilBERT's."""
    return raw.get("model_type") == MODEL_TYPE


def bert_config(raw: dict[str, Any]) -> dict[str, Any]:
    """DistilBERT's `config.json` with BERT's keys.

    Raises:
        KeyError: a setting is not there.
    """
    return {
        "model_type": "bert",
        "hidden_act": raw["activation"],
        "layer_norm_eps": 1e-12,  # fixed in DistilBERT
        "hidden_size": raw["dim"],
        "num_attention_heads": raw["n_heads"],
        "intermediate_size": raw["hidden_dim"],
        "num_hidden_layers": raw["n_layers"],
        "vocab_size": raw["vocab_size"],
        "max_position_embeddings": raw["max_position_embeddings"],
        "hidden_dropout_prob": raw["dropout"],
        "initializer_range": raw["initializer_range"],
    }


def bert_weights(weights: Mapping[str, Weight]) -> dict[str, Weight]:
    """DistilBERT's weights under BERT's names, with a token type of zeros."""
    out = {}
    for name, weight in weights.items():
        renamed = name
        for theirs, berts in NAMES.items():
            renamed = re.sub(theirs, berts, renamed)
        out[renamed] = weight
    words = out["bert.embeddings.word_embeddings.weight"]
    zeros = np.zeros((2, words.data.shape[1]), np.float32)
    return out | {"bert.embeddings.token_type_embeddings.weight": Weight(zeros)}
