"""Stand-ins for two packages that SGLang imports but never calls on a CPU; engine processes only.

`sgl_kernel` exists only as CUDA binaries, and the PyPI build of `torchvision` needs CUDA too;
SGLang's text path names them at import time. Python imports a module called `sitecustomize` at
start, so the children that SGLang spawns get this too.
"""

import ctypes
import importlib.machinery
import signal
import sys
import types

PACKAGES = ("sgl_kernel", "torchvision")


class _AnyAttribute(type):
    """Lets `InterpolationMode.BILINEAR` and the like be named, as constants are at import time."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return f"{cls.__name__}.{name}"


def _stand_in(module: str, name: str) -> type:
    package = module.split(".")[0]

    def refuse(self, *args, **kwargs):
        raise NotImplementedError(f"{module}.{name} is a stand-in: the CPU engine has no {package}")

    return _AnyAttribute(name, (), {"__init__": refuse, "__module__": module})


class _StandInModule(types.ModuleType):
    __path__ = ()  # makes it a package
    __version__ = "0.0.0"

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        value = _stand_in(self.__name__, name)
        setattr(self, name, value)
        return value


class _StandInFinder:
    """Last in `sys.meta_path`, so an installed package always wins."""

    @staticmethod
    def find_spec(fullname, path=None, target=None):
        if fullname.split(".")[0] in PACKAGES:
            return importlib.machinery.ModuleSpec(fullname, _StandInFinder, is_package=True)
        return None

    @staticmethod
    def create_module(spec):
        return _StandInModule(spec.name)

    @staticmethod
    def exec_module(module):
        pass


sys.meta_path.append(_StandInFinder)

# SGLang's spawned processes ask to die with their parent only after all their imports, which take
# ten seconds.
if "--multiprocessing-fork" in sys.orig_argv:
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
