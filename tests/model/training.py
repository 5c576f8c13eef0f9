"""What every family must do once a LoRA is attached."""

import numpy as np
import torch

from unite_core import UniteEmbedder


def check_training(embedder, items, before, folder):
    """Three steps bring two items nearer; merging, saving and loading keep their vectors.

    Args: before  vectors of the items without the LoRA
    """
    batch = embedder.processor.collate([embedder.processor.encode(item) for item in items])
    weights = [weight for weight in embedder.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=0.1)
    losses = []
    for _ in range(3):
        first, second = embedder(**batch)
        losses.append(1 - first @ second)
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    trained = embedder.embed(items, progress=False)
    assert np.abs(trained - before).max() > 1e-4
    embedder.merge_lora()
    np.testing.assert_allclose(embedder.embed(items, progress=False), trained, atol=1e-5)
    embedder.save(folder)
    again = UniteEmbedder.load(folder)
    np.testing.assert_allclose(again.embed(items, progress=False), trained, atol=1e-5)
