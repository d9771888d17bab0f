"""Two small conditional VAEs after recipes that are public, to compare with: their layers, our data, loss and budget.

Both see the label as a one-hot vector and give z as a flat vector, here folded into the (B, 1, S/4, S/4) of the
other models.

"mlp" follows github.com/timbmg/VAE-CVAE-MNIST: one hidden layer of 256 with ReLU on either side, the one-hot label
joined to its input. There: 2 latents, summed cross-entropy plus KL, Adam at 0.001, batches of 128.
"label-channel" follows the ConditionalVAE of github.com/AntixK/PyTorch-VAE: a linear layer turns the one-hot label
into one more channel of the image; strided convolutions, batch normalization, leaky ReLU; label and z enter the
decoder through a linear layer. There: five halvings of 64 x 64 colour images with up to 512 channels, after a 1 x 1
convolution of the image; 128 latents; transposed convolutions of 3 x 3; tanh. Here two halvings, after a convolution at
full size; the channels of our models; transposed convolutions of 4 x 4; sigmoid.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvae_support.config import Config

HIDDEN = 256  # of the MLP


class OneHot(nn.Module):
    """y (B,) -> (B, num_classes)."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.num_classes = num_classes

    def forward(self, y: Tensor) -> Tensor:
        return F.one_hot(y.long(), self.num_classes).float()


class MLPEncoder(nn.Module):
    """Image and label in one flat vector, one hidden layer: x (B, 1, S, S), y (B,) -> mu, log_var (B, 1, S/4, S/4)."""

    def __init__(self, config: Config):
        super().__init__()
        self.one_hot = OneHot(config.num_classes)
        self.side = config.latent_size
        self.net = nn.Sequential(
            nn.Linear(config.image_size**2 + config.num_classes, HIDDEN), nn.ReLU(),
            nn.Linear(HIDDEN, 2 * self.side**2),
        )  # fmt: skip

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        out = self.net(torch.cat([x.flatten(1), self.one_hot(y)], dim=1))
        mu, log_var = out.view(len(x), 2, self.side, self.side).chunk(2, dim=1)
        return mu, log_var


class MLPDecoder(nn.Module):
    """Code and label in one flat vector, one hidden layer.

    z (B, 1, S/4, S/4), one-hot label (B, num_classes) -> (B, 1, S, S)
    """

    def __init__(self, config: Config):
        super().__init__()
        self.embed = OneHot(config.num_classes)
        self.side = config.image_size
        self.net = nn.Sequential(
            nn.Linear(config.latent_size**2 + config.num_classes, HIDDEN), nn.ReLU(),
            nn.Linear(HIDDEN, self.side**2), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, z: Tensor, cond: Tensor) -> Tensor:
        return self.net(torch.cat([z.flatten(1), cond], dim=1)).view(-1, 1, self.side, self.side)


class LabelChannelEncoder(nn.Module):
    """The label, spread by a linear layer to a picture, is the image's second channel; strided convolutions.

    x (B, 1, S, S), y (B,) -> mu, log_var (B, 1, S/4, S/4)
    """

    def __init__(self, config: Config):
        super().__init__()
        self.one_hot = OneHot(config.num_classes)
        self.image_size, self.side = config.image_size, config.latent_size
        narrow, middle, wide = config.channels
        self.label_picture = nn.Linear(config.num_classes, self.image_size**2)
        self.net = nn.Sequential(
            nn.Conv2d(2, narrow, 3, padding=1), nn.BatchNorm2d(narrow), nn.LeakyReLU(),
            nn.Conv2d(narrow, middle, 3, stride=2, padding=1), nn.BatchNorm2d(middle), nn.LeakyReLU(),
            nn.Conv2d(middle, wide, 3, stride=2, padding=1), nn.BatchNorm2d(wide), nn.LeakyReLU(),
            nn.Flatten(),
            nn.Linear(wide * self.side**2, 2 * self.side**2),
        )  # fmt: skip

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        picture = self.label_picture(self.one_hot(y)).view(-1, 1, self.image_size, self.image_size)
        out = self.net(torch.cat([x, picture], dim=1))
        mu, log_var = out.view(len(x), 2, self.side, self.side).chunk(2, dim=1)
        return mu, log_var


class LabelChannelDecoder(nn.Module):
    """Code and label through a linear layer, then transposed convolutions.

    z (B, 1, S/4, S/4), one-hot label (B, num_classes) -> (B, 1, S, S)
    """

    def __init__(self, config: Config):
        super().__init__()
        self.embed = OneHot(config.num_classes)
        side = config.latent_size
        narrow, middle, wide = config.channels
        self.net = nn.Sequential(
            nn.Linear(side**2 + config.num_classes, wide * side**2),
            nn.Unflatten(1, (wide, side, side)),
            nn.ConvTranspose2d(wide, middle, 4, stride=2, padding=1), nn.BatchNorm2d(middle), nn.LeakyReLU(),
            nn.ConvTranspose2d(middle, narrow, 4, stride=2, padding=1), nn.BatchNorm2d(narrow), nn.LeakyReLU(),
            nn.Conv2d(narrow, 1, 3, padding=1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, z: Tensor, cond: Tensor) -> Tensor:
        return self.net(torch.cat([z.flatten(1), cond], dim=1))


PEERS: dict[str, Any] = {"mlp": (MLPEncoder, MLPDecoder), "label-channel": (LabelChannelEncoder, LabelChannelDecoder)}
