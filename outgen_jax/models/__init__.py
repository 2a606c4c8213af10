"""Networks: images [B, H, W, C] float32 in [0, 1] -> logits [B, K], and adapters for those of other frameworks.

The method `activations` of the classifiers returns the logits and the pre-activations by layer.

`draw`, `mlp_gan` and `dcgan` each have a generator and a discriminator. `feature_networks` has the networks whose
features the scores use.
"""

from outgen_jax.models import attention as attention
from outgen_jax.models import conv as conv
from outgen_jax.models import dcgan as dcgan
from outgen_jax.models import draw as draw
from outgen_jax.models import feature_networks as feature_networks
from outgen_jax.models import mlp_gan as mlp_gan
from outgen_jax.models import pretrained as pretrained
from outgen_jax.models.adapters import from_equinox as from_equinox
from outgen_jax.models.adapters import from_haiku as from_haiku
from outgen_jax.models.adapters import from_linen as from_linen
from outgen_jax.models.adapters import from_nnx as from_nnx
from outgen_jax.models.efficientnet_lite import EfficientNetLite0 as EfficientNetLite0
from outgen_jax.models.efficientnet_lite import EfficientNetLite1 as EfficientNetLite1
from outgen_jax.models.efficientnet_lite import EfficientNetLite2 as EfficientNetLite2
from outgen_jax.models.inception import InceptionV3 as InceptionV3
from outgen_jax.models.keras_models import from_keras as from_keras
from outgen_jax.models.lenet import LeNet as LeNet
from outgen_jax.models.vgg import VGG16 as VGG16
from outgen_jax.models.whitened_cnn import WhitenedCNN as WhitenedCNN
