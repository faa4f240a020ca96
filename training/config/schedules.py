"""Settings of schedules: how a learning rate may run over a training."""

from typing import Literal

LearningRateSchedule = Literal["constant", "cosine", "step"]
