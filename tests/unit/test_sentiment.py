"""The sentiment monitor: rises are found, chance seldom alarms, counts add up, and no text is kept or sent."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fedrec.errors import ConfigError, ModelError, RunError
from fedrec.model.sentences import SentenceEncoder, encode_kept
from fedrec.sentiment.change import RiseSettings, RiseWatch, threshold_for
from fedrec.sentiment.head import HeadInputs, Judge, SentimentHead
from fedrec.sentiment.monitor import Monitor, MonitorSettings
from fedrec.sentiment.topics import OTHER, Topics
from fedrec.tasks.head import HeadShape, TaskHead, head_state
from fedrec_client.serving.learning.alerts import Alerts
from fedrec_sim.cli import app
from fedrec_sim.sentiment.streams import Cusum, ShareOfWindow, StreamShape, choose, measure
from fedrec_sim.sentiment.watching import Sending, Watching

RISE = RiseSettings(0.3, 0.6, 1.0)


def test_chance_alarms_about_as_seldom_as_it_is_told_to() -> None:
    watch = RiseWatch(RISE, threshold_for(RISE))
    alarms = sum(watch.take(bool(yes)) > 0 for yes in np.random.default_rng(7).random(100_000) < 0.3)
    assert 70 <= alarms <= 130  # 100 expected; other draws than those of the threshold


def test_evidence_is_that_of_the_likeliest_beginning() -> None:
    """Page's recursion against every beginning tried by itself."""
    rng = np.random.default_rng(3)
    stream = (rng.random(200) < 0.45).tolist()
    watch, (yes, no) = RiseWatch(RISE, 1e9), RISE.gains
    for at, one in enumerate(stream, start=1):
        watch.take(one)
        slow = max(sum(yes if x else no for x in stream[start:at]) for start in range(at + 1))
        assert watch.evidence == pytest.approx(max(0.0, slow), abs=1e-9)


def test_a_jump_is_found_at_once_and_false_alarms_and_misses_are_counted() -> None:
    shape = StreamShape(before=50, after=20)
    jump = np.array([False] * 50 + [True] * 20)
    found = measure(lambda: Cusum(RISE, 3.0), [jump, ~jump], shape, 10)
    assert found["delay_texts"]["median"] == 5  # ceil(3.0 / log 2)
    assert (found["missed"], found["false_alarms"]) == (1, 10)
    assert measure(lambda: ShareOfWindow(4, 1.0), [jump], shape, 10)["delay_texts"]["median"] == 4
    quick = {"streams": 2, "missed": 0, "delay_texts": {"mean": 3.0}, "false_alarms_per_1000": 9.0}
    slow = {**quick, "delay_texts": {"mean": 9.0}, "false_alarms_per_1000": 0.1}
    assert choose({"quick": quick, "slow": slow}, 0.5) == "slow"


def test_windows_add_up_and_a_rise_names_its_topic() -> None:
    monitor = Monitor(MonitorSettings(RISE, window_texts=10, neutral_band=0.1))
    calm = monitor.take([0.1] * 40 + [0.55] * 5, ["story"] * 45, 1.0)
    assert calm == []
    rises = monitor.take([0.9] * 20, ["sound"] * 20, 2.0)
    assert [rise.topic for rise in rises][:1] == ["sound"]
    assert rises[0].share == 1.0
    assert rises[0].text == 45 + rises[0].texts
    assert sum(window.texts for window in monitor.windows) == monitor.texts == 65
    assert [window.texts for window in monitor.windows] == [10] * 6 + [5]
    assert monitor.windows[4].sentiments == {"neutral": 5, "negative": 5}


def test_settings_that_make_no_sense_are_refused() -> None:
    for base, raised in ((0.6, 0.3), (0.0, 0.5), (0.5, 1.0)):
        with pytest.raises(ValueError, match="rise within"):
            RiseSettings(base, raised)
    with pytest.raises(ConfigError, match=OTHER):
        Topics.seeded({OTHER: ("x",)}, lambda texts: np.ones((len(texts), 2), np.float32))


def test_topics_are_those_of_the_nearest_prototype() -> None:
    topics = Topics(("a", "b"), np.eye(2, 3, dtype=np.float32), least=0.5)
    assert topics.of(np.array([[0.9, 0.1, 0], [0.2, 0.8, 0], [0.1, 0.1, 0.9]], np.float32)) == ["a", "b", OTHER]


def test_vectors_are_kept_and_a_damaged_file_is_made_anew(tiny_llama: Path, tmp_path: Path) -> None:
    encoder = SentenceEncoder(tiny_llama)
    first = encode_kept(encoder, ["space war", "quiet river"], tmp_path)
    assert np.linalg.norm(first, axis=1) == pytest.approx([1.0, 1.0], abs=1e-5)
    (kept,) = (tmp_path / "sentences").iterdir()
    kept.write_bytes(b"broken")
    assert np.array_equal(encode_kept(encoder, ["space war", "quiet river"], tmp_path), first)


class Hook(BaseHTTPRequestHandler):
    bodies: list[bytes] = []  # noqa: RUF012  # of the one server of this test

    def do_POST(self) -> None:
        self.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


def head_of(encoder: SentenceEncoder, bias: float) -> SentimentHead:
    """All that comes is negative, or positive."""
    head = TaskHead(HeadShape(32, 2))
    head.outer.bias.data[1] = bias
    return SentimentHead.of(HeadInputs(encoder=encoder.name, width=32, scale=1.0, last_letters=240), head_state(head))


def test_an_alarm_reaches_log_webhook_and_page_and_no_text_does(
    tiny_llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = HTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    encoder = SentenceEncoder(tiny_llama)
    topics = Topics.seeded({"rivers": ("quiet river",)}, encoder.encode, least=-1.0)
    sending = Sending(Alerts(f"http://127.0.0.1:{server.server_port}/hook"))
    watching = Watching(Judge(head_of(encoder, 5.0), encoder, topics), Monitor(MonitorSettings(RISE, 20)), sending.send)
    rises, filled = watching.take(["loud space drama"] * 30, 1.0)
    thread.join(timeout=10)  # it is sent while nobody waits for it
    sending.close(waits=True)
    watching.write(tmp_path)
    server.server_close()
    assert [window.texts for window in filled] == [20]
    body = json.loads(Hook.bodies[0])
    assert (body["kind"], body["figures"]["topic"]) == ("negative texts", "rivers")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "negative texts" in caplog.text
    assert "rivers" in page
    said = [str(rise) for rise in rises]
    for told in (caplog.text, page, Hook.bodies[0].decode(), *said, (tmp_path / "metrics.json").read_text()):
        assert "loud space drama" not in told


def test_a_text_without_a_token_is_left_out_and_the_others_count(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = SentenceEncoder(tiny_llama)
    judge = Judge(head_of(encoder, -5.0), encoder, Topics.seeded({"rivers": ("quiet river",)}, encoder.encode))
    read = encoder.encode

    def strict(texts: list[str]) -> object:
        if "?" in texts:
            raise ModelError("no token", "mend it")
        return read(texts)

    monkeypatch.setattr(encoder, "encode", strict)
    watching = Watching(judge, Monitor(MonitorSettings(RISE)), lambda _: None)
    watching.take(["loud", "?", "space"], 1.0)
    watching.take(["?"], 1.0)
    assert (watching.unread, watching.monitor.texts) == (2, 2)


def test_a_monitor_goes_on_where_its_counts_ended() -> None:
    rng = np.random.default_rng(5)
    likely = np.where(rng.random(400) < 0.45, 0.9, 0.1).tolist()
    topics = [("sound", "story")[int(one)] for one in rng.random(400) < 0.5]
    whole, first, second = (Monitor(MonitorSettings(RISE, 7)) for _ in range(3))
    rises = whole.take(likely, topics, 1.0)
    assert rises
    first.take(likely[:203], topics[:203], 1.0)
    second.restore(json.loads(json.dumps(first.to_dict())), goes_on=True)
    second.take(likely[203:], topics[203:], 1.0)
    assert second.to_dict() == whole.to_dict()
    for wrong in ({}, {**first.to_dict(), "evidence": -1.0}, {**first.to_dict(), "negative": {"sound": -1}}):
        fresh = Monitor(MonitorSettings(RISE, 7))
        with pytest.raises((KeyError, ValueError)):
            fresh.restore(wrong, goes_on=True)
        assert (fresh.texts, len(fresh.windows)) == (0, 0)


def test_without_a_head_nothing_is_watched(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no head yet"):
        Watching.open(tmp_path, RISE, lambda _: None)


def test_what_cannot_be_watched_is_told_in_words(tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("one\n", encoding="utf-8")
    for args, words in (
        (["nothing.txt"], "no such file"),
        ([str(tmp_path)], "no such file"),
        ([str(texts), "--base", "0.6", "--raised", "0.5"], "not above --base"),
        ([str(texts), "--webhook", "http://example.org/x"], "--webhook: no https address"),
        ([str(texts)], "no head yet"),
    ):
        result = CliRunner().invoke(app, ["sentiment", "watch", *args, "--runs", str(tmp_path / "runs")])
        assert result.exit_code != 0
        assert words in " ".join(str(result.exception).split()), words
