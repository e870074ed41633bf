"""Training in TensorBoard (extra `tensorboard`)."""

import os
from pathlib import Path
from typing import Any, final

from .._files import user_path
from .watching import Window

REMEDY = "the TensorBoard writer needs the package tensorboard: pip install 'spikevae[tensorboard]'"


@final
class TensorBoard:
    """A callback that writes every number of each window as a scalar, for ``tensorboard --logdir FOLDER``.

    Parameters
    ----------
    folder
        Folder of the event files; several fits that train together have a folder each inside it, named by their place.
        Take another folder for each call of `fit`.

    Raises
    ------
    ModuleNotFoundError
        Where the package tensorboard is not installed.

    Examples
    --------
    >>> import spikevae as sv
    >>> m = sv.SpikeVAE(callbacks=[sv.training.TensorBoard("logs/a")])  # doctest: +SKIP
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter  # noqa: F401 - before training, not in its midst
        except ModuleNotFoundError:
            raise ModuleNotFoundError(REMEDY, name="tensorboard") from None
        self.folder: Path = user_path(folder)
        self._writers: dict[int, Any] = {}

    def __call__(self, window: Window) -> None:
        """Write one window; the step is that of its end."""
        from torch.utils.tensorboard import SummaryWriter

        if window.fit not in self._writers:
            own = self.folder if window.n_fits == 1 else self.folder / str(window.fit)
            self._writers[window.fit] = SummaryWriter(str(own))
        writer = self._writers[window.fit]
        for name, value in window.means().items():
            writer.add_scalar(name, value, window.step)
        writer.flush()

    def close(self) -> None:
        """Close the event files; every window is in them before that already."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def __deepcopy__(self, memo: dict[int, Any]) -> "TensorBoard":
        """As scikit-learn's `clone` makes it: the same folder, files of its own."""
        return TensorBoard(self.folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return TensorBoard, (self.folder,)
