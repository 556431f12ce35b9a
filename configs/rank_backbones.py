"""Of the networks at hand, which should be tuned for these images? Ranked before any tuning, with what each costs to tune.

    python -m ncjax.main --config=configs/rank_backbones.py:data=folder:photos
    python -m ncjax.main
    --config=configs/rank_backbones.py:data=folder:photos,backbones=[torchvision:resnet18,hf:OWNER/NAME]

Without backbones, those in weights/ and what the caches of torchvision and Hugging Face hold. Features are extracted once a
network: seconds to minutes each. The rule that ranks is the score that lost least in `configs/paper/scores.py`.
"""

from ncjax import config


def get_config(arg=""):
    return config.make(
        "rank_backbones",
        arg,
        data="embedded.digits",
        train_images=1000,
        val_images=500,
        test_images=200,
        smoke=dict(
            backbones=["runs/pretrain_smoke", "runs/pretrain_smoke/checkpoints"],
            train_images=60,
            val_images=20,
            test_images=40,
        ),
    )
