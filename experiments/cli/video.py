"""Videos on disk and in TensorBoard: captioned images as an mp4, and as a small animated image.

The mp4 is written by the ffmpeg program that the package imageio-ffmpeg brings along, as a process of its own.
TensorBoard's own add_video needs moviepy, which holds back Pillow; its image summaries show animated GIFs as they are.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from metarl.errors import UserError
from metarl.run.files import reason, scratch_file

if TYPE_CHECKING:
    from PIL import Image

CAPTION_HEIGHT = 80  # pixels above the image; with images of 480 both sides are multiples of 16
MARGIN = 12
MAX_SMALL_FRAMES = 150  # of an animated image, which TensorBoard's page loads whole
SMALL_WIDTH = 240

_FONT_SIZES = (17, 19, 15)  # of the three lines of a caption
_COLOURS = ((240, 241, 244), (255, 214, 110), (168, 178, 196))
_BACKGROUND = (28, 32, 42)


def captioned(frame: NDArray[np.uint8], lines: Sequence[str]) -> NDArray[np.uint8]:
    """The image [H, W, 3] under up to three lines of text: [H + 80, W, 3]; long lines end in dots."""
    from PIL import Image, ImageDraw, ImageFont  # imported here: only videos need it

    height, width = frame.shape[:2]
    image = Image.new("RGB", (width, height + CAPTION_HEIGHT), _BACKGROUND)
    image.paste(Image.fromarray(frame), (0, CAPTION_HEIGHT))
    draw = ImageDraw.Draw(image)
    top = 6
    for text, size, colour in zip(lines, _FONT_SIZES, _COLOURS, strict=False):
        font = ImageFont.load_default(size)
        while draw.textlength(text, font) > width - 2 * MARGIN:
            text = f"{text.removesuffix('...')[:-1].rstrip()}..."
        draw.text((MARGIN, top), text, colour, font)
        top += size + 7
    return np.asarray(image)


class Mp4:
    """An mp4 file that appears, whole, when the context is left without an error.

    Whole is what ffmpeg reads all frames of again: on a disk that is full it ends without a word.
    """

    def __init__(self, path: Path, frames_per_second: float) -> None:
        self.path = path
        self._fps = frames_per_second
        self._num_frames = 0
        self._files = ExitStack()
        self._scratch: Path | None = None
        self._writer: Any = None

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Append a frame [H, W, 3]; all have the size of the first.

        Raises:
            UserError: when the file cannot be written.
        """
        try:
            if self._writer is None:
                self._writer = self._open(frame.shape[1], frame.shape[0])
            self._writer.send(np.ascontiguousarray(frame))
            self._num_frames += 1
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {reason(error)}") from error

    def _open(self, width: int, height: int) -> Any:
        import imageio_ffmpeg  # imported here: only videos need it

        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._scratch = self._files.enter_context(scratch_file(self.path))
        writer = imageio_ffmpeg.write_frames(
            str(self._scratch),
            (width, height),
            fps=self._fps,  # pyright: ignore[reportArgumentType], fractions are taken too
            quality=8,
            macro_block_size=2,
            ffmpeg_log_level="error",
            output_params=["-movflags", "+faststart"],
        )
        writer.send(None)
        return writer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            with self._files:
                if self._writer is not None:
                    self._writer.close()
                if error is not None:
                    raise error
                self._check_whole()
        except OSError as failure:
            if failure is not error:
                raise UserError(f"cannot write {self.path}: {reason(failure)}") from failure
            raise

    def _check_whole(self) -> None:
        """Check that the file is complete.

        Raises:
            UserError: when not all frames can be read again.
        """
        import imageio_ffmpeg

        try:
            num_frames = imageio_ffmpeg.count_frames_and_secs(str(self._scratch))[0] if self._scratch else 0
        except RuntimeError:  # ffmpeg cannot make anything of the file
            num_frames = 0
        if num_frames != self._num_frames:
            what = f"ffmpeg wrote {num_frames} of {self._num_frames} frames; is the disk full?"
            raise UserError(f"cannot write {self.path}: {what}")


class AnimatedImage:
    """A video as a small GIF: every frame is offered, and as many are kept as a page can hold."""

    def __init__(self, frames_per_second: float) -> None:
        self._seconds = 1 / frames_per_second  # between two of the frames that are kept
        self._every = 1
        self._offered = 0
        self._frames: list[Image.Image] = []
        self.size = (0, 0)  # width, height

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Offer a frame [H, W, 3]."""
        from PIL import Image

        if self._offered % self._every == 0:
            small = (SMALL_WIDTH, round(frame.shape[0] * SMALL_WIDTH / frame.shape[1]))
            image = Image.fromarray(frame).resize(small, Image.Resampling.BILINEAR)
            self._frames.append(image.quantize(128))
            self.size = small
        self._offered += 1
        if len(self._frames) > MAX_SMALL_FRAMES:  # from here on, every second one only
            self._frames = self._frames[::2]
            self._every, self._seconds = 2 * self._every, 2 * self._seconds

    def encoded(self) -> bytes:
        """The GIF, looping at the video's own speed."""
        buffer = io.BytesIO()
        first, *rest = self._frames
        milliseconds = max(20, round(1000 * self._seconds))
        first.save(buffer, "GIF", save_all=True, append_images=rest, duration=milliseconds, loop=0, optimize=False)
        return buffer.getvalue()
