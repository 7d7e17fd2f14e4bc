"""params.yaml as typed objects: unknown keys, wrong types and values out of range are refused in one line."""

from pipeline.params.load import Params, Setting, load

__all__ = ["Params", "Setting", "load"]
