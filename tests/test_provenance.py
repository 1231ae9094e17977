import subprocess

import agman.provenance as provenance


def test_a_run_is_described_by_what_it_takes_to_repeat_it():
    found = provenance.provenance()
    assert {"torch", "torchvision", "numpy"} <= set(found["versions"])
    assert found["machine"]["threads"] >= 1
    assert found["date"].endswith("+00:00")


def test_only_a_change_of_code_marks_the_commit(monkeypatch):
    said = {"rev-parse": "0123456789ab", "status": ""}
    monkeypatch.setattr(provenance, "_git", lambda word, *_: said[word])
    assert provenance.commit() == "0123456789ab"
    said["status"] = " M agman/losses.py"
    assert provenance.commit() == "0123456789ab+"


def test_without_a_checkout_there_is_no_commit(monkeypatch):
    def fail(*_):
        raise subprocess.CalledProcessError(128, "git")

    monkeypatch.setattr(provenance, "_git", fail)
    assert provenance.commit() is None


def test_a_package_that_is_not_installed_is_not_named(monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGES", ("torch", "no-such-package"))
    assert set(provenance.provenance()["versions"]) == {"agman", "torch"}


def test_the_processor_is_named_where_linux_does_not_tell(monkeypatch):
    monkeypatch.setattr(provenance.Path, "exists", lambda _: False)
    monkeypatch.setattr(provenance.platform, "processor", lambda: "")
    monkeypatch.setattr(provenance.platform, "machine", lambda: "arm64")
    assert provenance.provenance()["machine"]["processor"] == "arm64"
