"""What tests ask of a picture: that it can be drawn without a warning, and what stands in it."""

import io
import warnings

import matplotlib.text


def png(figure):
    """The picture as a small PNG, of more than an empty one's size."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(buffer, format="png", dpi=40)
    assert len(buffer.getvalue()) > 1000
    return buffer.getvalue()


def words_in(figure):
    """Its texts, one by one."""
    return [t.get_text() for t in figure.findobj(matplotlib.text.Text)]


def text_in(figure):
    """Its texts as one line."""
    return " ".join(" ".join(words.split()) for words in words_in(figure))
