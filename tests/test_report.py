"""The report: made of real searches, and looked at in a real browser."""

import dataclasses
import re
import shutil
import time

import numpy as np
import pytest
from browser import chromium, opened, scroll_through
from played import new_ledger, play, propose

import tunekit
from tunekit import choice, loguniform, paths, reporter, uniform
from tunekit.answer import answer_of
from tunekit.cli import main
from tunekit.ledger import Ledger
from tunekit.story import Story

EVIL = "</script><img src=x onerror=alert(1)>"
CLASSES = (EVIL, "{b}|*bold*", "&lt;i&gt;", "zero", "1", "two\x1b[2J", "3", "4", "5", "6")


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture(scope="session")
def searched(tmp_path_factory, ray):
    """A search of digits whose classes have the names that an enemy would give them, its test split opened."""
    digits = tunekit.load_dataset("digits")
    parts = {name: (part.images, part.targets) for name, part in
             (("train", digits.train), ("val", digits.val), ("test", digits.test))}  # fmt: skip
    data = tunekit.Dataset.from_arrays(**parts, name="digits", classes=CLASSES)
    space = {
        "backbone": "mlp",
        "batch_size": choice([64, 128]),
        "optimizer": choice([
            {"name": "sgd", "lr": loguniform(1e-2, 3e-1), "momentum": uniform(0.0, 0.9)},
            {"name": "adam", "lr": loguniform(1e-4, 1e-2)},
        ]),
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("searched")
    results = tunekit.run(
        space, data, num_trials=10, max_epochs=3, searcher="random", verbose=0, folder=folder, name="x"
    )
    results.test()
    return results


@pytest.fixture(scope="session")
def broken(tmp_path_factory, ray):
    """A search with a loop of its own, of which one trial diverges and one fails, with hostile values and reasons."""

    def loop(config, dataset, state=None):
        for epoch in range(1, 4):
            if config["what"] == "fails":
                raise ValueError("<b>no</b> </script><script>alert(2)</script>")
            yield {"score": float("nan") if config["what"] == "diverges" else epoch / 10}, {}

    space = {"what": choice([EVIL, "fails", "diverges", "<!--"])}
    return tunekit.run(
        space, "digits", train=loop, metric="score", mode="max", searcher="grid", scheduler="none", max_epochs=3,
        verbose=0, folder=tmp_path_factory.mktemp("broken"), name="x",
    )  # fmt: skip


@pytest.fixture(scope="module")
def page(searched, browser):
    with opened(browser, searched.report()) as page:
        yield page


def rows(page):
    return [
        [cell.inner_text() for cell in row.query_selector_all("td")]
        for row in page.query_selector_all("#table tbody tr")
    ]


def test_a_search_leaves_a_report_that_no_longer_refreshes_itself(broken):
    text = paths.report_html(broken.folder).read_text()
    assert '"going":false' in text
    assert not list(broken.folder.glob("*.tmp"))


def test_the_page_says_what_was_found(page, searched):
    text = page.inner_text("main")
    assert f"trial {searched.best_trial.number}: val_accuracy {searched.best_value:.4f}" in text
    assert f"{searched.test()['test_accuracy']:.4f}" in text
    assert "confirm=3" in text or "The default config is the best" in text
    assert searched.described_dataset.fingerprint in text
    assert "loguniform(0.01, 0.3)" in text and 'searcher="random"' in text
    assert re.search(r"arithmetic, measured here\s+(float32|bfloat16), (channels_last|contiguous)", text)
    assert page.title() == "x · tunekit"


def test_the_best_value_never_rises_by_a_trial_without_a_score(tmp_path):
    """What a trial had reached counts for nothing once it diverged; what others reached meanwhile does."""
    ledger, story = new_ledger(tmp_path), Story("val_accuracy", "max")
    for values, state in (([0.5, 0.9], "diverged"), ([0.4, 0.6, 0.5], "finished"), ([0.7], None)):
        play(ledger, propose(ledger), values, state)
    story.hear(ledger.events())
    ledger.close()
    assert [best[0] for best in story.best] == [3, 4, 6] and [best.value for best in story.best] == [0.4, 0.6, 0.7]


def test_every_chart_is_drawn_and_told_in_words(page):
    scroll_through(page)
    figures = page.query_selector_all("main figure:has(.chart)")
    assert len(figures) == 7
    for figure in figures:
        assert figure.query_selector("canvas") is not None
        assert len(figure.query_selector("figcaption").inner_text()) > 20
        assert figure.query_selector("[role=img]").get_attribute("aria-label")


def test_one_file_under_6_mb_that_names_its_one_script_and_style(searched):
    path = searched.report()
    text = path.read_text()
    assert path.stat().st_size < 6e6
    assert len(re.findall(r"<script(?! type=\"application/json\")", text.split("<body>")[0])) == 0
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and "unsafe" not in policy
    assert EVIL not in text


def test_no_other_script_may_run(browser, searched):
    with opened(browser, searched.report(), refuses=True) as page:
        page.evaluate("""() => {
            const script = document.createElement("script"), image = document.createElement("img");
            script.textContent = "window.ran = 1";
            image.setAttribute("onerror", "window.ran = 1");
            image.src = "data:image/png;base64,nothing";
            document.body.append(script, image);
        }""")
        page.wait_for_timeout(200)
        assert page.evaluate("window.ran === undefined")


def test_hostile_names_are_shown_as_they_are(browser, searched, broken):
    with opened(browser, searched.report()) as page:
        assert EVIL in page.inner_text("#figures")
        assert "two\\x1b[2J" in page.inner_text("#figures")
        assert page.query_selector_all("img[src=x]") == []
    with opened(browser, broken.report()) as page:
        assert any(EVIL in row[6] for row in rows(page))
        assert any("<b>no</b> </script>" in row[7] for row in rows(page))
        assert "training loop is not tunekit's" in page.inner_text("#figures")
        assert {row[1].strip() for row in rows(page)} == {"finished", "failed", "diverged"}
        scroll_through(page)
        box = page.query_selector("#curves .chart").bounding_box()
        for step in range(0, 60):  # over the lines, for their tooltips
            page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + step * box["height"] / 60)
        assert page.query_selector_all("img[src=x]") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.long
def test_nothing_keeps_people_out_and_nothing_hangs_over(searched, browser, scheme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    with opened(browser, searched.report(), width, scheme=scheme) as page:
        scroll_through(page)
        found = axe.run(page).response["violations"]
        assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_table_is_sorted_by_its_buttons(page):
    page.click("#table thead button:text-is('trial')")
    assert [row[0] for row in rows(page)] == [str(number) for number in range(10)]
    assert page.get_attribute("#table thead th:first-child", "aria-sort") == "ascending"
    page.focus("#table thead button:text-is('trial')")
    page.keyboard.press("Enter")
    assert [row[0] for row in rows(page)] == [str(number) for number in reversed(range(10))]
    assert page.get_attribute("#table thead th:first-child", "aria-sort") == "descending"
    page.click("#table thead button:text-is('val_accuracy')")
    values = [float(row[2]) for row in rows(page)]
    assert values == sorted(values, reverse=True)


def test_the_table_is_searched(page, searched):
    page.get_by_label("Search").fill("optimizer=sgd")
    expected = sum(trial.config["optimizer"] == "sgd" for trial in searched.trials.values())
    assert len(rows(page)) == expected and f"{expected} of 10" in page.inner_text("#count")
    page.get_by_label("Search").fill("nothing like it")
    assert rows(page) == []
    page.get_by_label("Search").fill("")
    assert len(rows(page)) == 10


def test_a_range_dragged_on_an_axis_picks_its_trials(page, searched):
    chart = page.query_selector("#configs .chart")
    chart.scroll_into_view_if_needed()
    page.wait_for_selector("#configs canvas")
    box = chart.bounding_box()
    last = box["x"] + box["width"] - 76  # the metric's axis; see showParallel
    top, bottom = box["y"] + 56, box["y"] + box["height"] - 24
    page.mouse.move(last, top - 4)
    page.mouse.down()
    page.mouse.move(last, top + (bottom - top) * 0.15, steps=5)
    page.mouse.move(last, top + (bottom - top) * 0.3, steps=5)
    page.mouse.up()
    page.wait_for_selector("#unpick:not([hidden])")
    picked = {int(row[0]) for row in rows(page)}
    assert 0 < len(picked) < 10 and searched.best_trial.number in picked
    page.click("#unpick")
    assert len(rows(page)) == 10


def test_one_trial_of_a_regression(tmp_path, browser):
    random = np.random.default_rng(0)
    values = random.uniform(1, 10, 120)
    images = np.clip(values[:, None, None] * 20 + random.normal(0, 9, (120, 8, 8)), 0, 255).astype(np.uint8)
    data = tunekit.Dataset.from_arrays(train=(images, values), name="brightness")
    results = tunekit.train({"backbone": "mlp"}, data, max_epochs=2, folder=tmp_path, name="one", verbose=0)
    with opened(browser, results.report()) as page:
        text = page.inner_text("main")
        assert "Predicted against true, on val" in text and "true " in page.inner_text(".images")
        assert "The test split has not been opened" in text
        assert not paths.test_json(results.folder).exists()
        assert page.is_hidden("#configs")
        assert len(page.query_selector_all(".images img[src^='data:image/png']")) > 0
        scroll_through(page)
        assert page.query_selector("#figures canvas")


def test_one_that_goes_on_refreshes_itself_until_told_not_to(searched, tmp_path, browser):
    shutil.copy(paths.experiment_json(searched.folder), tmp_path)
    ledger = Ledger(tmp_path, write=True)
    number = propose(ledger, {"lr": 0.1})
    ledger.append("started", {"node": "here"}, number)
    story = Story("val_accuracy", "max")
    for epoch in range(3):  # 0: nothing has come to a result yet
        if epoch:
            ledger.append("epoch", {"val_accuracy": epoch / 10}, number, epoch)
        story.hear(ledger.events(after=story.heard))
        described = reporter.read_experiment(tmp_path)
        reporter.write_report(tmp_path / "report.html", tmp_path, described, story, going=True)
        with opened(browser, tmp_path / "report.html") as page:
            assert ("No trial has come to a result yet" if not epoch else "so far") in page.inner_text("#answer")
            assert "running" in rows(page)[0][1]
            page.click("#pause")
            assert page.get_attribute("#pause", "aria-pressed") == "true"
    ledger.close()


def test_a_folder_that_may_not_be_written_and_a_path_elsewhere(searched, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(searched.folder, copy)
    paths.report_html(copy).unlink()
    for path in [*copy.rglob("*"), copy]:
        path.chmod(0o500 if path.is_dir() else 0o400)
    main(["report", str(copy), "--out", str(tmp_path / "page.html")])
    assert capsys.readouterr().out == f"{tmp_path / 'page.html'}\n"
    assert "fingerprint" in (tmp_path / "page.html").read_text()
    assert not paths.report_html(copy).exists()


def test_a_report_that_cannot_be_written_ends_nothing(tmp_path, capsys):
    data = tunekit.load_dataset("digits")
    (tmp_path / "x").mkdir()
    tunekit.train({"backbone": "mlp"}, data, max_epochs=1, folder=tmp_path, name="y", verbose=0)
    page = paths.report_html(tmp_path / "y")
    page.unlink()
    (page / "in the way").mkdir(parents=True)
    results = tunekit.train({"backbone": "mlp"}, data, max_epochs=1, folder=tmp_path, name="y", verbose=1)
    assert results.best_epoch == 1
    assert capsys.readouterr().out.count("the report could not be written") == 1


@pytest.mark.long
def test_a_thousand_trials(searched, tmp_path, browser):
    shutil.copy(paths.experiment_json(searched.folder), tmp_path)
    ledger, random = Ledger(tmp_path, write=True), np.random.default_rng(0)
    ledger._connection.execute("PRAGMA synchronous=OFF")  # 13,000 events, of which none matters
    ledger.append("opened", {"num_trials": 1000})
    for _ in range(1000):
        config = {"lr": float(10 ** random.uniform(-4, 0)), "width": int(random.integers(8, 512)), "backbone": "mlp"}
        config |= {"momentum": float(random.random())} if random.random() < 0.5 else {"optimizer": "adam"}
        number = propose(ledger, config)
        ledger.append("started", {"node": "here"}, number)
        level = 0.9 - 0.1 * abs(np.log10(config["lr"]) + 2) + random.normal(0, 0.01)
        for epoch in range(1, 11):
            ledger.append("epoch", {"val_accuracy": float(level * (1 - 0.5**epoch))}, number, epoch)
        ledger.append("ended", {"state": "finished", "reason": "", "num_epochs": 10}, number)
    ledger.close()
    ledger, story, path = Ledger(tmp_path), Story("val_accuracy", "max"), tmp_path / "report.html"
    story.hear(ledger.events())
    ledger.close()
    began = time.perf_counter()
    reporter.write_report(path, tmp_path, reporter.read_experiment(tmp_path), story, going=False)
    built_s = time.perf_counter() - began
    with opened(browser, path) as page:
        painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        scroll_through(page)
        assert "1,000 of 1,000 trials" in page.inner_text("#count")
        page.click("#later")
        assert "page 2 of 20" in page.inner_text("#page") and len(rows(page)) == 50
    print(f"built in {built_s:.1f} s, {path.stat().st_size / 1e6:.1f} MB, first paint after {painted / 1000:.2f} s")
    assert path.stat().st_size < 6e6


def test_a_ledger_without_trials(tmp_path, searched, browser):
    new_ledger(tmp_path).close()
    shutil.copy(paths.experiment_json(searched.folder), tmp_path)
    with opened(browser, tunekit.load_results(tmp_path).report()) as page:
        assert "No trial has come to a result yet" in page.inner_text("#answer")


def test_a_ledger_of_another_space(tmp_path, searched):
    """Its report says what cannot be looked at, and its model what is wrong."""
    ledger = new_ledger(tmp_path)
    play(ledger, propose(ledger, {"x": 1}), [0.5])
    ledger.close()
    shutil.copy(paths.experiment_json(searched.folder), tmp_path)
    results = tunekit.load_results(tmp_path)
    with pytest.raises(tunekit.ExperimentError, match=r"trial 0 of .* is not of its space"):
        results.best_model()
    assert "is not of its space" in results.report().read_text()


def test_what_was_left_out_of_the_data_is_said(tmp_path, capsys, browser):
    notes = tuple(f"left out <b>{number}</b>.jpg: torn" for number in range(7))
    data = dataclasses.replace(tunekit.load_dataset("digits"), notes=notes)
    results = tunekit.train({"backbone": "mlp"}, data, max_epochs=1, folder=tmp_path, name="x", verbose=1)
    told = capsys.readouterr().out
    assert "digits: left out <b>4</b>.jpg: torn" in told and "<b>5</b>" not in told and "and 2 more such notes" in told
    with opened(browser, results.report()) as page:
        assert "left out <b>4</b>.jpg: torn; and 2 more." in page.inner_text("#asked")


def test_trials_that_confirm_are_told_apart(tmp_path):
    ledger = new_ledger(tmp_path)
    for role in ("search", "winner", "default"):
        play(ledger, propose(ledger, role=role), [0.5])
    story = Story("val_accuracy", "max")
    story.hear(ledger.events())
    ledger.close()
    dataset = tunekit.load_dataset("digits").summary()
    asked = {"metric": "val_accuracy", "mode": "max", "searcher": "random", "scheduler": "none", "train": None}
    cards = answer_of(asked, dataset, story, False, None)["cards"]
    assert (
        cards[-1]["value"] == "1 epoch"
        and "1 trial (1 finished), and 2 more trials to confirm, in" in cards[-1]["note"]
    )
