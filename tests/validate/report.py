"""Say in a table and in goals what the validators found. Runs nothing."""

from __future__ import annotations

from collections.abc import Sequence

from tests.validate.accepted import ACCEPTED, FAULTS, Accepted
from tests.validate.objects import FromImage
from tests.validate.run import Table, absent

HEAD = ("class of object", "validator", "files", "like these", "errors", "accepted", "other warnings")


def lines(made: Sequence[FromImage], table: Table) -> list[str]:
    """The table, what is in it, and the goals."""
    rows = [HEAD]
    for (kind, validator), cell in table.items():
        counts = (cell.files, cell.alike, cell.errors.total(), cell.accepted.total(), cell.warnings.total())
        rows.append((kind, validator, *map(str, counts)))
    widths = [max(len(row[n]) for row in rows) for n in range(len(HEAD))]
    out = ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for word, listed in (("warnings", ACCEPTED), ("faults of a validator, or of an original, in one image", FAULTS)):
        out += ["", f"accepted {word}:"]
        for (validator, reason), images in _reasons(listed).items():
            count = sum(cell.accepted[reason] for (_, name), cell in table.items() if name == validator)
            out.append(f"  {count:6d}  {validator}{images}: {reason}")
    return [*out, *_findings(table), *_outcomes(made), *goals(made, table)]


def _reasons(listed: Sequence[Accepted]) -> dict[tuple[str, str], str]:
    """Validator and reason, each once, with the images that it is about."""
    out: dict[tuple[str, str], str] = {}
    for one in listed:
        key = (one.validator, one.reason)
        out[key] = out.get(key, "") + (f" ({one.image})" if one.image else "")
    return out


def _findings(table: Table) -> list[str]:
    out = []
    for (kind, validator), cell in table.items():
        for word, found in (("error", cell.errors), ("warning", cell.warnings)):
            out += [
                f"{word}: {validator}, {kind}, {count} times, e.g. from {cell.images[text]}: {text}"
                for text, count in sorted(found.items())
            ]
    return ["", "not accepted:", *(out or ["  nothing"])]


def _outcomes(made: Sequence[FromImage]) -> list[str]:
    nothing = [f"  {one.image}: {one.why}" for one in made if not one.objects]
    return ["", f"{len(made)} images; nothing can be made of {len(nothing)}:", *nothing, ""]


def goals(made: Sequence[FromImage], table: Table) -> list[str]:
    """What must hold, each with its value and whether it does."""
    values = {
        "validate_errors": sum(cell.errors.total() for cell in table.values()),
        "validate_unlisted_warnings": sum(cell.warnings.total() for cell in table.values()),
        "validate_classes_not_made": len(absent(made)),
    }
    return [f"GOAL {name} {value} == 0 {'met' if value == 0 else 'missed'}" for name, value in values.items()]


def met(made: Sequence[FromImage], table: Table) -> bool:
    return all(line.endswith(" met") for line in goals(made, table))
