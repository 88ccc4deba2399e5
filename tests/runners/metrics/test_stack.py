"""What Prometheus and Grafana are given: valid, for this machine alone, and with vLLM's names as they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, Gauge, start_http_server

from recipes.errors import UsageError
from runners.metrics.stack import files, write
from tests.conftest import Command, eventually
from tests.prometheus import installed, prometheus, promtool


@installed
@pytest.mark.real
@pytest.mark.parametrize("interval_s", [0.5, 1.0, 15.0, 90.0])
def test_promtool_accepts_the_configuration(tmp_path: Path, interval_s: float) -> None:
    folder = write(tmp_path / "a folder", tmp_path / "home", interval_s=interval_s)
    checked = promtool("check", "config", str(folder / "prometheus.yml"))
    assert checked.returncode == 0, checked.stdout + checked.stderr


@installed
@pytest.mark.real
def test_an_engine_that_is_scraped_directly_keeps_its_names(tmp_path: Path) -> None:
    """Prometheus 2 and a newer prometheus_client agree on vllm_; what is stored is vllm: all the same."""
    registry = CollectorRegistry()
    Gauge("vllm:num_requests_running", "As vLLM says.", registry=registry).set(3)
    server, thread = start_http_server(0, "127.0.0.1", registry)
    folder = write(tmp_path / "stack", tmp_path / "home", interval_s=1)
    target = [{"targets": [f"127.0.0.1:{server.server_port}"]}]
    (folder / "engines/mine.json").write_text(json.dumps(target))
    with prometheus(folder / "prometheus.yml", tmp_path / "data") as scraping:
        eventually(lambda: scraping.value("vllm:num_requests_running") == 3, what="the engine's series")
        assert scraping.value("vllm_num_requests_running") is None
    server.shutdown()
    server.server_close()
    thread.join()


def test_nothing_listens_beyond_this_machine(tmp_path: Path) -> None:
    written = files(tmp_path / "stack", tmp_path / "home", 5)
    services = yaml.safe_load(written["compose.yaml"])["services"]
    assert services["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    assert "--web.listen-address=127.0.0.1:9090" in services["prometheus"]["command"]
    assert all("ports" not in service and ":latest" not in service["image"] for service in services.values())
    source = yaml.safe_load(written["grafana/provisioning/datasources/recipe.yaml"])["datasources"][0]
    assert source["url"] == "http://127.0.0.1:9090"


def test_what_the_containers_read_is_mounted_where_it_is_said_to_be(tmp_path: Path) -> None:
    folder = write(tmp_path / "stack", tmp_path / "home", interval_s=5)
    config = yaml.safe_load((folder / "prometheus.yml").read_text())
    services = yaml.safe_load((folder / "compose.yaml").read_text())["services"]
    for service in services.values():
        for volume in service["volumes"]:
            assert Path(volume.split(":")[0]).is_dir(), volume
    there = [Path(volume.split(":")[1]) for volume in services["prometheus"]["volumes"]]
    for job in config["scrape_configs"]:
        read = Path(job["file_sd_configs"][0]["files"][0]).parent
        assert any(read == path or path in read.parents for path in there), read
    provider = yaml.safe_load((folder / "grafana/provisioning/dashboards/recipe.yaml").read_text())["providers"][0]
    assert [path.name for path in Path(provider["options"]["path"]).iterdir()] == ["recipe-runs.json"]


def test_written_again_what_is_of_somebody_else_stays(tmp_path: Path) -> None:
    folder = write(tmp_path / "stack", tmp_path / "home", interval_s=5)
    (folder / "engines/mine.json").write_text("[]")
    (folder / "prometheus.yml").write_text("spoiled")
    write(folder, tmp_path / "home", interval_s=5)
    assert (folder / "engines/mine.json").read_text() == "[]"
    assert "scrape_configs" in (folder / "prometheus.yml").read_text()


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="file"):
        write(tmp_path / "file", tmp_path / "home", interval_s=5)


@pytest.mark.real
def test_the_command_says_how_to_start_them(recipe: Command) -> None:
    ended = recipe("metrics", "--write", "stack")
    assert ended.returncode == 0
    assert f"docker compose -f {recipe.cwd}/stack/compose.yaml up -d" in ended.stdout
    assert f"{recipe.cwd}/stack/prometheus.yml --query.lookback-delta=15s" in ended.stdout
    assert (recipe.home / "metrics/targets").is_dir(), "Docker would make it as root"
    assert json.loads(recipe("metrics", "--write", "stack", "--json").stdout)["folder"] == f"{recipe.cwd}/stack"
