"""One small network of each family of timm that is trained, saved, loaded and exported in the tests."""

FAMILIES = {
    "ResNet": "resnet10t",
    "ResNeSt": "resnest14d",
    "RegNet": "regnetx_002",
    "NF-RegNet": "nf_regnet_b0",
    "DenseNet": "densenet121",
    "CSPNet": "cs3darknet_focus_s",
    "HGNetV2": "hgnetv2_b0",
    "RepVGG": "repvgg_a0",
    "EfficientNet": "tf_efficientnet_lite0",
    "MobileNetV3": "mobilenetv3_small_050",
    "MobileNetV4": "mobilenetv4_conv_small_050",
    "GhostNet": "ghostnet_050",
    "MobileOne": "mobileone_s0",
    "RepViT": "repvit_m0_9",
    "FastViT": "fastvit_t8",
    "StarNet": "starnet_s050",
    "ConvNeXt": "convnext_atto",
    "MambaOut": "mambaout_femto",
    "EdgeNeXt": "edgenext_xx_small",
    "MobileViT": "mobilevit_xxs",
    "EfficientViT": "efficientvit_b0",
    "PVTv2": "pvt_v2_b0",
    "XCiT": "xcit_nano_12_p16_224",
    "ViT": "vit_tiny_patch16_224",
    "EVA-02": "eva02_tiny_patch14_224",
    "Swin": "swin_tiny_patch4_window7_224",
    "MaxViT": "maxvit_rmlp_pico_rw_256",
    "MLP-Mixer": "mixer_s32_224",
}
# Patches of 14 pixels.
SIDES = {"eva02_tiny_patch14_224": 56}
SIDE = 64


def side_of(network: str) -> int:
    return SIDES.get(network, SIDE)


def trained(network: str, out):
    """Ten steps of BYOL with a guide, sources first, on photos of the side."""
    import numpy as np

    import stopgrad
    from stopgrad.data.sources import ArraySource

    pixels = np.random.default_rng(0).integers(0, 256, (16, 80, 80, 3), dtype=np.uint8)
    return stopgrad.pretrain(
        ArraySource(pixels), out=out, recipe="photos_small", backbone=network, stem="standard", steps=10,
        image_size=side_of(network), early_size=0, batch_size=8, projector_width=16, projection_dim=16,
        predictor_width=8, lr=0.01, knn_k=2, baselines=False, report=False, precision="fp32",
    )  # fmt: skip
