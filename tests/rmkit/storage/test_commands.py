"""Commands whose inputs and outputs lie in a bucket: the same results as with local files, through faults and kills."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data_pipelines import sample
from rmkit.cli import main as cli
from rmkit.errors import DataError, ModelError
from rmkit.models import load_model
from rmkit.serve.plan import ServePlan, named_models
from rmkit.storage import files as filing
from rmkit.storage.fetch import fetch
from rmkit.storage.marks import UNFINISHED
from rmkit.storage.staged import publishing, staged
from tests.object_storage import SECRET, Bucket
from warehouse.versions.dataset import load_dataset


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setattr(filing, "LONGEST_WAIT_S", 0.01)


def rmkit(capsys: pytest.CaptureFixture[str], line: str) -> dict[str, Any]:
    """The JSON of a command that must succeed."""
    status = cli.main([*line.split(), "--json"])
    out, err = capsys.readouterr()
    assert status == 0, err
    assert SECRET not in out + err
    result: dict[str, Any] = json.loads(out)
    return result


def fails(capsys: pytest.CaptureFixture[str], line: str) -> str:
    """The one line of a command that must fail."""
    assert cli.main(line.split()) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert SECRET not in err
    return err


def put_pairs(bucket: Bucket, n: int = 40) -> list[dict[str, str]]:
    rows = [{"prompt": f"What is {k}?", "chosen": f"It is {k}.", "rejected": f"{k}, I guess, or so."} for k in range(n)]
    for half in (0, 1):
        text = "".join(json.dumps(row) + "\n" for row in rows[half::2])
        bucket.client.pipe_file(f"{bucket.address}/dumps/part{half}.jsonl", text.encode())
    bucket.client.pipe_file(f"{bucket.address}/dumps/part0.jsonl.source.toml", b'license = "MIT"')
    return rows


def test_ingest_by_pattern_keeps_the_address_and_nothing_else(
    bucket: Bucket, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_pairs(bucket)
    bucket.faults.plan += [("cut", "GET", "part0.jsonl$"), ("503", "GET", "part1"), ("short", "GET", "part1")]
    pattern = f"{bucket.address}/dumps/*.jsonl"
    [facts] = rmkit(capsys, f"ingest {pattern} --name d")["files"]
    assert (facts["path"], facts["accepted"], facts["license"]) == (pattern, 40, "MIT")
    assert bucket.faults.struck == ["cut", "503", "short"]
    assert not [path for path in (home / "fetched").iterdir() if path.is_dir()]  # ingested files are not kept
    [again] = rmkit(capsys, f"ingest {pattern} --name d")["files"]
    assert again["version"] == facts["version"]


def test_an_export_to_an_address_is_the_one_to_a_folder(
    bucket: Bucket, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_pairs(bucket)
    bucket.client.get(f"{bucket.address}/dumps/", str(tmp_path / "dumps"), recursive=True)
    rmkit(capsys, f"ingest {bucket.address}/dumps --name d")
    exported = rmkit(capsys, f"export d -o {bucket.address}/exports/d")
    assert exported["path"] == f"{bucket.address}/exports/d"
    assert rmkit(capsys, f"export d -o {bucket.address}/exports/d") == exported
    assert list((home / "staged").iterdir()) == []
    refused = fails(capsys, f"export d --format trl -o {bucket.address}/exports/d")
    assert f"never replaced; name another address; what was to be published lies in {home}/staged/" in refused
    verified = rmkit(capsys, f"export --verify {bucket.address}/exports/d")
    monkeypatch.setenv("RMKIT_HOME", str(tmp_path / "other"))
    rmkit(capsys, f"ingest {tmp_path}/dumps --name d")
    local = rmkit(capsys, f"export d -o {tmp_path}/exported")
    assert local | {"path": ""} == exported | {"path": ""} == verified | {"path": ""}
    assert load_dataset(f"{bucket.address}/exports/d").digest == local["digest"]
    fetched = fetch(f"{bucket.address}/exports/d")
    names = sorted(path.name for path in fetched.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "exported").iterdir())
    for name in set(names) - {"manifest.json", "README.md", "croissant.json"}:  # these name the sources
        assert (fetched / name).read_bytes() == (tmp_path / "exported" / name).read_bytes()


def test_a_finished_scores_file_is_given_back_and_never_replaced(
    bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    put_pairs(bucket)
    data, out = f"{bucket.address}/dumps/part0.jsonl", f"{bucket.address}/scores/a.jsonl"
    first = rmkit(capsys, f"score length {data} -o {out}")
    assert bucket.names("scores") == ["a.jsonl", "a.jsonl.run.json"]
    again = rmkit(capsys, f"score length {data} -o {out}")
    assert (first["path"], again["resumed"]) == (out, 20)
    assert out in fails(capsys, f"score length {bucket.address}/dumps/part1.jsonl -o {out}")


def test_results_wait_for_the_publication(bucket: Bucket, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_pairs(bucket)
    data, out = f"{bucket.address}/dumps/part0.jsonl", f"{bucket.address}/scores/b.jsonl"
    bucket.faults.plan += [("500", "PUT", "scores")] * 30
    assert cli.main(f"score length {data} -o {out}".split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"rmkit: {bucket.address}/scores/b.jsonl.run.json: ")
    assert bucket.names("scores") == []
    bucket.faults.plan.clear()
    assert rmkit(capsys, f"score length {data} -o {out}")["resumed"] == 20  # what was scored is only published


def test_addresses_that_do_not_fit_are_one_line(bucket: Bucket, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = "is an address, and only files and folders of this machine do here"
    assert here in fails(capsys, f"calibrate {bucket.address}/m --data d")
    assert here in fails(capsys, f"memory add {bucket.address}/m.jsonl d")
    assert here in fails(capsys, f"serve length --swap-root {bucket.address}/m")
    assert "unknown scheme 'foo://'" in fails(capsys, "export d -o foo://bucket/x")
    assert "gcsfs is not installed" in fails(capsys, "ingest gs://bucket/x.jsonl")
    assert f"{bucket.address}/none: nothing is there" in fails(capsys, f"verify {bucket.address}/none")
    secret = fails(capsys, f"ingest s3://me:{SECRET}@bucket/x.jsonl")
    assert "s3://***@bucket/x.jsonl: an address holds no account" in secret
    assert [path for path in home.rglob("*") if path.is_file()] == []


def test_a_signed_web_address_is_ingested_and_its_signature_kept_nowhere(
    bucket: Bucket, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_pairs(bucket)
    plain = f"{os.environ['AWS_ENDPOINT_URL']}/{bucket.address.removeprefix('s3://')}/dumps/part0.jsonl"
    [facts] = rmkit(capsys, f"ingest {plain}?X-Amz-Signature={SECRET}")["files"]
    assert (facts["path"], facts["dataset"], facts["accepted"]) == (f"{plain}?***", "part0", 20)
    assert not any(SECRET.encode() in path.read_bytes() for path in home.rglob("*") if path.is_file())


@pytest.mark.slow
def test_no_log_line_tells_a_token(
    bucket: Bucket, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = os.environ | {"AWS_SESSION_TOKEN": SECRET, "RMKIT_HOME": str(home)}
    put_pairs(bucket)
    ended = subprocess.run(
        [sys.executable, "-m", "rmkit", "--debug", "ingest", f"{bucket.address}/dumps/part0.jsonl"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "DEBUG" in ended.stderr
    assert SECRET not in ended.stdout + ended.stderr
    assert not any(SECRET.encode() in path.read_bytes() for path in home.rglob("*") if path.is_file())


@pytest.mark.slow
def test_round_trip_under_faults(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ingest, clean, export, train, score, evaluate, back up and restore in a bucket, each with 500s, slow, cut and
    wrong answers on the way, and the same on local files: equal digests, scores and fingerprints."""
    data, _ = sample.write(tmp_path / "sample", sample.SampleConfig(pairs=400))
    bucket.client.put_file(str(data), f"{bucket.address}/in/sample.jsonl")
    kinds = ("500", "503", "reset", "slow")

    def command(line: str) -> dict[str, Any]:
        bucket.faults.plan[:] = [(kind, method, "") for kind in kinds for method in ("GET", "PUT", "HEAD", "POST")]
        contents = r"\.(jsonl|parquet|npz|duckdb|sqlite)$"
        bucket.faults.plan += [(kind, "GET", contents) for kind in ("cut", "short", "spoil")]
        return rmkit(capsys, line)

    def chain(where: str, source: str) -> dict[str, Any]:
        monkeypatch.setenv("RMKIT_HOME", str(tmp_path / ("s3" if "://" in where else "local")))
        command(f"ingest {source} --name d --license MIT")
        command("run clean --data d")
        export = command(f"export d -o {where}/export")
        model = command(f"train lexical --data {where}/export -o {where}/models/lex")
        command(f"score {where}/models/lex {where}/export --split test -o {where}/scores.jsonl")
        result = command(f"eval {where}/models/lex --data {where}/export -o {where}/reports/eval.json")
        command(f"verify {where}/models/lex")
        command(f"backup {where}/backups/one")
        monkeypatch.setenv("RMKIT_HOME", str(tmp_path / f"{Path(os.environ['RMKIT_HOME']).name}-back"))
        command(f"restore {where}/backups/one")
        [restored] = command("datasets")["datasets"]
        facts = {"export": export["rows_digest"], "model": model["fingerprint"], "restored": restored["digest"]}
        return facts | {"eval": result["models"][0]["measures"]}

    far, near = chain(bucket.address, f"{bucket.address}/in/sample.jsonl"), chain(str(tmp_path / "out"), str(data))
    assert {*kinds, "cut", "short", "spoil"} <= {*bucket.faults.struck}
    assert far == near
    scores = fetch(f"{bucket.address}/scores.jsonl").read_bytes()
    assert scores == (tmp_path / "out" / "scores.jsonl").read_bytes()
    assert not [key for key in bucket.names() if UNFINISHED in key]


@pytest.mark.slow
def test_a_killed_fetch_leaves_nothing_behind(bucket: Bucket, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_pairs(bucket, 2000)
    bucket.faults.plan += [("slow", "GET", "part0.jsonl$"), ("kill", "GET", "part1.jsonl$")]
    running = subprocess.Popen([sys.executable, "-m", "rmkit", "ingest", f"{bucket.address}/dumps", "--name", "d"])
    bucket.faults.pid = running.pid
    assert running.wait() == -9
    assert [path.suffix for path in (home / "fetched").iterdir() if path.is_dir()] == [".rmkit-draft"]
    rmkit(capsys, "suites")  # any command sweeps it away
    assert not [path for path in (home / "fetched").iterdir() if path.is_dir()]
    assert rmkit(capsys, f"ingest {bucket.address}/dumps --name d")["files"][0]["accepted"] == 2000


@pytest.mark.slow
@pytest.mark.parametrize("change", range(1, 7))
def test_a_killed_publication_shows_nothing_or_all(
    change: int, bucket: Bucket, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An export is killed at each of the six changes that publish it: the list, four files, the end of the list; and
    once more where it goes on from what the first left."""
    put_pairs(bucket)
    rmkit(capsys, f"ingest {bucket.address}/dumps/part0.jsonl --name d")
    address, codes = f"{bucket.address}/exports/d", []
    for _ in range(2):
        running = subprocess.Popen([sys.executable, "-m", "rmkit", "export", "d", "-o", address])
        bucket.faults.pid, bucket.faults.kill_at = running.pid, change
        codes.append(running.wait())
        bucket.faults.kill_at = 0
        if "manifest.json" in bucket.names("exports/d"):
            assert change == 6 or len(codes) == 2  # what was there already is not put again
            assert rmkit(capsys, f"export --verify {address}")["n_rows"] == 20
        else:
            with pytest.raises(DataError, match=r"nothing is there" if change == 1 else r"is not finished"):
                fetch(address)
    assert codes[0] == -9
    rmkit(capsys, f"export d -o {address}")
    assert rmkit(capsys, f"export --verify {address}")["n_rows"] == 20
    assert bucket.names("exports/d") == ["README.md", "croissant.json", "manifest.json", "rows-00000.parquet"]


def test_two_commands_do_not_write_for_one_address(
    bucket: Bucket, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_pairs(bucket)
    with publishing():
        path = staged(f"{bucket.address}/page.html")
        path.write_text("half a page")
        busy = fails(capsys, f"score length {bucket.address}/dumps/part0.jsonl -o {bucket.address}/page.html")
        assert f"another rmkit process writes for {bucket.address}/page.html" in busy
        assert bucket.names() == ["dumps/part0.jsonl", "dumps/part0.jsonl.source.toml", "dumps/part1.jsonl"]
    assert bucket.client.cat_file(f"{bucket.address}/page.html") == b"half a page"


def test_an_option_that_is_wrong_is_told_before_the_storage_is_asked(
    bucket: Bucket, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--split" in fails(capsys, f"export d -o {bucket.address}/x --splits train")
    assert "--seed" in fails(capsys, f"train lexical --data {bucket.address}/x -o {bucket.address}/y --seed none")
    assert (bucket.faults.requests, list(home.glob("*"))) == ([], [])


@pytest.mark.slow
def test_a_published_model_is_promoted_by_its_address(
    bucket: Bucket, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_pairs(bucket, 600)
    rmkit(capsys, f"ingest {bucket.address}/dumps/part0.jsonl --name d")
    rmkit(capsys, "run clean --data d")
    address = f"{bucket.address}/models/lex"
    assert rmkit(capsys, f"train lexical --data d -o {address}")["path"] == address
    assert "a published folder is never replaced" in fails(capsys, f"train lexical --data d -o {address}")
    assert rmkit(capsys, f"models promote {address} hh@prod")["path"] == address
    shutil.rmtree(home / "fetched")
    assert rmkit(capsys, "verify hh@prod")["fingerprint"]
    plan = ServePlan(models=named_models([address]))
    assert plan.load("lex").info.fingerprint == load_model("hh@prod").info.fingerprint
    with pytest.raises(ModelError, match="not a folder, not a name"):  # no request makes the service fetch
        plan.load_swapped(address)
    bucket.client.rm(address, recursive=True)
    assert "nothing is there" in fails(capsys, "verify hh@prod")
