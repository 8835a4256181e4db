"""The official weights files that this project can read, and where they are published.

Two kinds of plug-ins use them: models, whose file is the original to be unlearned, and feature
networks, which evaluators measure with. By using a file you accept its licence.
"""

import dataclasses

META = "https://dl.fbaipublicfiles.com/mae"
DRIVE = "https://drive.google.com/file/d/"  # of the authors of MAGE and of L2L
HUGGING_FACE = "https://huggingface.co/laion"

PLAIN = "whole model, plain pixels"
NORMALISED = "whole model, normalised pixels: cannot complete images"


@dataclasses.dataclass(frozen=True)
class PublishedFile:
    """One official file."""

    model_or_network: str  # the plug-in that reads it: a name in models/ or feature_networks/
    description: str  # what the file holds or is for
    url: str
    licence: str
    size: str = ""  # of the download, e.g. "96 MB"; "" if unknown
    sha256: str = ""  # the first known digits of its SHA-256; "" if unknown

    @property
    def needs_browser(self) -> bool:
        """Whether the file can only be downloaded by hand."""
        return self.url.startswith(DRIVE)


MAE_FILES = {  # {file name: description}; the second word of a name is its folder at META
    "mae_visualize_vit_base.pth": f"{PLAIN}: completes images",
    "mae_visualize_vit_large.pth": PLAIN,
    "mae_visualize_vit_large_ganloss.pth": f"{PLAIN}, GAN loss",
    "mae_visualize_vit_huge.pth": PLAIN,
    "mae_pretrain_vit_base_full.pth": NORMALISED,
    "mae_pretrain_vit_large_full.pth": NORMALISED,
    "mae_pretrain_vit_huge_full.pth": NORMALISED,
}
MODEL_FILES = {  # {file name: PublishedFile}
    **{
        name: PublishedFile("mae", text, f"{META}/{name.split('_')[1]}/{name}", "CC-BY-NC 4.0")
        for name, text in MAE_FILES.items()
    },
    "mage-vitb-1600.pth": PublishedFile(
        "mage", "ViT-B and its tokenizer",
        f"{DRIVE}1Q6tbt3vF0bSrv5sPrjpFu8ksG3vTsVX2/view", "see its repository",
    ),
    "mage-vitl-1600.pth": PublishedFile(
        "mage", "ViT-L and its tokenizer",
        f"{DRIVE}15xBPa8EIa0IRUiRYtXiYOC9JZVyMIFrB/view", "see its repository",
    ),
    "vqgan_jax_strongaug.ckpt": PublishedFile(
        "vqgan", "the tokenizer of MAGE alone",
        f"{DRIVE}13S_unB87n6KKuuMdyMnyExW0G1kplTbP/view", "see mage",
    ),
    "16_Network.pth": PublishedFile(
        "diffusion", "Palette, trained on Places2",
        f"{DRIVE}1lxkcyMc6-VUDvNnOg3krryLoGMpBChuM/view", "see its repository",
    ),
}  # fmt: skip

NETWORK_FILES = {  # {file name: PublishedFile}
    "pt_inception-2015-12-05-6726825d.pth": PublishedFile(
        "inception", "Inception of FID, for the evaluators fid, kid and is",
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
        "pt_inception-2015-12-05-6726825d.pth",
        "Apache-2.0", "96 MB", "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    ),
    "inception_v3_google-0cc3c7bd.pth": PublishedFile(
        "inception", "Inception of torchvision, for is_released",
        "https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth",
        "BSD-3-Clause", "109 MB", "0cc3c7bd",
    ),
    "CLIP-ViT-H-14-laion2B-s32B-b79K.bin": PublishedFile(
        "clip", "ViT-H/14, the embedding that the papers use",
        f"{HUGGING_FACE}/CLIP-ViT-H-14-laion2B-s32B-b79K/resolve/main/open_clip_pytorch_model.bin",
        "MIT", "3.9 GB", "9a78ef8e8c73fd0df621682e7a8e8eb36c6916cb3c16b291a082ecd52ab79cc4",
    ),
    "CLIP-ViT-B-32-laion2B-s34B-b79K.bin": PublishedFile(
        "clip", "ViT-B/32, for small machines",
        f"{HUGGING_FACE}/CLIP-ViT-B-32-laion2B-s34B-b79K/resolve/main/open_clip_pytorch_model.bin",
        "MIT", "605 MB",
    ),
    "resnet50_places365.pth.tar": PublishedFile(
        "places", "ResNet-50 trained on Places365, for the Inception Score of scenes",
        "http://places2.csail.mit.edu/models_places365/resnet50_places365.pth.tar",
        "CC BY", "97 MB",
    ),
}  # fmt: skip

FILES = MODEL_FILES | NETWORK_FILES
