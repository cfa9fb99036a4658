import json
import mmap
import subprocess
import sys
import time
import zlib

import pytest
from fakes import fake_model, predictable

from laconic.bench.measure import WARM_UP_BYTES, CodecResult, Measurement, Sample, measure, read_samples
from laconic.bench.peers import Codec
from laconic.bench.subject import compile_kernels
from laconic.coder import kernels
from laconic.coder.codec import decode_segment, encode_segment
from laconic.coder.errors import LaconicError
from laconic.coder.mixing import kernels as mixing
from laconic.coder.model import ensemble

ZLIB = Codec("zlib", "zlib 1", zlib.compress, zlib.decompress)
SAMPLES = [Sample("a", b"abc" * 1000), Sample("nothing", b""), Sample("b", bytes(500))]


def test_bytes_are_those_of_the_output():
    result = measure(ZLIB, SAMPLES)
    assert [m.compressed_bytes for m in result.measurements] == [len(zlib.compress(s.data)) for s in SAMPLES]
    assert result.file_bytes == 3500
    assert result.bits_per_byte == 8 * result.compressed_bytes / 3500
    assert result.measurements[1].bits_per_byte == 0.0
    assert result.ready_seconds > 0


def test_speed_is_a_ratio_of_sums():
    result = CodecResult(
        "c", "1", 0.0, None, [Measurement("a", 1000, 10, 0.5, 0.25), Measurement("b", 3000, 10, 1.5, 0.25)]
    )
    assert result.compress_kb_per_second == 2.0
    assert result.decompress_kb_per_second == 8.0


def test_methods_are_summed_over_files():
    codec = Codec("two", "1", bytes, bytes, lambda blob: {"short" if len(blob) < 1000 else "long": len(blob)})
    result = measure(codec, [*SAMPLES, Sample("c", bytes(2000))])
    assert result.methods == {"long": 5000, "short": 500}
    assert measure(ZLIB, SAMPLES).methods == {}


def test_the_first_use_is_outside_the_timing():
    seen = []

    def compress(data: bytes) -> bytes:
        seen.append(data)
        return data

    data = bytes(range(256)) * 64
    measure(Codec("copy", "1", compress, bytes), [SAMPLES[1], Sample("f", data)])
    assert seen == [data[:WARM_UP_BYTES], b"", data]


def test_what_is_prepared_is_outside_the_timing():
    begun = []

    def compress(data: bytes) -> bytes:
        assert begun
        return data

    codec = Codec("slow", "1", compress, bytes, prepare=lambda: begun.append(time.sleep(0.2)))
    assert measure(codec, SAMPLES).ready_seconds < 0.2
    assert len(begun) == 1


def test_every_kernel_is_compiled_before_the_timing():
    code = (
        "from laconic.bench.subject import compile_kernels; from laconic.coder import kernels; "
        "from laconic.coder.mixing import kernels as mixing; compile_kernels(); "
        "names = ('encode_tokens', 'finish_encoding', 'decode_each', '_code_lengths'); "
        "entries = [*(getattr(kernels, name) for name in names), mixing.code_tokens]; "
        "print([len(kernel.signatures) for kernel in entries])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[1, 1, 1, 1, 1]\n"


@pytest.mark.parametrize("level", [1, 2, 9])
def test_the_coder_asks_for_no_other_compilation(level):
    compile_kernels()
    entries = (
        kernels.encode_tokens,
        kernels.finish_encoding,
        kernels.decode_each,
        kernels._code_lengths,
        mixing.code_tokens,
    )
    before = [len(kernel.signatures) for kernel in entries]
    model, data = fake_model(), predictable(30_000)
    models = [None, model] if level == 1 else [None, model, ensemble([model, fake_model("other", 5)])]
    for predictor in models:
        assert decode_segment(encode_segment(data, predictor, level=level), predictor) == data
    assert [len(kernel.signatures) for kernel in entries] == before


@pytest.mark.parametrize(
    ("restored", "place"), [(b"abX", "2"), (b"abcd", "3"), (b"a", "1"), (b"", "0"), (b"Xbc", "0")]
)
def test_a_round_trip_that_differs_is_an_error(restored, place):
    broken = Codec("broken", "1", bytes, lambda blob: restored)
    with pytest.raises(
        LaconicError, match=rf"broken did not restore f: {len(restored)} of 3 bytes .* from byte {place} on"
    ):
        measure(broken, [Sample("f", b"abc")])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process its peak")
def test_peak_memory_sees_what_a_codec_takes():
    size = 64 << 20

    def take(data: bytes) -> bytes:
        with mmap.mmap(-1, size) as fresh:  # no memory that an earlier test gave back to the process
            fresh.write(bytes(size))
        return data

    result = measure(Codec("greedy", "1", take, bytes), SAMPLES[:1])
    if result.peak_bytes is None:
        pytest.skip("this system does not let a process restart its peak")
    assert 0.9 * size < result.peak_bytes < 3 * size


def test_results_become_json():
    as_json = json.loads(json.dumps(measure(ZLIB, SAMPLES).as_json()))
    assert as_json["measurements"][0]["file"] == "a"
    assert as_json["bits_per_byte"] > 0


def test_files_are_read_and_faults_named(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"\xff\0")
    assert read_samples([str(path)]) == [Sample(str(path), b"\xff\0")]
    with pytest.raises(LaconicError, match="missing: No such file"):
        read_samples([str(path), str(tmp_path / "missing")])
    with pytest.raises(LaconicError, match="give files that can be read"):
        read_samples([str(tmp_path)])
