"""Write one of scikit-learn's digit images as a PNG, for trying out `kclassify predict`."""

import sys

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

if __name__ == "__main__":
    image = load_digits().images[0]
    Image.fromarray((image * 255 / 16).round().astype(np.uint8)).save(sys.argv[1])
    print(f"wrote a handwritten 0 to {sys.argv[1]}")
