"""results["audits"] as audits leave them, with places that are chosen."""

STEPS = (10, 0, 40)  # the headline first


def measured(value, width=0.5):
    """A value with an interval."""
    return {"value": value, "interval": None if width is None else [value - width, value + width]}


def row(place=None, width=0.05, gap=None, floor=None, figure="psnr", values=None, **at):
    """A row; place: the unlearned model's, or None; gap: without a place, None = no reference."""
    known = place is not None
    values = values or {"original": 16.5, "unlearned": 14.25, "retrained": 11.0}
    return {
        "figure": figure, "at": at,
        "values": {name: measured(value) for name, value in values.items()
                   if known or gap is not None or not name.startswith("retrained")},
        "gap": 2.0 if known else gap, "floor": floor,
        "place": measured(place, width) if known else None,
        "why": "" if known else "no gap: they do not differ" if gap is not None
        else "no retrained model to compare with",
    }  # fmt: skip


def audit(*rows, attack=True, title="Does it come back?", sentence="16 images bring it back."):
    """An audit with these rows."""
    figure = {
        "name": "psnr",
        "title": "PSNR of unseen images",
        "unit": "dB",
        "digits": 2,
        "over": "",
    }
    figures = [figure, figure | {"name": "curve", "title": "PSNR over time", "over": "steps"},
               figure | {"name": "accuracy", "title": "Accuracy", "unit": "", "over": "block"},
               figure | {"name": "loss", "title": "Loss of a class", "over": "class"}]  # fmt: skip
    return {"title": title, "cost": "trains for 40 steps", "args": {"steps": [0, 40]},
            "figures": figures, "rows": list(rows), "sentence": sentence,
            "seconds": {"original": 12.0, "unlearned": 11.0}, "attack": attack}  # fmt: skip


def skipped(why="there are no images other"):
    """An audit that was left out."""
    return {"title": "And after that?", "cost": "little", "args": {}, "skipped": why}


def curve(figure="curve", axis="steps", places=STEPS, **at):
    """Rows along an axis."""
    values = {"original": 16.5, "unlearned": 9.5, "retrained": 11.0, "retrained_2": 11.5}
    return [row(0.9, figure=figure, values={k: v + n for k, v in values.items()}, **{axis: x}, **at)
            for n, x in enumerate(places)]  # fmt: skip


def audits():
    """One of each kind, as small as can be."""
    return {"relearn": audit(row(0.9, floor=0.1, steps=10), *curve()[:2]), "other": skipped()}


def hostile(evil):
    """Audits with a text in place of every text and name that may be any text."""
    at = [{evil: evil}, {evil: "b"}]
    figure = {"name": evil, "title": evil, "unit": evil, "digits": 2, "over": evil}
    with_place = [row(0.9, figure=evil) | {"at": each, "why": evil} for each in at]
    without = [row(figure=evil) | {"at": each, "why": evil} for each in at]
    said = dict(title=evil, cost=evil, args={evil: evil}, figures=[figure], sentence=evil,
                seconds={evil: 1.0})  # fmt: skip
    return {
        evil: audit() | said | {"rows": with_place},
        f"{evil} 2": audit() | said | {"rows": without},
        f"{evil} 3": {"title": evil, "cost": evil, "args": {}, "skipped": evil},
    }
