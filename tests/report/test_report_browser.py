"""The page in a real browser: no error, no request, and the controls do what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.report.browser import Browser
from tests.report.fake_run import HOSTILE


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_opens_without_errors_requests_or_sideways_scrolling(browser: Browser, run_dir: Path, width: int, dark: bool) -> None:
    browser.open(run_dir / "report.html", width=width, dark=dark)
    assert browser.problems() == []
    assert browser.requests() == []
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    paper, ink = browser.evaluate(
        "[getComputedStyle(document.querySelector('section')).backgroundColor, getComputedStyle(document.body).color]"
    )
    assert (_brightness(paper) < _brightness(ink)) is dark
    tick = browser.evaluate("getComputedStyle(document.querySelector('figure svg text')).fill")
    assert abs(_brightness(tick) - _brightness(paper)) > 80  # figures follow the theme


def test_the_page_could_not_fetch_or_run_anything_else_if_it_tried(browser: Browser, run_dir: Path) -> None:
    browser.open(run_dir / "report.html")
    assert browser.evaluate("fetch('https://example.org').then(() => 'fetched', () => 'refused')") == "refused"
    browser.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=\"data:,\" onerror=\"document.title=1\">')")
    browser.evaluate("new Promise(done => setTimeout(done, 50))")
    assert browser.evaluate("document.title") != "1"
    assert any("Content Security Policy" in problem for problem in browser.problems())


def test_hostile_text_is_shown_and_not_run(browser: Browser, run_dir: Path) -> None:
    browser.open(run_dir / "report.html")
    assert "owned" not in browser.evaluate("document.title")
    texts = browser.evaluate("[...document.querySelectorAll('#answer-cards .text')].map(p => p.textContent)")
    assert HOSTILE in texts
    browser.evaluate("(() => { const s = document.querySelector('[name=prompt]'); s.value = 3; " + _FIRE + "; })()")
    shown = browser.evaluate("[...document.querySelectorAll('#training-view .text')].map(p => p.textContent)")
    assert set(shown) == {HOSTILE}
    assert "owned" not in browser.evaluate("document.title")
    assert browser.problems() == []


def test_answers_can_be_searched_sorted_and_limited(browser: Browser, run_dir: Path) -> None:
    browser.open(run_dir / "report.html")
    visible = "[...document.querySelectorAll('#answer-cards > article')].filter(a => !a.hidden)"
    assert browser.evaluate(visible + ".length") == 6
    _set(browser, "text", "repeat exactly")
    assert browser.evaluate(visible + ".map(a => a.querySelector('.prompt').textContent)") == [
        "Repeat exactly: </script><script>document.title='owned'</script>"
    ]
    assert browser.evaluate("document.querySelector('[name=count]').value") == "1 of 24 prompts"
    _set(browser, "text", "")
    _set(browser, "order", "1")
    scores = browser.evaluate(visible + ".map(a => Number(a.querySelector('.answer[data-arm=\"1\"]').dataset.gold))")
    assert scores == sorted(scores, reverse=True)
    _set(browser, "low", "99")
    assert browser.evaluate(visible + ".length") == 0
    _set(browser, "low", "")
    browser.evaluate("document.querySelector('#answer-filters [name=arm][value=\"2\"]').click()")
    assert browser.evaluate(
        "[...document.querySelectorAll('.answer[data-arm=\"2\"]')].every(a => a.hidden || a.closest('#training-view'))"
    )


def test_answers_can_be_limited_to_a_verdict(browser: Browser, run_dir: Path) -> None:
    browser.open(run_dir / "report.html")
    for arm in (2, 3, 4, 5, 6):
        browser.evaluate(f"document.querySelector('#answer-filters [name=arm][value=\"{arm}\"]').click()")
    browser.evaluate("document.querySelector('#answer-filters [name=arm][value=\"0\"]').click()")
    verdicts = "[...document.querySelectorAll('#answer-cards > article')].filter(a => !a.hidden)"
    verdicts += ".map(a => a.querySelector('.answer[data-arm=\"1\"]').dataset.verdict)"
    for word in ("wins", "loses"):
        _set(browser, "verdict", word)
        assert set(browser.evaluate(verdicts)) == {word}


def test_training_answers_follow_the_slider(browser: Browser, run_dir: Path) -> None:
    browser.open(run_dir / "report.html")
    browser.evaluate(
        "(() => { const s = document.querySelector('#training-controls [name=at]'); s.value = 2; " + _FIRE + "; })()"
    )
    assert browser.evaluate("document.querySelector('#training-controls [name=step]').value") == "40"
    assert browser.evaluate("document.querySelector('#training-view .meta').textContent").startswith("step 40 · ")


def test_a_name_in_the_legend_brings_its_arm_forward(browser: Browser, run_dir: Path) -> None:
    browser.open(run_dir / "report.html")
    browser.evaluate("document.querySelector('.key[data-arm=\"5\"]').click()")
    opacity = "getComputedStyle(document.querySelector('#figure-curve-reward .arm{}')).opacity"
    browser.evaluate("Promise.all(document.getAnimations().map(a => a.finished))")
    assert (browser.evaluate(opacity.format(5)), browser.evaluate(opacity.format(4))) == ("1", "0.1")


_FIRE = "s.dispatchEvent(new Event('input', {bubbles: true}))"


def _set(browser: Browser, name: str, value: str) -> None:
    browser.evaluate(
        f"(() => {{ const s = document.getElementById('answer-filters').elements['{name}']; s.value = '{value}'; {_FIRE}; }})()"
    )


def _brightness(color: str) -> float:
    return sum(float(part) for part in color[color.index("(") + 1 : -1].split(",")[:3]) / 3


def test_the_first_screen_of_a_laptop_has_headline_win_rates_and_warnings(browser: Browser, run_dir: Path) -> None:
    browser.open(run_dir / "report.html", width=1280, height=720)
    ends = browser.evaluate("['h1', '.glance', '.cautions'].map(s => document.querySelector(s).getBoundingClientRect().bottom)")
    assert max(ends) <= 720
    assert browser.evaluate("document.querySelectorAll('.glance tbody tr').length") == 6  # every arm but the baseline
    assert browser.evaluate("document.querySelector('.cautions .count').textContent") == "2 warnings"


def test_sections_fold_links_open_them_and_paper_shows_all(browser: Browser, run_dir: Path) -> None:
    browser.open(run_dir / "report.html")
    is_open = "document.querySelector('#{} > details').open"
    assert browser.evaluate(is_open.format("verdict")) is True
    assert browser.evaluate(is_open.format("failed")) is True  # something failed
    assert browser.evaluate(is_open.format("budget")) is False
    seen = "document.querySelector('#budget table').checkVisibility()"
    assert browser.evaluate(seen) is False
    browser.evaluate("document.querySelector('#verdict summary').click()")
    assert browser.evaluate(is_open.format("verdict")) is False
    browser.evaluate("document.querySelector('nav a[href=\"#budget\"]').click()")
    assert browser.evaluate(is_open.format("budget")) is True
    browser.evaluate("document.querySelector('#budget > details').open = false")
    browser.call("Emulation.setEmulatedMedia", media="print")  # without `beforeprint`: the style alone must do it
    assert browser.evaluate(seen) is True
    browser.call("Emulation.setEmulatedMedia", media="screen")
    browser.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert browser.evaluate("document.querySelectorAll('details:not([open])').length") == 0
    browser.evaluate("dispatchEvent(new Event('afterprint'))")
    assert browser.evaluate(is_open.format("verdict")) is False


def test_a_table_wider_than_a_phone_says_so_and_keeps_its_first_column(browser: Browser, run_dir: Path) -> None:
    browser.open(run_dir / "report.html", width=390)
    box = "document.querySelector('#verdict .scroll')"
    browser.until(f"{box}.classList.contains('wide')")
    assert browser.evaluate(f"getComputedStyle({box}, '::before').content") == '"scrolls sideways \u2192"'
    browser.evaluate(f"{box}.scrollLeft = 10000")
    browser.until(f"{box}.classList.contains('at-end')")
    left = "document.querySelector('#verdict .scroll tbody th').getBoundingClientRect().left"
    assert browser.evaluate(left) < 20
    browser.open(run_dir / "report.html", width=1280)
    assert browser.evaluate("document.querySelector('#budget .scroll').classList.contains('wide')") is False
