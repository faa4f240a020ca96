"""Scores of architectures as JSON objects, for caches and for the output of commands."""

from typing import Any

from fedpareto.fitness.score import Scores


def costs_and_fitness(scores: Scores, index: int) -> dict[str, Any]:
    """Return costs, fitness and ρ of one of N scored architectures."""
    return {
        "macs": int(scores.macs[index]),
        "params": int(scores.params[index]),
        "activation_bytes": int(scores.activation_bytes[index]),
        "fitness": float(scores.fitness[index]),
        "rho": float(scores.rho[index]),
    }


def all_terms(scores: Scores, index: int) -> dict[str, Any]:
    """Return costs, fitness and every term of it for one of N scored architectures."""
    return {
        **costs_and_fitness(scores, index),
        "feasible": bool(scores.feasible[index]),
        "depth_regularity": float(scores.depth_regularity[index]),
        "width_violation": float(scores.width_violation[index]),
        "blocks": int(scores.blocks[index]),
        "entropy": [float(value) for value in scores.entropy[:, index]],
    }
