import hashlib
import json
from dataclasses import replace
from types import SimpleNamespace

from laconic.bench.measure import CodecResult, Measurement, Sample
from laconic.bench.report import NOT_KNOWN, Report, short_names

SAMPLES = [Sample("dir/seen.txt", b"x" * 1000), Sample("dir/new.txt", b"y" * 3000)]


def result(codec: str, *compressed: int) -> CodecResult:
    measurements = [
        Measurement(sample.name, len(sample.data), size, 0.5, 0.25, {"mixed": len(sample.data)})
        for sample, size in zip(SAMPLES, compressed, strict=True)
    ]
    level = 6 if codec.startswith("laconic") else None
    return CodecResult(codec, f"{codec} 1.0", 0.01, 2_000_000, measurements, level=level)


def checkpoint(size: int = 90_000):
    corpora = [{"source": "dir/seen.txt", "bytes": 1000, "sha256": hashlib.sha256(b"x" * 1000).hexdigest()}]
    return SimpleNamespace(
        id=bytes(range(32)), path="here/nano", size_bytes=size, summary={"corpora": corpora}
    )


def report(ours=(100, 300), **more) -> Report:
    results = [result("laconic", *ours), result("xz -9e", 150, 400), result("gzip -9", 200, 500)]
    return Report(SAMPLES, results, **{"checkpoints": [checkpoint()], **more})


def test_size_tables_line_up_and_add_up():
    assert report().bytes_table().splitlines() == [
        "compressed bytes  bytes  laconic  xz -9e  gzip -9",
        "-------------------------------------------------",
        "seen.txt          1,000      100     150      200",
        "new.txt           3,000      300     400      500",
        "-------------------------------------------------",
        "total             4,000      400     550      700",
    ]
    assert report().bits_table().splitlines()[-1].split() == ["total", "4,000", "0.800", "1.100", "1.400"]


def test_break_even_is_where_output_and_checkpoint_meet_the_best_peer():
    size = report().break_even_bytes()
    assert size == round(90_000 * 8 / 0.3)
    assert abs(size * 0.8 / 8 + 90_000 - size * 1.1 / 8) < 1
    assert "2,400,000 bytes of such text" in report().account()


def test_checkpoints_that_predict_together_break_even_together():
    pair = report(checkpoints=[checkpoint(), checkpoint(30_000)])
    assert pair.break_even_bytes() == round(120_000 * 8 / 0.3)
    assert "120,000, not counted in the tables" in pair.account()
    assert [member["bytes"] for member in pair.as_json()["checkpoint"]["members"]] == [90_000, 30_000]


def test_break_even_is_never_where_there_is_no_gain():
    assert report(ours=(150, 400)).break_even_bytes() is None
    assert "never: xz -9e makes these files no larger" in report(ours=(500, 500)).account()


def test_without_peers_or_checkpoint_there_is_no_break_even():
    assert Report(SAMPLES, [result("laconic", 1, 2)], checkpoints=[checkpoint()]).break_even_bytes() is None
    alone = Report(SAMPLES, [result("laconic", 1, 2), result("xz -9e", 3, 4)])
    assert alone.break_even_bytes() is None
    assert "checkpoint   " not in alone.text()
    assert alone.as_json()["checkpoint"] is None


def test_what_was_seen_is_said_only_where_it_is_known():
    whole = report()
    assert whole.seen(SAMPLES[0]) == "yes, it is one of the training sources"
    assert whole.seen(SAMPLES[1]) == NOT_KNOWN
    assert whole.seen(Sample("z", b"z", "no, held out")) == "no, held out"
    assert report(checkpoints=()).seen(SAMPLES[0]) == NOT_KNOWN
    assert "seen before  yes, it is one of the training sources: seen.txt" in whole.account()
    assert "seen before  not known: new.txt" in whole.account()


def test_a_checkpoint_without_a_training_summary_is_not_known():
    bare = SimpleNamespace(id=bytes(32), path="p", size_bytes=1, summary={})
    assert report(checkpoints=[bare]).seen(SAMPLES[0]) == NOT_KNOWN


def test_the_account_names_checkpoint_and_peers_left_out():
    text = report(left_out=["brotli: left out, brotli is not installed"]).text()
    assert "brotli: left out" in text
    assert "checkpoint   here/nano, id 0001020304050607\n" in text
    assert "90,000, not counted in the tables" in text
    assert "Every round trip was compared and is equal." in text


def test_what_the_model_did_not_code_is_said():
    def coded_by(**methods) -> Report:
        ours = replace(result("laconic", 100, 300), measurements=[Measurement("f", 4000, 400, 1, 1, methods)])
        return Report(SAMPLES, [ours, result("xz -9e", 150, 400)], checkpoints=[checkpoint()])

    assert "Not all of it" not in coded_by(model=4000).account()
    assert "model 75.0%, lzma 25.0% of the bytes" in coded_by(model=3000, lzma=1000).account()


def test_a_checkpoint_that_was_not_used_has_no_break_even():
    methods = {"experts": 1000, "lzma": 2000, "raw": 1000}
    ours = replace(result("laconic", 100, 300), measurements=[Measurement("f", 4000, 400, 1, 1, methods)])
    unused = Report(SAMPLES, [ours, result("xz -9e", 150, 400)], checkpoints=[checkpoint()])
    assert "break-even   none: laconic did not use the checkpoint" in unused.account()
    assert "of such text" not in unused.account()
    assert "None of it was coded by the model" in unused.account()
    out = unused.as_json()["checkpoint"]
    assert (out["used"], out["break_even_bytes"]) == (False, None)
    alone = Report(SAMPLES, [ours], checkpoints=[checkpoint()])
    assert "None of it was coded by the model" in alone.account()
    assert "break-even" not in alone.account()


def test_levels_are_all_ours_and_the_smallest_of_them_breaks_even():
    results = [result("laconic -1", 150, 350), result("laconic -9", 100, 300), result("xz -9e", 150, 400)]
    levels = Report(SAMPLES, results, checkpoints=[checkpoint()])
    assert levels.break_even_bytes() == round(90_000 * 8 / 0.3)
    assert "of such text by laconic -9; beyond, output and checkpoint are below xz -9e's" in levels.account()
    coded = [Measurement("f", 4000, 450, 1, 1, {"lzma": 4000})]
    by_lzma = Report(
        SAMPLES, [replace(results[0], measurements=coded), *results[1:]], checkpoints=[checkpoint()]
    )
    assert "laconic -1: none of it was coded by the model" in by_lzma.account()
    assert by_lzma.break_even_bytes() == round(90_000 * 8 / 0.3)
    alone = Report(SAMPLES, results[:2], checkpoints=[checkpoint()])
    assert alone.break_even_bytes() is None
    assert "break-even" not in alone.text()


def test_json_holds_every_figure():
    out = json.loads(json.dumps(report().as_json()))
    assert (out["checkpoint"]["used"], out["checkpoint"]["break_even_bytes"]) == (True, 2_400_000)
    assert [codec["compressed_bytes"] for codec in out["codecs"]] == [400, 550, 700]
    assert out["files"][0]["sha256"] == hashlib.sha256(b"x" * 1000).hexdigest()


def test_names_lose_folders_only_where_they_stay_distinct():
    assert short_names(["a/b.txt", "c/d.txt"]) == ["b.txt", "d.txt"]
    assert short_names(["a/b.txt", "c/b.txt"]) == ["a/b.txt", "c/b.txt"]
    assert short_names(["q" * 50]) == ["..." + "q" * 29]
