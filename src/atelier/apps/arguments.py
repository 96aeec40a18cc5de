"""The arguments of the commands and the flags that are not generated, each with its help text.

Typer's own check for readable files is off, since the library's error message says more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def _argument(metavar: str, sentence: str, **more: Any) -> Any:
    return typer.Argument(metavar=metavar, help=sentence, readable=False, show_default=False, **more)


def _file(*names: str, says: str) -> Any:
    return typer.Option(*names, metavar="FILE", help=says, readable=False)


def _number(name: str, sentence: str) -> Any:
    return typer.Option(name, metavar="NUMBER", min=1, help=sentence)


# everywhere
Json = Annotated[bool, typer.Option("--json", help="One JSON object on the output stream, for scripts.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")]

# stylize and replay
Photos = Annotated[
    list[Path],
    _argument("PHOTO...", "The photo to stylize; several, a folder, or - for standard input."),
]
Each = Annotated[bool, typer.Option("--each", help="A picture in each style, not one in all of them.")]
Format = Annotated[
    str,
    typer.Option(
        "--format", metavar="NAME", help="Of several pictures, or standard output: png, jpg, tif or webp."
    ),
]
Made = Annotated[Path, _argument("PICTURE", "A picture written by atelier.")]
Styles = Annotated[
    list[str] | None, _file("--style", "-s", says="The style picture. Repeat the flag for several styles.")
]
StyleNames = Annotated[
    list[str] | None,
    typer.Option(
        "--style", "-s", metavar="NAME", help="Name of a trained style. Repeat the flag for several."
    ),
]
Output = Annotated[
    Path | None,
    _file(
        "--output",
        "-o",
        says="Where to write: .png, .jpg, .tif or .webp; a folder for several photos, - for standard output. "
        "[default: named after the input]",
    ),
]
MethodName = Annotated[
    str | None,
    typer.Option(
        "--method",
        "-m",
        metavar="NAME",
        help="The method; see 'atelier methods'. [default: chosen by quality]",
    ),
]
Quality = Annotated[
    str,
    typer.Option(
        "--quality",
        "-q",
        metavar="NAME",
        help="draft, good, best, painterly, or one that the method adds.",
    ),
]
Mask = Annotated[Path | None, _file("--mask", says="Stylize only where this picture is white.")]
Regions = Annotated[
    list[Path] | None,
    _file("--region", says="Where a style applies: white in this picture. Repeat, one for each --style."),
]
Bits = Annotated[
    int | None,
    typer.Option(
        "--bits",
        metavar="8|16",
        help="Bits per channel; 16 for PNG and TIFF only. [default: 16 for TIFF, else 8]",
    ),
]
Texts = Annotated[
    list[str] | None,
    typer.Option(
        "--text", metavar="WORDS", help="A style in words, see 'atelier words'; repeat for several."
    ),
]
GeneratedSize = Annotated[
    str | None,
    typer.Option("--size", metavar="SIDE|WxH", help="Size in pixels. [default: the quality's]"),
]
Generator = Annotated[str, _argument("METHOD", "A method that needs no photo; see 'atelier methods'.")]
NoReceipt = Annotated[
    bool, typer.Option("--no-receipt", help="Write no receipt into the picture; it cannot be replayed.")
]
NoMetadata = Annotated[
    bool, typer.Option("--no-metadata", help="Keep no resolution, copyright or artist of the photo.")
]
MaxPixels = Annotated[
    int | None, _number("--max-pixels", "Largest input picture that is read. [default: 100 million]")
]
MovedContent = Annotated[Path | None, _file("--content", says="The photo, if it has moved.")]
MovedStyles = Annotated[
    list[Path] | None,
    _file("--style", "-s", says="The style pictures in their original order, if they have moved."),
]
MovedRegions = Annotated[
    list[Path] | None,
    _file("--region", says="The region pictures in their original order, if they have moved."),
]
MovedMask = Annotated[Path | None, _file("--mask", says="The mask, if it has moved.")]

# harmonise
Composite = Annotated[Path, _argument("COMPOSITE", "A painting into which an object was pasted.")]
ObjectMask = Annotated[
    Path,
    typer.Option(
        "--mask",
        metavar="FILE",
        help="The object: white in this picture.",
        readable=False,
        show_default=False,
    ),
]
Harmoniser = Annotated[
    str,
    typer.Option(
        "--method", "-m", metavar="NAME", help="harmonise, or phdiffusion, which needs Stable Diffusion."
    ),
]
Background = Annotated[
    Path | None,
    _file("--background", says="The painting without the object. [default: what surrounds the object]"),
]
ObjectFeather = Annotated[
    float | None,
    typer.Option(
        "--feather", metavar="PIXELS", min=0, help="Width of the object's soft edge in pixels. [default: 2]"
    ),
]

# video
ClipFile = Annotated[
    Path, _argument("CLIP", "A video, an animated GIF or WebP, or a folder of numbered pictures.")
]
VideoOutput = Annotated[
    Path | None,
    _file(
        "--output",
        "-o",
        says="Where to write: .mp4, .mov, .mkv, .webm, .gif, .webp; a folder of PNG files without extension. "
        "[default: named after the clip]",
    ),
]
Steady = Annotated[
    float | None,
    typer.Option(
        "--steady",
        metavar="0..1",
        help="Weight of the last frame where a place still looks the same; 0 paints each frame alone. "
        "[default: 0.95]",
    ),
]
Rate = Annotated[
    str | None,
    typer.Option("--rate", metavar="FPS", help="Frames per second of a folder of pictures. [default: 24]"),
]
CodecName = Annotated[
    str | None,
    typer.Option(
        "--codec", metavar="NAME", help="h264, vp9, or ffv1, which loses nothing. [default: by extension]"
    ),
]
Crf = Annotated[
    int | None,
    typer.Option(
        "--crf", metavar="NUMBER", min=0, max=63, help="Quality of the encoder; lower is better and larger."
    ),
]
Sound = Annotated[bool, typer.Option("--sound/--no-sound", help="Copy the clip's sound and subtitles.")]
Preview = Annotated[
    Path | None, _file("--preview", says="Write the newest frame to this picture every few seconds.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped or killed.")]

# lora
LoraFile = Annotated[Path, _argument("FILE", "A LoRA file.")]
TrainingFolder = Annotated[Path, _argument("FOLDER", "A folder of pictures, or of folders N_name.")]
PreparedFolder = Annotated[Path, _argument("OUT", "The folder to write; it must not exist.")]
BucketSide = Annotated[
    int, typer.Option("--size", metavar="PIXELS", min=64, max=2048, help="Side of the square of that area.")
]
Upscale = Annotated[
    bool, typer.Option("--upscale/--no-upscale", help="Enlarge pictures that are smaller than their bucket.")
]
Square = Annotated[bool, typer.Option("--square", help="Crop all pictures to squares.")]


def _tags(name: str, metavar: str, sentence: str) -> Any:
    return typer.Option(name, metavar=metavar, help=f"{sentence} Repeat the flag for several.")


TagsFirst = Annotated[list[str] | None, _tags("--trigger", "TAG", "Put a tag in front of every caption.")]
TagsAdded = Annotated[list[str] | None, _tags("--add", "TAG", "Put a tag behind every caption.")]
TagsRemoved = Annotated[list[str] | None, _tags("--remove", "TAG", "Remove a tag.")]
TagsReplaced = Annotated[list[str] | None, _tags("--replace", "A=B", "Replace the tag A by B.")]
TextReplaced = Annotated[list[str] | None, _tags("--find", "A=B", "Replace the text A by B, also in tags.")]
Statistics = Annotated[
    bool, typer.Option("--statistics", help="Count the tags; the usual, without a change.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the changes and write nothing.")]
Pipeline = Annotated[str, _argument("BASE", "Stable Diffusion 1.x: a name, a folder, or a single file.")]
Tuned = Annotated[str, _argument("TUNED", "The pipeline whose difference from the base becomes a LoRA.")]
Merged = Annotated[
    list[str] | None,
    typer.Option("--lora", metavar="FILE[=SHARE]", help="A LoRA, and how strongly. Repeat for several."),
]
NewFile = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="PATH", help="What to write.", readable=False, show_default=False),
]
Rank = Annotated[int, typer.Option("--rank", metavar="NUMBER", min=1, max=512, help="Size of the LoRA.")]
Convolutions = Annotated[
    bool, typer.Option("--convolutions", help="Extract all layers, also 3 x 3 convolutions.")
]

# the other commands
Painting = Annotated[Path, _argument("PAINTING", "The style picture.")]
StyleOutput = Annotated[Path, _file("--output", "-o", says="The file to write: NAME.safetensors.")]
Listed = Annotated[str | None, _argument("NAME", "Show this method with all its knobs.")]
WordsModel = Annotated[
    str | None,
    typer.Option("--words", metavar="FILE", help="Another model of words, made by 'atelier train words'."),
]
Folder = Annotated[Path, _argument("FOLDER", "The folder to write to; created if it does not exist.")]
DemoFolder = Annotated[
    Path, typer.Argument(metavar="FOLDER", readable=False, help="The folder for the pictures.")
]
Side = Annotated[
    int, typer.Option("--size", metavar="PIXELS", help="Side of the generated style pictures, 64 to 4096.")
]
Record = Annotated[str, _argument("NAME", "A name from 'atelier weights list'.")]
AnyRecord = Annotated[str | None, _argument("NAME", "One name; all if omitted.")]
Brought = Annotated[Path, _argument("FILE", "Your file, or the folder of a record with several files.")]
Force = Annotated[
    bool, typer.Option("--force", help="Install it even if its hash differs from the published one.")
]
RunFolder = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FOLDER",
        readable=False,
        help="Folder of the run: checkpoints, log, the network. [default: runs/NAME]",
    ),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Fail if the folder already holds checkpoints.")]
Threads = Annotated[int | None, _number("--threads", "CPU threads. [default: one per core]")]

# the bench
ProtocolName = Annotated[
    str, _argument("PROTOCOL", "A .toml file, or the name of a protocol from 'atelier bench list'.")
]
SweepName = Annotated[str, _argument("SWEEP", "A .toml file, or drawbench-style.")]
BenchFolder = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FOLDER",
        readable=False,
        help="Folder of the grid: rows, pictures. [default: out/bench/NAME]",
    ),
]
DataFolder = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="FOLDER",
        readable=False,
        help="Folder of the protocol's pictures. [default: that of the protocol]",
    ),
]
Jobs = Annotated[
    int | None, _number("--jobs", "Processes. [default: the protocol's, or one per core and its threads]")
]
Retry = Annotated[bool, typer.Option("--retry", help="Do the cells again that failed.")]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="NAME",
        help="local processes, ray on this machine, or a Ray cluster: auto or ray://HOST:PORT.",
    ),
]
GridFolder = Annotated[Path, _argument("FOLDER", "The folder of a grid, such as out/bench/smoke.")]
SiteFolder = Annotated[
    Path | None,
    typer.Option(
        "--site",
        metavar="FOLDER",
        readable=False,
        help="Folder for the page. [default: report, in the grid's folder]",
    ),
]
Questions = Annotated[
    list[str] | None,
    typer.Option(
        "--question",
        metavar="NAME",
        help="What to ask: overall, style or content. Repeat for several. [default: overall]",
    ),
]
Trials = Annotated[int, _number("--trials", "Questions for each participant.")]
Host = Annotated[
    str,
    typer.Option("--host", metavar="ADDRESS", help="Address; 0.0.0.0 lets other machines in."),
]
Port = Annotated[int, typer.Option("--port", metavar="NUMBER", min=0, max=65535, help="Port; 0 is any.")]

# the studio
StudioFolder = Annotated[
    Path | None,
    typer.Option(
        "--folder",
        metavar="FOLDER",
        readable=False,
        help="Where pictures and trainings are kept. [default: atelier, in the folder of your pictures]",
    ),
]
OwnWeights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FOLDER",
        readable=False,
        help="Folder of your own weights; its .safetensors files can be chosen by name.",
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        metavar="WORD",
        help="What requests must carry; '' lets everyone in. [default: none on this machine alone, else new]",
    ),
]
