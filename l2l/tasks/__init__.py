"""Tasks: data, loss and metric."""

from __future__ import annotations

from typing import TYPE_CHECKING

from l2l.lazy import make_lazy_names

if TYPE_CHECKING:
    from l2l.tasks.adult import Adult as Adult
    from l2l.tasks.digits import Digits as Digits
    from l2l.tasks.idx_images import FashionMnist as FashionMnist
    from l2l.tasks.idx_images import IdxImages as IdxImages
    from l2l.tasks.labelled_text import LabelledText as LabelledText
    from l2l.tasks.tabular import Lookup as Lookup
    from l2l.tasks.text import Text as Text
    from l2l.tasks.text import TinyShakespeare as TinyShakespeare

__getattr__, __all__ = make_lazy_names(
    __name__,
    {
        "Digits": "l2l.tasks.digits",
        "Adult": "l2l.tasks.adult",
        "FashionMnist": "l2l.tasks.idx_images",
        "IdxImages": "l2l.tasks.idx_images",
        "LabelledText": "l2l.tasks.labelled_text",
        "Text": "l2l.tasks.text",
        "TinyShakespeare": "l2l.tasks.text",
        "Lookup": "l2l.tasks.tabular",
    },
)
