"""Shaped noise in diffusers: schedulers with a spectrum, a pipeline, and any pipeline of others for a while.

Three places need shaped noise: the noise of training, the start of sampling, and what stochastic steps inject (App. D.4
of Scimeca et al., arXiv 2510.09660). The first is the caller's (`Spectrum.sample` in place of ``torch.randn``;
``add_noise`` and the target stay as they are); the other two are here. With isotropic noise all is as in diffusers.
"""

from sagd.errors import needs

with needs("diffusers"):
    import diffusers

from sagd.diffusers.pipeline import SAGDPipeline, SAGDTransformer2DModel
from sagd.diffusers.schedulers import (
    Shaped,
    ShapedDDIMScheduler,
    ShapedDDPMScheduler,
    ShapedDPMSolverMultistepScheduler,
    ShapedEDMEulerScheduler,
    ShapedEulerAncestralDiscreteScheduler,
    ShapedEulerDiscreteScheduler,
    ShapedFlowMatchEulerDiscreteScheduler,
)
from sagd.diffusers.shaping import colored, shaped

__all__ = [
    "SAGDPipeline",
    "SAGDTransformer2DModel",
    "Shaped",
    "ShapedDDIMScheduler",
    "ShapedDDPMScheduler",
    "ShapedDPMSolverMultistepScheduler",
    "ShapedEDMEulerScheduler",
    "ShapedEulerAncestralDiscreteScheduler",
    "ShapedEulerDiscreteScheduler",
    "ShapedFlowMatchEulerDiscreteScheduler",
    "colored",
    "shaped",
]

# `DiffusionPipeline.from_pretrained` looks for the class of a saved folder among diffusers' own.
diffusers.SAGDPipeline = SAGDPipeline
