"""Files and folders to and from a bucket whose answers fail."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rmkit.errors import DataError, MissingExtraError, StoreError, UsageError
from rmkit.storage import fetch as fetching
from rmkit.storage import files as filing
from rmkit.storage import publish as publishing
from rmkit.storage.address import is_address, name_of, redacted, scheme_of
from rmkit.storage.checksums import matches
from rmkit.storage.fetch import fetch, fetch_matching, forget
from rmkit.storage.marks import UNFINISHED
from rmkit.storage.publish import publish_file, publish_folder
from tests.object_storage import SECRET, Bucket


def noise(n: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(n)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 1,000 bytes, and next to no waiting between attempts."""
    monkeypatch.setattr(fetching, "PART_BYTES", 1000)
    monkeypatch.setattr(filing, "LONGEST_WAIT_S", 0.01)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An artifact of three files and the one that names them."""
    path = tmp_path / "model"
    (path / "tokenizer").mkdir(parents=True)
    contents = {"weights.npz": noise(5000), "README.md": b"a card", "tokenizer/vocab.json": b"{}"}
    for name, content in contents.items():
        (path / name).write_bytes(content)
    listed = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    (path / "reward_model.json").write_text(json.dumps({"files": listed}))
    return path


def contents(path: Path) -> dict[str, bytes]:
    return {one.relative_to(path).as_posix(): one.read_bytes() for one in sorted(path.rglob("*")) if one.is_file()}


def test_addresses() -> None:
    assert is_address("s3://bucket/key")
    assert not is_address("a/b:c")
    assert not is_address("C:/data")
    assert (
        name_of("s3://bucket/dumps/a.jsonl") == name_of("https://host/dumps/a.jsonl?X-Amz-Signature=1/2") == "a.jsonl"
    )
    assert name_of("s3://bucket/hh/") == "hh"
    with pytest.raises(UsageError, match="names no file or folder"):
        name_of("s3://")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot read s3://me:pass@bucket/x: gone", "cannot read s3://***@bucket/x: gone"),
        ("'https://h/x.jsonl?sig=a%2Fb&t=1' failed", "'https://h/x.jsonl?***' failed"),
        ("postgresql://user:pw@host/db and s3://b/k", "postgresql://***@host/db and s3://b/k"),
        ("s3://b/part-?.jsonl", "s3://b/part-?.jsonl"),
        ("mail me@example.org: https://example.org/a@b", "mail me@example.org: https://example.org/a@b"),
    ],
)
def test_secrets_go_out_of_addresses(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_an_address_with_an_account_is_refused() -> None:
    with pytest.raises(UsageError, match=r"s3://\*\*\*@bucket/x: an address holds no account"):
        scheme_of("s3://me:hidden@bucket/x")


def test_etags_of_one_piece_and_of_parts(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(content := noise((11 << 20) + 7))
    md5 = hashlib.md5(content).hexdigest()
    assert matches(path, md5) is True
    parts = b"".join(hashlib.md5(content[at : at + (5 << 20)]).digest() for at in range(0, len(content), 5 << 20))
    assert matches(path, f"{hashlib.md5(parts).hexdigest()}-3") is True
    assert matches(path, f"{md5}-3") is None  # parts of another size, perhaps
    assert matches(path, "0x8DB") is None
    path.write_bytes(content[1:])
    assert matches(path, md5) is False


@pytest.mark.parametrize("fault", ["500", "503", "reset", "cut", "short", "spoil", "slow"])
@pytest.mark.usefixtures("small_parts")
def test_a_file_comes_whole_through_each_fault(fault: str, bucket: Bucket, home: Path) -> None:
    content = noise(4500)
    bucket.client.pipe_file(f"{bucket.address}/dumps/a.bin", content)
    bucket.faults.plan += [(fault, "GET", r"a\.bin$")] * 2
    path = fetch(f"{bucket.address}/dumps/a.bin")
    assert path.read_bytes() == content
    assert (path.name, bucket.faults.struck) == ("a.bin", [fault, fault])
    before = len(bucket.faults.requests)
    assert fetch(f"{bucket.address}/dumps/a.bin") == path  # what did not change is only listed
    assert all(method == "HEAD" or "list-type" in url for method, url in bucket.faults.requests[before:])
    bucket.client.pipe_file(f"{bucket.address}/dumps/a.bin", content[::-1])
    assert fetch(f"{bucket.address}/dumps/a.bin").read_bytes() == content[::-1]
    forget(path)
    assert not path.exists()


@pytest.mark.usefixtures("small_parts")
def test_a_fault_that_stays_leaves_nothing(bucket: Bucket, home: Path) -> None:
    bucket.client.pipe_file(f"{bucket.address}/a.bin", noise(4500))
    bucket.faults.plan += [("short", "GET", r"a\.bin$")] * 50
    with pytest.raises(StoreError, match=rf"^{bucket.address}/a.bin: .*run the same command again$") as raised:
        fetch(f"{bucket.address}/a.bin")
    assert SECRET not in str(raised.value)
    assert "AKIA" not in str(raised.value)
    assert [path for path in (home / "fetched").rglob("*") if path.suffix != ".lock"] == []


@pytest.mark.parametrize("fault", ["500", "503", "reset", "lost"])
@pytest.mark.usefixtures("small_parts")
def test_a_folder_goes_and_comes_through_faults(fault: str, bucket: Bucket, folder: Path, home: Path) -> None:
    address = f"{bucket.address}/models/hh"
    bucket.faults.plan += [(fault, "PUT", name) for name in ("weights", "unfinished", "reward_model")]
    bucket.faults.plan += [(fault, "GET", "list-type"), (fault, "DELETE", "unfinished")]
    publish_folder(folder, address)
    assert bucket.names("models/hh") == sorted(contents(folder))
    bucket.faults.plan += [("spoil", "GET", "vocab"), (fault, "GET", "weights"), ("short", "GET", "README")]
    assert contents(fetch(address)) == contents(folder)
    assert len(bucket.faults.struck) == 8
    puts = sum(method == "PUT" for method, _ in bucket.faults.requests)
    publish_folder(folder, address)  # the same again
    assert sum(method == "PUT" for method, _ in bucket.faults.requests) == puts
    (folder / "README.md").write_text("b card")
    with pytest.raises(StoreError, match="holds 4 objects already, and a published folder is never replaced"):
        publish_folder(folder, address)
    assert bucket.client.cat_file(f"{address}/README.md") == b"a card"


@pytest.mark.usefixtures("small_parts")
def test_a_publication_that_stops_anywhere_is_not_read_and_can_be_repeated(
    bucket: Bucket, folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_folder(folder, f"{bucket.address}/whole")
    changes = [request for request in bucket.faults.requests if request[0] in ("PUT", "DELETE", "POST")]
    assert len(changes) == 6  # the note, four files, the note's end
    monkeypatch.setattr(filing, "ATTEMPTS", 1)
    for done in (0, 1, 2, 3, 5, 4):
        address = f"{bucket.address}/stop{done}"
        with monkeypatch.context() as patch:
            patch.setattr("rmkit.storage.publish.open_place", stopping(done))
            with pytest.raises(KeyboardInterrupt):
                publish_folder(folder, address)
        if done < 5:
            with pytest.raises(DataError, match="nothing is there" if done == 0 else "is not finished"):
                fetch(address)
        else:
            assert contents(fetch(address)) == contents(folder)
        if done == 4:  # what is published now is not what was begun
            (folder / "README.md").unlink()
            listed = json.loads((folder / "reward_model.json").read_text())["files"]
            del listed["README.md"]
            (folder / "reward_model.json").write_text(json.dumps({"files": listed}))
        if done != 5:
            publish_folder(folder, address)
        assert UNFINISHED not in contents(fetch(address))
        assert bucket.names(f"stop{done}") == sorted(contents(folder)) or done == 5


def stopping(after: int) -> Any:
    """`open_place` whose file system is interrupted at the change that follows so many others."""
    left, lock = [after], threading.Lock()

    class Stopping:
        def __init__(self, files: Any) -> None:
            self.files = files

        def __getattr__(self, name: str) -> Any:
            action = getattr(self.files, name)
            if name not in ("put_file", "pipe_file", "rm_file"):
                return action

            def counted(*args: Any) -> Any:
                with lock:
                    if left[0] == 0:
                        raise KeyboardInterrupt
                    left[0] -= 1
                return action(*args)

            return counted

    def opened(address: str) -> filing.Place:
        place = OPEN(address)
        return filing.Place(place.address, Stopping(place.files), place.path)

    return opened


OPEN = filing.open_place


@pytest.mark.usefixtures("small_parts")
def test_who_reads_all_the_time_sees_nothing_a_beginning_or_all(bucket: Bucket, folder: Path, home: Path) -> None:
    address, seen = f"{bucket.address}/m", list[str]()

    def read() -> str:
        try:
            return "all" if contents(fetch(address)) == contents(folder) else "half"
        except DataError as error:
            return "nothing" if "nothing is there" in str(error) else str(error).partition("is not ")[2][:8]

    bucket.faults.plan += [("slow", "PUT", "")] * 5
    seen.append(read())
    with ThreadPoolExecutor(1) as pool:
        publication = pool.submit(publish_folder, folder, address)
        while not publication.done():
            seen.append(read())
        publication.result()
    seen.append(read())
    assert list(dict.fromkeys(seen)) == ["nothing", "finished", "all"]


@pytest.mark.usefixtures("small_parts")
def test_what_others_put_there_is_never_overwritten(bucket: Bucket, folder: Path, home: Path) -> None:
    address = f"{bucket.address}/theirs"
    bucket.client.pipe_file(f"{address}/README.md", b"theirs")
    with pytest.raises(StoreError, match="holds 1 object already"):
        publish_folder(folder, address)
    bucket.client.pipe_file(f"{address}/{UNFINISHED}", b'{"files": ["weights.npz"]}')
    with pytest.raises(StoreError, match=r"holds objects that are not rmkit's \(README.md\)"):
        publish_folder(folder, address)
    assert bucket.client.cat_file(f"{address}/README.md") == b"theirs"
    bucket.client.pipe_file(f"{bucket.address}/one", b"an object")
    with pytest.raises(StoreError, match="is one object"):
        publish_folder(folder, f"{bucket.address}/one")


@pytest.mark.usefixtures("small_parts")
def test_a_folder_that_does_not_hold_what_it_lists_is_no_artifact(bucket: Bucket, folder: Path, home: Path) -> None:
    publish_folder(folder, f"{bucket.address}/m")
    bucket.client.pipe_file(f"{bucket.address}/m/README.md", b"changed later")
    with pytest.raises(DataError, match=r"README.md is missing or not what reward_model.json says of it"):
        fetch(f"{bucket.address}/m")
    assert not [path for path in (home / "fetched").iterdir() if path.is_dir()]


@pytest.mark.usefixtures("small_parts")
def test_an_object_whose_etag_is_no_md5_is_believed_when_two_readings_agree(
    bucket: Bucket, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.client.pipe_file(f"{bucket.address}/kms", noise(2500))
    monkeypatch.setattr(filing, "_mark", lambda facts: "0" * 32)
    assert fetch(f"{bucket.address}/kms").read_bytes() == noise(2500)
    assert sum(method == "GET" and url.endswith("kms") for method, url in bucket.faults.requests) == 6


@pytest.mark.usefixtures("small_parts")
def test_patterns_take_what_they_match_and_the_notes_beside_it(bucket: Bucket, home: Path) -> None:
    for name in ("d/a.jsonl", "d/b.jsonl", "d/b.jsonl.source.toml", "d/c.csv", "d/e/f.jsonl", "other/a.jsonl"):
        bucket.client.pipe_file(f"{bucket.address}/{name}", name.encode())
    paths = fetch_matching(f"{bucket.address}/d/*.jsonl", along=["{name}.source.toml"])
    assert [path.read_text() for path in paths] == ["d/a.jsonl", "d/b.jsonl"]
    assert paths[1].with_name("b.jsonl.source.toml").is_file()
    assert len(fetch_matching(f"{bucket.address}/d/**/*.jsonl")) == 3
    with pytest.raises(DataError, match="no object matches"):
        fetch_matching(f"{bucket.address}/d/*.parquet")


@pytest.mark.usefixtures("small_parts")
def test_a_folder_is_published_where_no_etag_is_an_md5(
    bucket: Bucket, folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filing, "_mark", lambda facts: "0" * 32)
    for _ in range(2):
        publish_folder(folder, f"{bucket.address}/kms")
    assert contents(fetch(f"{bucket.address}/kms")) == contents(folder)
    (folder / "README.md").write_bytes(b"B card")
    with pytest.raises(StoreError, match="never replaced"):
        publish_folder(folder, f"{bucket.address}/kms")


@pytest.mark.usefixtures("small_parts")
def test_of_two_publishers_at_most_one_finishes(
    bucket: Bucket, folder: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second begins when the first has put its files, and all but the last of its own are there before the first
    looks again."""
    other, address = tmp_path / "other", f"{bucket.address}/contested"
    shutil.copytree(folder, other)
    (other / "weights.npz").write_bytes(noise(5000, seed=1))
    check, turns = publishing._check, [0]

    def contested(*args: Any) -> None:
        turns[0] += 1
        if turns[0] == 1:
            with monkeypatch.context() as patch:
                patch.setattr(publishing, "_check", interrupted)
                with pytest.raises(KeyboardInterrupt):
                    publish_folder(other, address)
        check(*args)

    monkeypatch.setattr(publishing, "_check", contested)
    with pytest.raises(StoreError, match=r"another process publishes to .* too"):
        publish_folder(folder, address)
    with pytest.raises(DataError, match="is not finished"):
        fetch(address)


def interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.usefixtures("small_parts")
def test_what_another_process_has_fetched_too_stays(bucket: Bucket, home: Path) -> None:
    bucket.client.pipe_file(f"{bucket.address}/a.bin", noise(4500))
    path = fetch(f"{bucket.address}/a.bin")
    reader = os.open(path.parent, os.O_RDONLY)  # as another process does
    fcntl.flock(reader, fcntl.LOCK_SH)
    forget(path)
    assert path.read_bytes() == noise(4500)
    os.close(reader)
    forget(path)
    assert not path.parent.exists()
    assert fetch(f"{bucket.address}/a.bin").read_bytes() == noise(4500)


@pytest.mark.usefixtures("small_parts")
def test_several_that_fetch_at_once_read_each_part_once(bucket: Bucket, home: Path) -> None:
    bucket.client.pipe_file(f"{bucket.address}/a.bin", noise(4500))
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(fetch, [f"{bucket.address}/a.bin"] * 4))
    assert [path.read_bytes() for path in paths] == [noise(4500)]
    assert sum(method == "GET" and url.endswith("a.bin") for method, url in bucket.faults.requests) == 5


def test_a_file_takes_the_place_of_a_file(bucket: Bucket, tmp_path: Path, home: Path) -> None:
    (tmp_path / "page.html").write_text("one")
    publish_file(tmp_path / "page.html", f"{bucket.address}/page.html")
    (tmp_path / "page.html").write_text("two")
    publish_file(tmp_path / "page.html", f"{bucket.address}/page.html")
    assert fetch(f"{bucket.address}/page.html").read_text() == "two"


def test_what_cannot_be_opened_is_one_line(bucket: Bucket, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=f"^{bucket.address}/none: nothing is there$"):
        fetch(f"{bucket.address}/none")
    with pytest.raises(DataError, match="nothing is there"):
        fetch("s3://no-such-bucket-here/x")
    with pytest.raises(UsageError, match=r"unknown scheme 's4://'; did you mean 's3://'"):
        fetch("s4://bucket/x")
    with pytest.raises(MissingExtraError, match="gcsfs is not installed; run: pip install gcsfs"):
        fetch("gs://bucket/x")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    filing.open_place("s3://x/y").files.clear_instance_cache()  # type: ignore[attr-defined]
    with pytest.raises(StoreError, match=r"Unable to locate credentials; set AWS_ACCESS_KEY_ID or AWS_PROFILE"):
        fetch(f"{bucket.address}/none")


def test_folders_of_this_machine_have_addresses_too(folder: Path, tmp_path: Path, home: Path) -> None:
    publish_folder(folder, f"file://{tmp_path}/there/m")
    assert contents(tmp_path / "there/m") == contents(folder) == contents(fetch(f"file://{tmp_path}/there/m"))


@pytest.mark.parametrize("text", ['{"files": {"a.txt": "1", "../b": {"size": 3}}}', "no JSON"])
def test_a_manifest_of_others_says_nothing(text: str, tmp_path: Path, home: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/manifest.json").write_text(text)
    assert contents(fetch(f"file://{tmp_path}/d")) == {"manifest.json": text.encode()}


def test_a_missing_s3fs_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def missing(scheme: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(MissingExtraError, match=r"s3fs is not installed; run: pip install .*\[cloud\]"):
        fetch("s3://bucket/x")
