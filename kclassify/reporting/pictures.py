"""Small images for a page that stands by itself."""

import base64
import io

import numpy as np
from PIL import Image

MOST_SIDE = 256


def data_uri(image: np.ndarray) -> str:
    """Return an image as a PNG within an address, no larger than is looked at.

    Args:
        image: uint8 ``(height, width, channels)``, with 1 or 3 channels.

    Example:
        >>> import numpy as np
        >>> from kclassify.reporting.pictures import data_uri
        >>> data_uri(np.zeros((8, 8, 3), "uint8"))[:22]
        'data:image/png;base64,'
    """
    picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    picture.thumbnail((MOST_SIDE, MOST_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
