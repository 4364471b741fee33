"""The model card as a small page: accuracy, scope, data, licences and known failures."""

from html import escape

from slicer.i18n import tr as _

from DistillSegLib.ranking import same_test, scores_of

METRICS = (("dice", "{:.3f}"), ("hd95_mm", "{:.2f}"), ("nsd", "{:.3f}"))


def cardHtml(package, packages=()):
    """HTML without style sheets, for a text browser in any theme.

    Args:
        packages: others at hand; those tested on the same cases are shown beside.
    """
    manifest = package.manifest
    variant = package.variant()
    facts = (
        (_("Package"), manifest.name),
        (_("Input"), f"{manifest.modality}: {', '.join(manifest.channels)}"),
        (_("Field of view"), _span(manifest.scope.size_mm)),
        (_("Voxels of training"), _span(manifest.scope.spacing_mm)),
        (_("Voxels of the network"), _by(manifest.preprocessing.spacing_mm)),
        (_("Parameters"), f"{variant.parameters:,}"),
        ("SHA-256", package.digests[variant.file]),
    )
    texts = (
        (_("Intended use"), manifest.intended_use),
        (_("Not for"), manifest.not_for),
        (_("Known failures"), manifest.known_failures),
        (_("Training data"), _trainingData(manifest)),
        (_("Licence"), manifest.licence or _("None is stated; ask its author before using it.")),
        (_("Attribution"), manifest.attribution),
        (_("Citation"), manifest.citation),
    )
    parts = [f"<h3>{escape(manifest.title)}</h3><p>{escape(manifest.description)}</p>"]
    parts.append(_accuracy(package, packages))
    parts += [f"<h4>{escape(name)}</h4><p>{escape(text)}</p>" for name, text in texts if text]
    parts.append(f"<h4>{escape(_('Facts'))}</h4>{_table(facts)}")
    return "".join(parts)


def _accuracy(package, packages):
    test = package.manifest.test
    if test is None:
        text = _("No test on held-out cases is recorded. Check every result.")
        return f"<h4>{escape(_('Accuracy'))}</h4><p>{escape(text)}</p>"
    shown = [package, *same_test(package, packages)]
    heads = (_("Structure"), _("Dice"), _("HD95 (mm)"), _("Surface Dice"))
    rows = "".join(f"<th align='left'>{escape(head)}</th>" for head in heads)
    body = f"<tr>{rows}</tr>"
    for each in shown:
        if len(shown) > 1:
            body += f"<tr><td colspan='4'><i>{escape(each.manifest.title)}</i></td></tr>"
        body += _scoreRows(each.manifest)
    note = _("Mean over {cases} cases. {description}. Surface Dice at {tolerance:g} mm.").format(
        cases=test.cases, description=test.description, tolerance=test.tolerance_mm
    )
    return (
        f"<h4>{escape(_('Accuracy'))}</h4><table cellpadding='2' width='100%'>{body}</table>"
        f"<p>{escape(note)}</p>"
    )


def _scoreRows(manifest):
    found = [(scores_of(manifest, metric), form) for metric, form in METRICS]
    rows = ""
    for label in manifest.labels:
        numbers = (form.format(s[label.name]) if label.name in s else "–" for s, form in found)
        cells = "".join(f"<td>{number}</td>" for number in numbers)
        rows += f"<tr><td>{escape(label.name)}</td>{cells}</tr>"
    return rows


def _trainingData(manifest):
    known = manifest.provenance
    names = ("dataset", "licence", "reference")
    texts = [str(known[name]) for name in names if known.get(name)]
    cases = known.get("training_cases")
    if cases:
        texts.append(_("{count} cases").format(count=len(cases)))
    return ", ".join(texts)


def _table(rows):
    cells = "".join(
        f"<tr><td>{escape(name)}&nbsp;&nbsp;</td><td>{escape(_breakable(str(value)))}</td></tr>"
        for name, value in rows
    )
    return f"<table cellpadding='2'>{cells}</table>"


def _breakable(text):
    """Long digests get places where a line may end."""
    if len(text) < 40 or " " in text:
        return text
    return " ".join(text[i : i + 16] for i in range(0, len(text), 16))


def _span(ranges):
    texts = [f"{low:.3g}" if low == high else f"{low:.3g}–{high:.3g}" for low, high in ranges]
    return _("{size} mm (x, y, z)").format(size=" × ".join(texts[::-1]))


def _by(zyx):
    return _("{size} mm (x, y, z)").format(size=" × ".join(f"{mm:.3g}" for mm in zyx[::-1]))
