"""Targets drawn from a model's own likelihood, for the Fisher matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from lowland.core import Classification, LanguageModeling, Regression, Task
from lowland.core.language import next_tokens
from lowland.errors import ConfigError


@torch.no_grad()
def sample_targets(
    task: Task, output: Tensor, target: Tensor, *, generator: torch.Generator
) -> Tensor:
    """Targets \\(y \\sim p(y | f)\\) in the form of `target`; items that do not count stay as they
    are.

    Raises:
        ConfigError: a task whose likelihood nobody can draw from.

    >>> generator = torch.Generator().manual_seed(0)
    >>> sure = torch.tensor([[0.0, 100.0], [100.0, 0.0]])
    >>> sample_targets(Classification(), sure, torch.tensor([0, -100]), generator=generator)
    tensor([   1, -100])
    """
    if isinstance(task, Regression):
        mean, variance = task.moments(output)
        noise = torch.randn(mean.shape, generator=generator, dtype=torch.float64)
        return mean + variance.sqrt() * noise.to(mean)
    if isinstance(task, LanguageModeling):
        tokens = _categorical(task.log_probs(output), generator)
        samples = target.clone()
        samples[:, 1:] = tokens.reshape(len(target), -1).to(target)
        samples[:, 1:][(next_tokens(target) == task.ignore_index).reshape(len(target), -1)] = (
            task.ignore_index
        )
        return samples
    if isinstance(task, Classification):
        if task.form_of(output, target) == "multiclass":
            log_probs = task.log_probs(output).movedim(1, -1)  # (N, ..., C)
            labels = _categorical(log_probs.flatten(0, -2), generator).reshape(target.shape)
            samples = labels.to(target)
            valid = task.valid(target)
            return samples if valid is None else samples.where(valid.reshape(target.shape), target)
        uniform = torch.rand(output.shape, generator=generator, dtype=torch.float64)
        labels = uniform.to(output.device) < output.sigmoid()
        return labels.reshape(target.shape).to(target)
    raise ConfigError(
        f"kind='fisher' draws targets from the likelihood, which {type(task).__name__} cannot; "
        "take kind='empirical_fisher' or 'ggn'."
    )


def _categorical(log_probs: Tensor, generator: torch.Generator) -> Tensor:  # (n, C) -> (n,)
    """By the largest of log p + Gumbel noise, which is drawn on the CPU: the same on any device."""
    uniform = torch.rand(log_probs.shape, generator=generator, dtype=torch.float64)
    gumbel = -(-uniform.clamp_min(1e-300).log()).log()
    return (log_probs.double() + gumbel.to(log_probs.device)).argmax(1)
