"""Running the ffmpeg program, and reading its messages."""

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from vpxrc.errors import MissingDependencyError, VpxrcError

# The formats that a user's file may have, by ffmpeg's names of its demuxers. All of them read the
# file alone. Playlists, lists, scripts, devices and image sequences are not among them: those make
# ffmpeg open other files and connections that they name.
FORMATS = (
    "3dostr,4xm,aa,aac,ac3,act,aiff,amr,apng,asf,asf_o,au,av1,avi,avr,avs,avs2,avs3,bethsoftvid,"
    "bfi,bink,bmv,caf,cavsvideo,cdxl,cine,dirac,dnxhd,dsicin,dv,dvbsub,dxa,ea,eac3,evc,film_cpk,"
    "flac,flic,flv,frm,fwse,g722,gdv,gif,gxf,h261,h263,h264,hevc,idcin,idf,iff,ifv,ingenient,"
    "ipmovie,ipu,iss,iv8,ivf,jpeg_pipe,jv,kux,live_flv,lmlm4,lvf,m4v,matroska,webm,mgsts,mjpeg,mjpeg_2000,"
    "mm,mov,mp4,m4a,3gp,3g2,mj2,mp3,mpeg,mpegts,mpegvideo,mpjpeg,mtv,mv,mvi,mxf,mxg,nc,nsv,nut,"
    "nuv,obu,ogg,pmp,psxstr,pva,pvf,r3d,rl2,rm,roq,rpl,rsd,sga,siff,smk,smush,swf,thp,tiertexseq,"
    "tmv,truehd,txd,ty,vc1,vc1test,viv,vividas,vivo,vmd,vvc,w64,wav,webp_pipe,webp,wc3movie,"
    "wsvqa,wtv,xa,xmv,xwma,yop,yuv4mpegpipe"
)
NOT_READ = "a playlist, a list, images or another format that is not read"
#: Options for whatever opens a user's file with ffmpeg or its libraries.
READING = {"protocol_whitelist": "file", "format_whitelist": FORMATS}


def ffmpeg_program() -> str:
    """Return the path of imageio-ffmpeg's program, which has libvmaf where Debian's has not.

    Raises:
        MissingDependencyError: There is no program.
    """
    import imageio_ffmpeg  # as ffmpeg-python: where it is needed

    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError:
        raise MissingDependencyError(
            "no ffmpeg program: pip install --force-reinstall imageio-ffmpeg"
        ) from None


@contextmanager
def _start(stream: Any, **options: Any) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """Run an ffmpeg-python stream, and end the program when the block ends early.

    Args:
        stream: An output node, as ``ffmpeg.output`` returns it.
        **options: More arguments for :class:`subprocess.Popen`.

    Yields:
        The process and the file of its messages, each marked with its level.

    Raises:
        MissingDependencyError: There is no ffmpeg.
    """
    # No level below: it prints the file's own words, such as its title, as if they were ffmpeg's.
    command = stream.global_args("-nostdin", "-nostats", "-hide_banner", "-v", "level+warning")
    program = ffmpeg_program()
    with tempfile.TemporaryFile() as messages:
        try:
            process = subprocess.Popen(
                command.compile(cmd=program, overwrite_output=True), stderr=messages, **options
            )
        except (FileNotFoundError, PermissionError) as error:
            raise MissingDependencyError(
                f"cannot start ffmpeg ({program}: {error.strerror}): "
                "pip install --force-reinstall imageio-ffmpeg, and unset IMAGEIO_FFMPEG_EXE"
            ) from None
        try:
            yield process, messages
        finally:
            process.kill()
            # Not Popen.__exit__: it would flush what the dead program never read.
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()


def run_ffmpeg(
    stream: Any,
    error: type[VpxrcError],
    doing: str,
    data: bytes | None = None,
    cwd: str | Path | None = None,
) -> bytes:
    """Run an ffmpeg-python stream to its end.

    Args:
        stream: An output node, as ``ffmpeg.output`` returns it.
        error: The exception to raise where ffmpeg fails.
        doing: The beginning of its message, as in ``"cannot decode the stream"``.
        data: Bytes for the program's standard input.
        cwd: The program's working folder.

    Returns:
        The program's standard output.

    Raises:
        error: ffmpeg failed; the message ends with its words.
        MissingDependencyError: There is no ffmpeg, or it lacks a filter.
    """
    stdin = subprocess.DEVNULL if data is None else subprocess.PIPE
    with _start(stream, stdin=stdin, stdout=subprocess.PIPE, cwd=cwd) as (process, messages):
        output, _ = process.communicate(data)
        if process.returncode:
            words = _first_error(messages)
            if "No such filter" in words:
                raise MissingDependencyError(
                    f"{doing}: this ffmpeg is not imageio-ffmpeg's ({words}): "
                    "pip install imageio-ffmpeg, and unset IMAGEIO_FFMPEG_EXE"
                )
            raise error(f"{doing}: {words}")
    return output


def _first_error(messages: IO[bytes]) -> str:
    """Return ffmpeg's first error message, which is the cause where others follow."""
    messages.seek(0)
    for line in messages.read().decode(errors="replace").splitlines():
        if match := re.search(r"\[(?:error|fatal|panic)\] (.*)", line):
            return match[1].strip()
    return "ffmpeg says nothing about it"
