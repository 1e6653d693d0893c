"""What this version does not do yet: one list, one wording."""

from __future__ import annotations

from typing import Any


def require_in_scope(**options: Any) -> None:
    """Raise NotImplementedError if an option asks for what a later version brings."""
    defaults: dict[str, tuple[Any, ...]] = {
        "num_layers": (1,),
        "bidirectional": (False,),
        "proj_size": (0,),
        "dropout": (0, 0.0),
        "dropout_seed": (None,),
        "w_hr": (None,),
        "lengths": (None,),
        "reverse": (False,),
        "save": ("gates", None),
        "truncate": (None,),
        "grad_clip": (None,),
        "resets": (None,),
        "num_threads": (1,),
    }
    for name, value in options.items():
        if not any(value is allowed or (not hasattr(value, "__len__") and value == allowed) for allowed in defaults[name]):
            if name == "save" and value != "lean":
                raise ValueError(f"save: expected 'gates', 'lean' or None, got {value!r}")
            allowed = " or ".join(repr(a) for a in defaults[name])
            raise NotImplementedError(f"{name}={value!r} is not implemented in this version; only {allowed} is")
