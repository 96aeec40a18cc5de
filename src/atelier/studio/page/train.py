"""Train: every method that trains, from its declared settings; runs that go on when the page is closed."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import gradio as gr

from atelier.core.errors import AtelierError, UsageError
from atelier.methods import registry
from atelier.studio.page import controls, data, estimate, inputs, lora, paint, parts, running
from atelier.studio.sources import sources_of
from atelier.training.settings import DATA, settings_of

if TYPE_CHECKING:
    from atelier.studio.service import Studio
    from atelier.studio.training import TrainingJob

#: Settings that are shown first; the others open below.
_FIRST = ("steps", "batch", "crop", "learning_rate", "trigger", "samples")
#: The setting whose values are sentences, which have commas: one on a line.
_LINES = "samples"
_LABELS = {
    "samples": "Words to preview",
    "trigger": "Trigger word",
    "a": "Pictures of the first kind",
    "b": "Pictures of the second kind",
    "sheet": "Pictures to preview",
}
_WIDTH, _HEIGHT = 720, 200


def tab(studio: Studio, page: gr.Blocks, tabs: gr.Tabs, tab: gr.Tab, target: paint.Paint) -> None:
    """Build the tab; `target` is filled by "Use in Paint"."""
    with gr.Tabs(elem_classes="at-inner"):
        with gr.Tab("Runs", id="train-runs") as runs:
            _runs_tab(studio, page, tabs, [tab, runs], target)
        with gr.Tab("Pictures and captions", id="train-data") as pictures:
            data.tab(studio, pictures)
        with gr.Tab("LoRA files", id="train-lora") as files:
            lora.tab(studio, files)


def _runs_tab(
    studio: Studio, page: gr.Blocks, tabs: gr.Tabs, shown_by: list[gr.Tab], target: paint.Paint
) -> None:
    with gr.Row(elem_classes="at-work"):
        with gr.Column(elem_classes="at-rail"):
            *asked, preset = _asked(studio)
        with gr.Column(elem_classes="at-main"):
            with gr.Row(elem_classes="at-do"):
                name = gr.Textbox(
                    label="Name of the run",
                    placeholder="Name of the run",
                    show_label=False,
                    container=False,
                    elem_id="train-name",
                )
                measure = gr.Button("Memory and time", elem_id="train-measure")
                go = gr.Button("Start", variant="primary", elem_id="train-go")
            note = parts.note("train-note")
            run = gr.Dropdown([], label="Run", show_label=False, elem_id="train-run", visible=False)
            status = parts.note("train-status", _none())
            with gr.Row(elem_classes="at-do"):
                buttons = {
                    word: gr.Button(word.capitalize(), elem_id=f"train-{word}", visible=False)
                    for word in ("pause", "resume", "stop", "delete")
                }
                use = gr.Button("Use in Paint", variant="primary", elem_id="train-use", visible=False)
            curve = parts.note("train-curve")
            sample = parts.note("train-sample")
            output = parts.note("train-output")
    shown = [status, *buttons.values(), use, curve, sample, output, gr.State(None)]

    def started(method: str, sources: Any, main: Any, rest: Any, name: str) -> Any:
        return begun(studio, method, sources, main, rest, name)

    def measured(method: str, sources: Any, main: Any, rest: Any) -> Iterator[str]:
        yield from told(studio, method, sources, main, rest)

    measure.click(measured, asked, note, show_progress="hidden")
    begin = go.click(started, [*asked, name], [note, run, asked[1]], show_progress="hidden")
    begin.then(lambda one: shown_run(studio, one), run, shown, show_progress="hidden")
    use.click(lambda one: used(studio, one), run, [tabs, *target.all], show_progress="hidden")
    shown_by[0].select(
        lambda method: gr.Dropdown(choices=studio.presets.names(method)), asked[0], preset,
        show_progress="hidden",
    )  # fmt: skip
    shown_by[1].select(
        lambda method, now: source_form(studio, method, now), asked[:2], asked[1], show_progress="hidden"
    )
    _follow(studio, run, shown, note, buttons, [page.load, *(one.select for one in shown_by)])


def _follow(
    studio: Studio, run: gr.Dropdown, shown: list[Any], note: gr.HTML, buttons: Any, events: list[Any]
) -> None:
    """Show the chosen run, and what happens to it; `events` bring the list of runs up to date."""

    def listed(id: str | None) -> Any:
        return _runs(studio, id)

    def view(id: str | None) -> list[Any]:
        return shown_run(studio, id)

    def ticked(id: str | None, last: Any) -> list[Any]:
        job = studio.trainings.find(id or "")
        if job is None or [job.id, job.state, job.now.number] == last:
            return [gr.skip()] * (1 + len(shown))
        same = last is not None and last[:2] == [job.id, job.state]
        return [gr.skip() if same else _runs(studio, id), *shown_run(studio, id)]

    for event in events:
        event(listed, run, run, show_progress="hidden").then(view, run, shown, show_progress="hidden")
    run.input(view, run, shown, show_progress="hidden")
    gr.Timer(2).tick(ticked, [run, shown[-1]], [run, *shown], show_progress="hidden")
    for word, button in buttons.items():
        done = button.click(_asking(studio, word), run, note, show_progress="hidden")
        done.then(listed, run, run, show_progress="hidden").then(view, run, shown, show_progress="hidden")


def _asked(studio: Studio) -> list[gr.components.Component]:
    """The cards that say what is trained: method, pictures, first settings, all others, and presets."""
    first = inputs.method_choices(trained=True)[0][1]
    with gr.Column(elem_classes="at-card"):
        parts.title("What to train")
        method = gr.Dropdown(
            inputs.method_choices(trained=True),
            value=first,
            label="Method to train",
            show_label=False,
            elem_id="train-method",
        )
        about = parts.note("train-about", _about(first))
    with gr.Column(elem_classes="at-card"):
        sources = parts.part("form", "train-sources", source_form(studio, first))
    with gr.Column(elem_classes="at-card"):
        main = parts.part("form", "train-main", setting_form(first, first=True))
    with gr.Accordion("All settings", open=False, elem_classes="at-card"):
        rest = parts.part("form", "train-rest", setting_form(first, first=False))
    with gr.Accordion("Presets", open=False, elem_classes="at-card"):
        preset = _presets(studio, method, main, rest)

    def chosen(name: str, *seen: Any) -> tuple[Any, ...]:
        forms = (source_form(studio, name), *both_forms(name))
        kept = [inputs.since(form, one) for form, one in zip(forms, seen, strict=True)]
        return _about(name), *kept, _preset_list(studio, name, None)

    method.change(
        chosen, [method, sources, main, rest], [about, sources, main, rest, preset], show_progress="hidden"
    )
    return [method, sources, main, rest, preset]


def _presets(studio: Studio, method: gr.Dropdown, main: gr.HTML, rest: gr.HTML) -> gr.Dropdown:
    """Settings under a name: chosen, saved, deleted."""
    preset = gr.Dropdown([], value=None, label="Preset", show_label=False, elem_id="train-preset")
    name = gr.Textbox(
        label="Name of a preset",
        placeholder="Name of a preset",
        show_label=False,
        container=False,
        elem_id="train-preset-name",
    )
    with gr.Row(elem_classes="at-do"):
        save = gr.Button("Save", elem_id="train-preset-save")
        delete = gr.Button("Delete", elem_id="train-preset-delete")
    note = parts.note("train-preset-note")

    def chosen(method: str, name: str | None) -> Any:
        try:
            return *both_forms(method, studio.presets.load(method, name or "")), ""
        except AtelierError as error:
            return gr.skip(), gr.skip(), parts.error(str(error)) if name else ""

    def saved(method: str, name: str, main: Any, rest: Any) -> Any:
        try:
            kept = studio.presets.save(method, name, {**main.get("values", {}), **rest.get("values", {})})
        except AtelierError as error:
            return gr.skip(), gr.skip(), parts.error(str(error))
        return _preset_list(studio, method, kept), "", parts.sentence(f"Saved: {kept}.")

    def deleted(method: str, name: str | None) -> Any:
        try:
            studio.presets.delete(method, name or "")
        except AtelierError as error:
            return gr.skip(), parts.error(str(error))
        return _preset_list(studio, method, None), ""

    preset.input(chosen, [method, preset], [main, rest, note], show_progress="hidden")
    save.click(saved, [method, name, main, rest], [preset, name, note], show_progress="hidden")
    delete.click(deleted, [method, preset], [preset, note], show_progress="hidden")
    return preset


def _preset_list(studio: Studio, method: str, name: str | None) -> Any:
    return gr.Dropdown(choices=studio.presets.names(method), value=name)


def used(studio: Studio, id: str | None) -> list[Any]:
    """(tabs, paint) with the network of a run chosen in Paint."""
    job = studio.trainings.find(id or "")
    network = studio.trainings.name_of(job) if job else ""
    if job is None or not network:
        return [gr.skip(), *paint.UNCHANGED]
    return [gr.Tabs(selected="paint"), *paint.with_network(studio, job.method, network)]


def _about(name: str) -> str:
    return parts.sentence(registry.find(name).summary())


def _none() -> str:
    return (
        '<div class="at-empty"><p>Choose a method and give it pictures. Memory and time are measured on '
        "the first steps before you start; a run goes on when this page is closed.</p></div>"
    )


# forms


def _sources(method: str) -> list[str]:
    """The settings that name pictures."""
    data = registry.find(method).data
    return [name for name in DATA[data].model_fields if name in sources_of(data)[0]]


def _is_named(method: str, name: str) -> bool:
    """Whether a setting takes several kinds of pictures, each with a name."""
    return name == "domain" or (name in sources_of(registry.find(method).data)[1] and name != "masks")


def source_form(studio: Studio, method: str, now: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The form for the pictures to train on, which may be a set; `now` is the form with what it holds."""
    kind, names = registry.find(method), _sources(method)
    made = controls.fields(settings_of(kind), only=names)
    for field in made:
        name = field["name"]
        field |= {"kind": "named_sets" if _is_named(method, name) else "pictures", "default": None}
        field["label"] = _LABELS.get(name, field["label"])
        field["help"] = _help(name, captioned=kind.data in ("captioned", "bucketed"))
        if name == "style":
            field["most"] = 1
        elif name != "sheet":
            field["folder"] = True
            field["sets"] = [
                {"id": f"data:{one.id}", "name": one.name, "count": one.count}
                for one in studio.trainings.data.all()
            ]
    return {"fields": made, "values": dict((now or {}).get("values", {}))}


def _help(name: str, *, captioned: bool) -> str:
    texts = {
        "sheet": "Painted at each evaluation, so that you see how far it is. Optional.",
        "style": "The one style picture.",
        "domain": "Two or more kinds of pictures, each with a name.",
        "masks": "A PNG for each photo and of its name: black, and one shade of grey for each object.",
        "same_style": "Kinds of one style each, with a .txt file of the same name for each caption.",
        "same_content": "Kinds of one content each in several styles, with captions.",
    }
    if captioned and name == "pictures":
        return "Pictures, and a .txt file of the same name with the caption of each."
    return texts.get(name, "")


def setting_form(method: str, *, first: bool, values: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The form of the settings that are shown first, or of the others, with those `values` of it."""
    declared = settings_of(registry.find(method))
    names = [name for name in declared.model_fields if name not in _sources(method)]
    chosen = [name for name in names if (name in _FIRST) is first]
    kept = {name: value for name, value in (values or {}).items() if name in chosen}
    made = controls.fields(declared, only=chosen)
    for field in made:
        field["label"] = _LABELS.get(field["name"], field["label"])
        if field["name"] == _LINES:
            field |= {
                "kind": "lines",
                "default": "",
                "help": "Each line is drawn now and then, to see how far it is.",
            }
    return {"fields": made, "values": kept}


def both_forms(method: str, values: Mapping[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two forms of settings."""
    return setting_form(method, first=True, values=values), setting_form(method, first=False, values=values)


# starting


def settings(studio: Studio, method: str, sources: Any, main: Any, rest: Any) -> dict[str, Any]:
    """The settings of a run; pictures are put into sets of their own. Raises AtelierError."""
    declared = settings_of(registry.find(method))
    chosen = {**main.get("values", {}), **rest.get("values", {})}
    if lines := chosen.get(_LINES):
        chosen[_LINES] = [line.strip() for line in str(lines).splitlines() if line.strip()]
    made = controls.values(declared, {name: value for name, value in chosen.items() if value is not None})
    for name, sent in sources.get("values", {}).items():
        if isinstance(sent, Mapping):
            made[name] = [str(sent["set"])]
        elif _is_named(method, name):
            made[name] = [
                f"{one['name']}={_set(studio, one['name'], one['files'])}" for one in sent if one["files"]
            ]
        elif name == "style":
            made[name] = inputs.take(studio, sent[0])
        elif name == "sheet":
            made[name] = [inputs.take(studio, one) for one in sent]
        else:
            made[name] = [_set(studio, f"{method} {name}", sent)]
    for name in _sources(method):
        if declared.model_fields[name].is_required() and not made.get(name):
            raise UsageError(f"the setting '{name}' needs pictures: drop or choose them first")
    return made


def _set(studio: Studio, name: str, sent: list[Mapping[str, Any]]) -> str:
    """The id of a set of these files; a text file is the caption of the picture of its name."""
    data = studio.trainings.data
    received = [inputs.received(studio, one) for one in sent]
    captions = {
        file[:-4]: text.decode("utf-8", "replace") for text, file in received if file.endswith(".txt")
    }
    made = data.create(name)
    try:
        for content, file in received:
            if not file.endswith(".txt"):
                data.add(made.id, content, file, captions.get(file.rpartition(".")[0], ""))
    except AtelierError:
        data.delete(made.id)
        raise
    return f"data:{made.id}"


def told(studio: Studio, method: str, sources: Any, main: Any, rest: Any) -> Iterator[str]:
    """What a training will take, as a line for the note, while it is measured."""
    try:
        job, found = estimate.measure(studio, method, settings(studio, method, sources, main, rest))
    except AtelierError as error:
        yield parts.error(str(error))
        return
    for _ in running.follow(job):
        yield parts.progress("measuring the first steps")
    if job.state == "failed":
        yield parts.error(job.error)
        return
    yield parts.sentence(
        f"{found.weights / 1e6:.2f} M weights, about {found.memory:,.0f} MiB beside the pictures; "
        f"{running.duration(found.step)} a step, {running.duration(found.whole)} in all on this machine."
    )


def begun(studio: Studio, method: str, sources: Any, main: Any, rest: Any, name: str) -> tuple[Any, Any, Any]:
    """(note, runs, sources) after "Start"."""
    try:
        job = studio.train(method, settings(studio, method, sources, main, rest), name=name or method)
    except AtelierError as error:
        return parts.error(str(error)), gr.skip(), gr.skip()
    return parts.sentence(f"Started: {job.title}."), _runs(studio, job.id), source_form(studio, method)


# looking at runs


def _runs(studio: Studio, id: str | None) -> Any:
    """The list of runs, with the chosen one, or the newest that is not finished, or the newest."""
    found = studio.trainings.all()
    ids = [one.id for one in found]
    if id not in ids:
        id = next((one.id for one in found if not one.finished), ids[0] if ids else None)
    return gr.Dropdown(
        choices=[(f"{one.title} · {one.state}", one.id) for one in found], value=id, visible=bool(ids)
    )


def shown_run(studio: Studio, id: str | None) -> list[Any]:
    """Everything that is shown of a run."""
    job = studio.trainings.find(id or "")
    if job is None:
        return [_none(), *[gr.Button(visible=False)] * 5, "", "", "", None]
    can = {
        "pause": job.state in ("running", "waiting"),
        "resume": job.state in ("paused", "stopped", "failed"),
        "stop": job.state in ("running", "waiting", "paused"),
        "delete": job.finished or job.state == "paused",
    }
    return [
        _status(job), *(gr.Button(visible=may) for may in can.values()),
        gr.Button(visible=bool(studio.trainings.name_of(job))), curve_of(job.curve()), _sample(job),
        _said(job), [job.id, job.state, job.now.number],
    ]  # fmt: skip


def _status(job: TrainingJob) -> str:
    note = job.now
    if job.state == "failed":
        return parts.error(job.error)
    steps = f"{job.title}: {job.state}, step {note.done:,} of {note.total:,}"
    steps += f", {running.duration(note.seconds)}" + ("" if job.finished else " so far")
    if note.left and job.state == "running":
        steps += f", {running.duration(note.left)} left"
    bar = parts.progress(steps, note.done / max(1, note.total))
    if job.result is None:
        return bar
    return bar + parts.links([("Download the network", running.network(job.id), f"{job.method}.safetensors")])


def _sample(job: TrainingJob) -> str:
    steps = job.samples()
    if not steps:
        return ""
    picture = base64.b64encode(job.sample(steps[-1])).decode()
    return f'<img class="at-sample" alt="samples of step {steps[-1]}" src="data:image/jpeg;base64,{picture}">'


def _said(job: TrainingJob) -> str:
    lines = "\n".join(html.escape(line) for line in job.output[-12:])
    return (
        f'<details class="at-said"><summary>What the command said</summary><pre>{lines}</pre></details>'
        if lines
        else ""
    )


def curve_of(lines: list[dict[str, float]]) -> str:
    """The loss by step as a drawing (HTML with an SVG); empty with fewer than two points."""
    points = [
        (line["step"], line["loss"])
        for line in lines
        if line.get("loss") == line.get("loss") and "loss" in line
    ]
    if len(points) < 2:
        return ""
    steps, losses = [x for x, _ in points], [y for _, y in points]
    low, high = min(losses), max(losses)
    wide, tall = max(1, steps[-1] - steps[0]), (high - low) or 1.0

    def at(step: float, loss: float) -> str:
        return f"{(step - steps[0]) / wide * _WIDTH:.1f},{2 + (high - loss) / tall * (_HEIGHT - 4):.1f}"

    path = "M" + "L".join(at(step, loss) for step, loss in points)
    return (
        f'<figure class="at-curve"><figcaption>Loss</figcaption>'
        f'<div class="at-scale"><span>{high:.4g}</span><span>{low:.4g}</span></div>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="loss, {losses[0]:.4g} at first, {losses[-1]:.4g} now"><path d="{path}"/></svg>'
        f"<span></span><div><span>step {steps[0]:,}</span><span>{steps[-1]:,}</span></div></figure>"
    )


def _asking(studio: Studio, word: str) -> Any:
    def ask(id: str | None) -> str:
        job = studio.trainings.find(id or "")
        if job is None:
            return ""
        try:
            studio.trainings.delete(job.id) if word == "delete" else getattr(job, word)()
        except AtelierError as error:
            return parts.error(str(error))
        return ""

    return ask
