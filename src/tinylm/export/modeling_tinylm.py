"""A BERT whose classifier reads a mean over all tokens, for `transformers`.

`tinylm export --to huggingface` copies this file beside the weights of such a model. It needs
`transformers` alone:

    AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, BertPreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class TinylmConfig(BertConfig):
    """BERT's configuration under a name of its own, so that nothing takes the model for a plain BERT."""

    model_type = "tinylm"


class TinylmForSequenceClassification(BertPreTrainedModel):
    """Encoder, mean over the tokens that are not padding, tanh pooler, linear layer to the labels.

    With the pooling "attended" the mean is taken behind the last block's attention, before its feed-forward.
    """

    config_class = TinylmConfig

    def __init__(self, config: TinylmConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config)  # its pooler reads the mean here
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)  # type: ignore[arg-type]
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **_: Any,
    ) -> SequenceClassifierOutput:
        """Logits `[texts, labels]` of `input_ids [texts, tokens]`, and with `labels` the cross-entropy."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        last: Any = self.bert.encoder.layer[-1]
        attended: list[Tensor] = []
        seen = last.attention.register_forward_hook(lambda module, given, out: attended.append(out[0]))
        hidden = self.bert(input_ids, attention_mask, token_type_ids).last_hidden_state
        seen.remove()
        early = self.config.tinylm["pooling"] == "attended"
        real = attention_mask[..., None].to(hidden.dtype)
        mean = ((attended[0] if early else hidden) * real).sum(1) / real.sum(1)
        if early:
            mean = last.output(last.intermediate(mean), mean)
        logits = self.classifier(torch.tanh(self.bert.pooler.dense(mean)))  # type: ignore[union-attr]
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)
