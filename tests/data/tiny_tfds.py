"""A tensorflow-datasets builder small enough to prepare in a test, without TensorFlow."""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image


class TinyStripes(tfds.core.GeneratorBasedBuilder):
    """Three classes of 8x8 images, one bright row each."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {"image": tfds.features.Image(shape=(8, 8, 3)), "label": tfds.features.ClassLabel(names=["x", "y", "z"])}
            ),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(12), "test": self._generate_examples(6)}

    def _generate_examples(self, count):
        for i in range(count):
            x = np.full((8, 8, 3), i, np.uint8)
            x[2 * (i % 3)] = 255
            png = io.BytesIO()
            Image.fromarray(x).save(png, "png")
            yield i, {"image": png.getvalue(), "label": i % 3}
