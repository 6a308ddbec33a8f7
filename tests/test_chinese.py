"""The Chinese pages: punctuation and spacing, terms, and what they share with the English ones.

Their commands are executed, and their links followed, with those of all pages in test_docs.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from bncli.report import Certainty
from tests.conftest import REPOSITORY
from tests.test_docs import CHINESE

HAN = "[\u4e00-\u9fff]"
FULL = "[\u2018-\u201d\u3001-\u301f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65]"
HALF = r"[,.;:!?()\"']"
LATIN = "[A-Za-z0-9`%]"

FAULTS = {
    "half-width punctuation beside Chinese": f"{HAN}{HALF}|{HALF}{HAN}",
    "half-width punctuation that ends a clause": r"[,;:!?.]" + f"( {HAN}|$)",
    "a space beside full-width punctuation": f" {FULL}|{FULL} ",
    "no space between Chinese and Latin": f"{HAN}{LATIN}|{LATIN}{HAN}",
    "a space between Chinese characters": f"{HAN} +{HAN}",
    "half-width and full-width punctuation together": f"[,.;:!]{FULL}|{FULL}[,.;:!]",
    "a full-width letter or digit": "[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a]",
    "traditional quotation marks": "[\u300c-\u300f]",
}

OTHER_WORDS = (
    *("批标准化", "批量归一化", "批量标准化", "批规范化"),
    *("移动平均", "运行均值", "运行方差", "运行统计", "全局均值"),
    *("推理模式", "预测模式", "测试模式"),
    *("批大小", "批量大小", "小批量", "信道", "检测点", "超参"),
)
"""What others call the same: one name for each thing."""

TUTORIAL = REPOSITORY / "examples" / "tutorial"
VERDICTS = {
    "true": "正确",
    "wrong": "错误",
    "wrong for PyTorch": "在 PyTorch 中错误",
    "the wrong way round": "恰好说反",
    "inconsistent": "自相矛盾",
    "imprecise": "不准确",
    "a rule of thumb": "经验之谈",
    "disputed": "有争议",
}


def paragraphs(text: str) -> Iterator[str]:
    """What is read as text, as people see it: each line, cell, heading and item of a list."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`[^`\n]+`", "`x`", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text).replace("*", "")
    for line in text.splitlines():
        parts = re.sub(r"^(#+|-|\d+\.) ", "", line).strip("|").split("|")
        yield from (part.strip() for part in parts)


def faults(text: str) -> list[str]:
    """What a Chinese typesetter would correct."""
    found = []
    for paragraph in filter(re.compile(HAN).search, paragraphs(text)):
        for fault, pattern in FAULTS.items():
            found += [
                f"{fault}: {each[0]!r} in {paragraph}" for each in re.finditer(pattern, paragraph)
            ]
        for pair in ("\u201c\u201d", "\uff08\uff09"):
            marks = "".join(re.findall(f"[{pair}]", paragraph))
            if marks != pair * (len(marks) // 2):
                found.append(f"{pair} do not pair in {paragraph}")
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    found += [
        f"a line break inside a paragraph, which is shown as a space: {each[0]!r}"
        for each in re.finditer(r"^(?![|#\n-])(.+)\n(?![|#\n-])(.+)$", prose, re.MULTILINE)
    ]
    return found


def name(page):
    return str(page.relative_to(REPOSITORY))


def test_there_are_chinese_pages():
    assert [name(page) for page in CHINESE] == [
        "examples/README.zh.md",
        "examples/tutorial/README.zh.md",
    ]


@pytest.mark.parametrize("page", CHINESE, ids=name)
def test_punctuation_and_spacing(page):
    assert not faults(page.read_text("utf-8"))


@pytest.mark.parametrize(
    "text",
    [
        "方差是 17.25,",
        "方差是 17.25, 均值是 6.5。",
        "方差(有偏)",
        "方差 ，均值",
        "用 `eps`。 再看",
        "用PyTorch",
        "默认 0.1的动量",
        "见[diagnose](a.md)",
        "方差 均值",
        "方差１",
        "「方差」",
        "“方差",
        "（方差",
        "第一行，\n第二行。",
        "| 方差 | 用eps |",
    ],
)
def test_faults_are_seen(text):
    assert faults(text)


def test_what_is_right_is_no_fault():
    text = "形状 (N, C) 的 `x`，用[英文页](a.md)：默认 0.1%。\n\n- 一（有偏）；\n- 二“无偏”。\n"
    assert not faults(
        f"# 一、标题\n\n{text}\n```sh\nls,用\n```\n\n| 甲 | B、C |\n|---|---|\n| 0.1 | |\n"
    )


@pytest.mark.parametrize("page", CHINESE, ids=name)
def test_one_name_for_each_thing(page):
    text = re.sub("\u201c[^\u201d\\n]*\u201d", "", page.read_text("utf-8"))  # the words of others
    assert not [word for word in OTHER_WORDS if word in text]


@pytest.mark.parametrize("page", CHINESE, ids=name)
def test_passives_do_not_pile_up(page):
    """The sign of a translation word by word."""
    assert page.read_text("utf-8").count("被") <= 2


def claims(page):
    """The table of claims: number, and the verdict and what is right."""
    rows = re.findall(
        r"^\| (\d+) \|.*\| ([^|]+) \| ([^|]*)\|$", page.read_text("utf-8"), re.MULTILINE
    )
    return {int(number): (verdict, right) for number, verdict, right in rows}


def test_every_claim_has_the_verdict_of_the_english_page():
    english, chinese = claims(TUTORIAL / "README.md"), claims(TUTORIAL / "README.zh.md")
    assert list(chinese) == list(english) == list(range(1, 24))
    for number, (verdict, right) in english.items():
        assert chinese[number][0] == VERDICTS[verdict], number
        assert numbers(chinese[number][1]) >= numbers(right), number


def numbers(text):
    """The numbers in a text that have more than one digit."""
    return set(re.findall(r"-?\d+(?:\.\d+)?(?:e-\d+)?", text)) - set("0123456789")


def test_every_claim_is_judged_in_the_text():
    page = (TUTORIAL / "README.zh.md").read_text("utf-8")
    text = page[: page.index("## 23 条一览")]
    assert {int(number) for number in re.findall(r"第 (\d+) 条", text)} == set(range(1, 24))
    counted = re.search(r"一共 (\d+) 条：(\d+) 条正确，(\d+) 条错误，其余 (\d+) 条", text)
    verdicts = [verdict for verdict, _ in claims(TUTORIAL / "README.zh.md").values()]
    right = verdicts.count("正确")
    wrong = sum(verdict.endswith("错误") or verdict == "恰好说反" for verdict in verdicts)
    assert [*map(int, counted.groups())] == [23, right, wrong, 23 - right - wrong]


def test_install_and_the_calls_of_the_table_are_those_of_the_readme():
    readme = (REPOSITORY / "README.md").read_text("utf-8")
    page = (REPOSITORY / "examples" / "README.zh.md").read_text("utf-8")
    install = re.search(r"^python -m pip install torch.*$", page, re.MULTILINE)[0]
    assert f"\n{install}\n" in readme
    calls = re.findall(r"^\|.*\| `(bncli [^`]+)` \|", page, re.MULTILINE)
    assert len(calls) == 7
    assert [call for call in calls if f"`{call}`" not in readme] == []
    assert len(re.findall(r"^## [一二三四五]、", page, re.MULTILINE)) == 5


def test_the_index_explains_every_word_for_how_sure_a_finding_is():
    page = (REPOSITORY / "examples" / "README.zh.md").read_text("utf-8")
    for word in Certainty:
        assert f"{word.value} 表示" in page
    assert "`-o report.html`" in page


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("examples/diagnose/README.md", r"In `train\(\)` its Dice is (.+), in `eval\(\)` (.+)\."),
        ("examples/README.zh.md", r"Dice 在训练模式下是 (.+)，在评估模式下只有 (.+)："),
    ],
)
def test_the_metric_of_the_guides_is_what_the_diagnosis_prints(page, said):
    printed = (REPOSITORY / "examples" / "diagnose" / "README.md").read_text("utf-8")
    numbers = re.search(r"dice: training (.+), evaluation (.+), with", printed).groups()
    told = re.search(said, (REPOSITORY / page).read_text("utf-8")).groups()
    assert told == tuple(f"{float(number):.2f}" for number in numbers)
