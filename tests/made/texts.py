"""Odd images for their texts: character sets, wrong ones, and the names of people. Knows no node code."""

from __future__ import annotations

from tests.made.table import GONE, Odd, holding, stating

UNICODE = "ISO_IR 192"
SCRIPTS: dict[str, tuple[str | list[str], str, str]] = {
    # Source of the names: PS3.5 annexes H, I, J, K.
    "latin_1": ("ISO_IR 100", "Müller^Jörg", "Röntgen Thorax, stehend"),
    "latin_2": ("ISO_IR 101", "Dvořák^Jiří", "Hrudník, předozadní"),
    "cyrillic": ("ISO_IR 144", "Люксембург^Иван", "Грудная клетка"),
    "arabic": ("ISO_IR 127", "قباني^لنزار", "صدر"),
    "greek": ("ISO_IR 126", "Διονύσιος^Άγγελος", "Θώρακας"),
    "hebrew": ("ISO_IR 138", "שרון^דבורה", "חזה"),
    "thai": ("ISO_IR 166", "นามสกุล^ชื่อ", "ทรวงอก"),
    "japanese": (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう", "胸部"),
    "japanese_kana": (["ISO_IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう", "胸部正面"),
    "korean": (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동", "흉부"),
    "gb18030": ("GB18030", "Wang^XiaoDong=王^小东", "胸部正位"),
    "gbk": ("GBK", "Wang^XiaoDong=王^小东", "胸部正位"),
    # 0x5C, the backslash that parts values, is the second byte of these characters.
    "gb18030_backslash": ("GB18030", "Cheng=乗^俓", "乗俓"),
    "japanese_backslash": (["", "ISO 2022 IR 87"], "Bai^Jiro=倍^俑", "倍"),
    "utf_8": ("ISO_IR 192", "Wang^XiaoDong=王^小東", "Thorax, 胸部, грудь"),
}


ESCAPED: dict[str, tuple[list[str], bytes, bytes, str]] = {
    # As PS3.5 6.1.2.5 wants it.
    "cyrillic_escaped": (
        ["", "ISO 2022 IR 144"],
        b"Luxemburg=\x1b-L\xbb\xee\xda\xe1",
        b"\x1b-L\xb3\xe0\xe3\xd4\xec",
        "Luxemburg=Люкс",
    ),
    "chinese_escaped_charset": (
        ["", "ISO 2022 IR 58"],
        b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab",
        b"\x1b$)A\xd0\xd8\xb2\xbf",
        "Zhang^XiaoDong=张^小东",
    ),
    "latin_1_escaped_charset": (
        ["ISO 2022 IR 6", "ISO 2022 IR 100"],
        b"Buc^\x1b-AJ\xe9r\xf4me",
        b"\x1b-AThorax d'\xe9t\xe9",
        "Buc^Jérôme",
    ),
}


def _script(name: str) -> Odd:
    charset, person, description = SCRIPTS[name]
    stated = {"SpecificCharacterSet": charset, "PatientName": person, "StudyDescription": description}
    return Odd(name, f"texts in {charset}: copied without a changed byte", stating(**stated), holds=stated)


def _escaped(name: str) -> Odd:
    charset, person, description, shown = ESCAPED[name]
    build = holding({"PatientName": person, "StudyDescription": description}, SpecificCharacterSet=charset)
    kept = "charset" not in name
    why = "copied without a changed byte" if kept else "the library can read but not write them, so they become Unicode"
    holds = {"SpecificCharacterSet": charset if kept else UNICODE, "PatientName": shown}
    return Odd(name, f"escape sequences of {charset}: {why}", build, holds=holds)


def _name(name: str, why: str, given: str, kept: str = GONE, *repaired: str) -> Odd:
    """A person's name that is kept as it is, or for which the result's is empty."""
    holds = {"PatientName": "" if kept == GONE else kept}
    return Odd(name, why, holding({"PatientName": given.encode()}), holds=holds, repaired=repaired)


LATIN = "Jérôme^Zoé"
RECODED = {"SpecificCharacterSet": UNICODE, "PatientName": LATIN}

TEXTS = (
    *map(_script, SCRIPTS),
    *map(_escaped, ESCAPED),
    Odd(
        "no_charset_latin_1",
        "no character set is stated and the text is Latin-1: read as such and written in Unicode",
        holding({"PatientName": LATIN.encode("latin-1")}),
        repaired=("SpecificCharacterSet of the original is not stated",),
        holds=RECODED,
    ),
    Odd(
        "no_charset_utf_8",
        "no character set is stated and the text is UTF-8: bytes that are valid UTF-8 are no other script by chance",
        holding({"PatientName": LATIN.encode()}),
        repaired=("SpecificCharacterSet of the original is not stated",),
        holds=RECODED,
    ),
    Odd(
        "ascii_holds_utf_8",
        "ASCII is stated and UTF-8 is there",
        holding({"PatientName": LATIN.encode()}, SpecificCharacterSet="ISO_IR 6"),
        repaired=("SpecificCharacterSet of the original does not hold its text",),
        holds=RECODED,
    ),
    Odd(
        "latin_1_holds_utf_8",
        "Latin-1 is stated and UTF-8 is there, which is Latin-1 too: it is shown as the original is, byte for byte",
        holding({"PatientName": LATIN.encode()}, SpecificCharacterSet="ISO_IR 100"),
        holds={"SpecificCharacterSet": "ISO_IR 100", "PatientName": LATIN.encode().decode("latin-1")},
    ),
    Odd(
        "utf_8_holds_latin_1",
        "Unicode is stated and Latin-1 is there: no replacement character gets into a patient's name",
        holding({"PatientName": LATIN.encode("latin-1")}, SpecificCharacterSet=UNICODE),
        holds=RECODED,
    ),
    Odd(
        "unknown_charset",
        "a character set that nobody defined, and plain text: left out, the text needs none",
        stating(SpecificCharacterSet="ISO_IR 999"),
        holds={"SpecificCharacterSet": GONE, "PatientName": "Doe^Jane"},
    ),
    Odd(
        "unknown_charset_utf_8",
        "a character set that nobody defined, and text in UTF-8",
        holding({"PatientName": LATIN.encode()}, SpecificCharacterSet="ISO_IR 999"),
        repaired=("SpecificCharacterSet of the original does not hold its text",),
        holds=RECODED,
    ),
    Odd(
        "misspelt_charset",
        "a character set written with a hyphen: read as what was meant",
        holding({"PatientName": LATIN.encode("latin-1")}, SpecificCharacterSet="ISO-IR 100"),
        holds=RECODED,
    ),
    _name("name_at_the_limit", "three groups of 64 characters each", "=".join(c * 64 for c in "ABC"),
          "=".join(c * 64 for c in "ABC")),
    _name("name_over_long", "a group of 80 characters: a shortened name would be another name", "N" * 80, GONE,
          "PatientName is invalid"),
    _name("name_of_four_groups", "a fourth group, which PN does not have", "Doe=Roe=Poe=Zoe", GONE,
          "PatientName is invalid"),
    _name("name_of_carets", "nothing but separators: kept, as nothing says what they stand for", "^^^^", "^^^^"),
    _name("name_with_gaps", "empty components and a trailing caret", "Doe^^^Dr.^", "Doe^^^Dr.^"),
    _name("name_of_six_components", "a sixth component, which PN does not have", "A^B^C^D^E^F", GONE,
          "PatientName is invalid"),
    _name("name_without_first_group", "an empty alphabetic group", "=Yamada^Tarou", "=Yamada^Tarou"),
    _name("name_with_backslash", "a backslash: two values where one is allowed", "Doe\\Roe", GONE,
          "PatientName is invalid"),
    _name("name_of_asterisks", "an anonymised name", "*****^***", "*****^***"),
    _name("name_with_control_characters", "a line break and a tab in the name", "Doe\r\n^Ja\tne", "Doe^Jane",
          "PatientName was repaired"),
    _name("name_of_blanks", "only blanks", "        "),
)  # fmt: skip
