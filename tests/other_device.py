"""A second device, which PyTorch takes for a GPU; its numbers lie in main memory.

As on a GPU, an operation refuses tensors of both devices, and NumPy reads none. It is made by
PyTorch's own means for a device written in Python (torch/utils/backend_registration.py), which last
as long as the process. Strides are not kept there, and addresses are all 0.
"""

import functools

import torch
from torch.utils._pytree import tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "elsewhere"
ALIKE = "CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional"
COPIES = {"_to_copy", "copy_"}  # made of an empty tensor and `_copy_from`
COPY = torch.ops.aten._copy_from.default
VIEWS = torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default
NUMBERS = {}  # a storage there → its numbers, a tensor on the CPU


class Elsewhere(torch.Tensor):
    """Not a plain tensor: of one that Python has made, nn.Parameter makes no parameter."""

    __torch_function__ = torch._C._disabled_torch_function_impl


def storage(tensor):
    return tensor.untyped_storage()._cdata


def run(operation, *args, **kwargs):
    """An operation there: the CPU's, on the numbers."""
    given = {}

    def numbers(value):
        if isinstance(value, torch.device):
            return torch.device("cpu")
        if not isinstance(value, torch.Tensor):
            return value
        if value.device.type == NAME:
            found = NUMBERS[storage(value)]
            given[id(found)] = value
            return found
        if value.ndim and operation is not COPY:
            raise RuntimeError(f"Expected all tensors to be on the same device: {operation}")
        return value

    def there(value):
        if not isinstance(value, torch.Tensor):
            return value
        if id(value) in given:
            return given[id(value)]
        made = torch._C._acc.create_empty_tensor(value.shape, value.dtype)
        made.__class__ = Elsewhere
        NUMBERS[storage(made)] = value
        return made

    args, kwargs = tree_map(numbers, (args, kwargs))
    if operation is COPY:
        made = args[1].copy_(args[0])
        return given.get(id(made), made)
    operation = torch.reshape if operation in VIEWS else operation
    return tree_map(there, operation(*args, **kwargs))


def register():
    """Let PyTorch know the device, for as long as what is returned is kept."""
    _setup_privateuseone_for_python_backend(NAME)
    libraries = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    libraries[0].fallback(run, "PrivateUse1")
    # What PyTorch does alike on every device, as a view, would read a tensor's memory.
    for name in torch._C._dispatch_get_all_op_names():
        packet, _, overload = name.removeprefix("aten::").partition(".")
        operation = getattr(getattr(torch.ops.aten, packet, None), overload or "default", None)
        alike = any(torch._C._dispatch_has_kernel_for_dispatch_key(name, kind) for kind in ALIKE)
        if name.startswith("aten::") and operation and alike and packet not in COPIES:
            libraries[1].impl(operation, functools.partial(run, operation), "PrivateUse1")
    return libraries
