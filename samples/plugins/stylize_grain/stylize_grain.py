"""Fine detail of the photo held by a loss term, and film grain laid over the result."""

import dataclasses

import click
import torch
import torch.nn.functional as F

from stylize import Term, hookimpl

KERNEL = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]).view(1, 1, 3, 3)


@hookimpl
def stylize_options(command):
    share = click.FloatRange(0, 1)
    command.params += [
        click.Option(["--grain"], type=share, default=0.0, help="Film grain over the result, 0 to 1."),
        click.Option(["--detail"], type=click.FloatRange(0), default=0.0, help="Weight of the photo's fine detail."),
    ]


@hookimpl
def stylize_terms(frame, options):
    """The Laplacian term of Li, Xu, Nie, Chua 2017, "Laplacian-Steered Neural Style Transfer", eq. 5."""
    if not options["detail"]:
        return []

    def distance(image, features):  # (1, 3, H, W) at the scale in work
        photo = F.interpolate(frame.image.rgb, image.shape[2:], mode="bilinear", antialias=True).to(image.device)
        wanted = edges(photo)
        return (edges(image) - wanted).square().mean() / wanted.square().mean().clamp_min(1e-6)

    return [Term("detail", options["detail"], distance)]


def edges(image):
    return F.conv2d(image.mean(1, keepdim=True), KERNEL.to(image.device))


@hookimpl
def stylize_finish(image, settings, options):
    if not options["grain"]:
        return None
    noise = torch.randn(image.rgb[:, :1].shape, generator=torch.Generator().manual_seed(settings.seed))
    return dataclasses.replace(image, rgb=(image.rgb + 0.2 * options["grain"] * noise).clamp(0, 1))
