"""Small pictures of unfinished latents, by a linear map that is fitted to the model's VAE.

Other programs carry a table of such maps, one a model. Here the map is the least-squares
fit between the latents and the colours of one synthetic picture: any VAE, no table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from masuka.families.parts import vae

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

LARGEST_SIDE_PX = 256
_FITTED_ON_PX = 256


class Preview:
    """Turns latents into colours; fitted at first use, at the cost of one encoding."""

    def __init__(self, autoencoder: Any) -> None:
        self._autoencoder = autoencoder
        self._map: Tensor | None = None

    def picture(self, latents: Tensor) -> Image.Image:
        """The first of the latents (B, C, h, w) as a picture with sides ≤ 256 px."""
        import torch
        from PIL import Image

        if self._map is None:
            self._map = fit(self._autoencoder)
        first = latents[0].float().cpu()
        channels, height, width = first.shape
        with_one = torch.cat([first.reshape(channels, -1), torch.ones(1, height * width)])
        colours = (self._map @ with_one).reshape(3, height, width).clamp(0, 1)
        pixels = (colours * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
        picture = Image.frombytes("RGB", (width, height), pixels.numpy().tobytes())
        times = max(1, LARGEST_SIDE_PX // max(width, height))
        return picture.resize((width * times, height * times), Image.Resampling.BICUBIC)


def fit(autoencoder: Any) -> Tensor:
    """The matrix (3, C + 1) from latents and a constant to colours in [0, 1]."""
    import torch

    pixels = _colour_fields()
    with torch.no_grad():
        latents = vae.of_pictures(vae.distribution(autoencoder, pixels * 2 - 1).mode())
    count, channels, height, width = latents.shape
    seen = torch.nn.functional.adaptive_avg_pool2d(pixels, (height, width))
    inputs = latents.permute(0, 2, 3, 1).reshape(-1, channels)
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], 1)
    colours = seen.permute(0, 2, 3, 1).reshape(count * height * width, 3)
    # A little ridge keeps channels that carry no colour from getting wild factors.
    square = inputs.T @ inputs + 1e-3 * len(inputs) * torch.eye(channels + 1)
    fitted: Tensor = torch.linalg.solve(square, inputs.T @ colours)
    return fitted.T.contiguous()


def _colour_fields() -> Tensor:
    """Two pictures (2, 3, H, W) in [0, 1] of smooth coloured patches of many sizes."""
    import torch

    generator = torch.Generator("cpu").manual_seed(0)
    total = torch.zeros(2, 3, _FITTED_ON_PX, _FITTED_ON_PX)
    for cells in (2, 4, 8, 16):
        patches = torch.rand(2, 3, cells, cells, generator=generator)
        total += torch.nn.functional.interpolate(patches, (_FITTED_ON_PX, _FITTED_ON_PX), mode="bicubic")
    return ((total / 4 - 0.5) * 2 + 0.5).clamp(0, 1)
