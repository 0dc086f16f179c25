"""Networks of the embedders, in plain torch: pictures [b, c, s, s] in, vectors out. Parameters are named as in the
published implementations (DINO's and timm's ViT, torchvision's ResNet), so that published weights fit by name.
"""

from profiling.embedders.networks.build import NetworkConfig, build_encoder
from profiling.embedders.networks.vit import VisionTransformer, VitConfig

__all__ = ["NetworkConfig", "VisionTransformer", "VitConfig", "build_encoder"]
